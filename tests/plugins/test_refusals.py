from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from planasonix_provider.plugins.receiver import make_app
from planasonix_provider.plugins.refusals import RefusalCounter
from tests.plugins.conftest import ANOTHER_SECRET, Assets, body, headers, to


class Log:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[dict[str, int]] = []
        self.is_broken = False

    def save(self, counts: Mapping[str, int]) -> None:
        if self.is_broken:
            raise OSError
        self.entries.append(dict(counts))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.005)


async def test_many_refusals_are_one_entry() -> None:
    log = Log()
    counter = RefusalCounter(log.save, interval=0.02)
    for name in ["orders", "ORDERS"] * 500 + ["other"]:
        counter.count(name)
    assert counter.unsaved == {"orders": 1_000, "other": 1}
    await until(lambda: log.entries)
    assert (log.entries, counter.unsaved) == ([{"orders": 1_000, "other": 1}], {})
    counter.count("orders")
    await until(lambda: len(log.entries) == 2)
    assert log.entries[1] == {"orders": 1}


async def test_counts_are_saved_later_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.is_broken = True
    counter = RefusalCounter(log.save, interval=0.01)
    with caplog.at_level(logging.WARNING):
        counter.count("orders")
        await until(lambda: caplog.records)
    log.is_broken = False
    await until(lambda: log.entries)
    assert log.entries == [{"orders": 1}]


async def test_only_receivers_that_exist_are_counted(assets: Assets, connection: Any) -> None:
    refused: list[str] = []
    async with to(make_app(on_refusal=refused.append)) as deliver:
        content = body()
        wrong = headers(content, ANOTHER_SECRET)
        assert (await deliver(content, headers={})).status_code == 401, "the first request for this receiver"
        assert refused == []
        assert (await deliver(content, headers=wrong)).status_code == 401
        assert (await deliver(content, headers=wrong, name="ORDERS")).status_code == 401
        assert (await deliver(content, headers={})).status_code == 401
        assert (await deliver(content, headers=wrong, name="invented")).status_code == 503
        assert (await deliver(content, headers={}, name="invented")).status_code == 401
        assert (await deliver(b"[]", headers=headers(b"[]"))).status_code == 400
        assert (await deliver(content)).status_code == 204
    assert refused == ["orders"] * 4
