from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from planasonix_provider.plugins.rate_limited_log import INTERVAL_SECONDS, RateLimitedLog
from planasonix_provider.testing.travelled_clock import TravelledClock

log = logging.getLogger("planasonix.test")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[Coroutine[Any, Any, None]], list[str]]:
    def run(main: Coroutine[Any, Any, None]) -> list[str]:
        TravelledClock().run(main)
        return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == log.name]

    return run


def test_the_first_line_is_logged_at_once_and_the_others_are_counted(lines: Callable[..., list[str]]) -> None:
    async def main() -> None:
        limited = RateLimitedLog(log)
        for number in range(1000):
            limited.log("forged", logging.WARNING, f"forged {number} %s")
        assert len(limited._suppressed) == 1
        await asyncio.sleep(INTERVAL_SECONDS + 1)

    assert lines(main()) == [
        "WARNING forged 0 %s",
        "WARNING 999 more such lines in 60 s, the last: forged 999 %s",
    ]


def test_a_flood_causes_one_line_per_minute(lines: Callable[..., list[str]]) -> None:
    async def main() -> None:
        limited = RateLimitedLog(log)
        for _ in range(590):
            limited.log("forged", logging.WARNING, "forged")
            await asyncio.sleep(1)

    assert len(lines(main())) == 10


def test_kinds_are_counted_separately(lines: Callable[..., list[str]]) -> None:
    async def main() -> None:
        limited = RateLimitedLog(log)
        limited.log("forged", logging.WARNING, "forged")
        limited.log("asset", logging.ERROR, "no asset")

    assert lines(main()) == ["WARNING forged", "ERROR no asset"]


def test_after_a_quiet_minute_the_next_line_is_logged_at_once(lines: Callable[..., list[str]]) -> None:
    async def main() -> None:
        limited = RateLimitedLog(log)
        for text in ("one", "another"):
            limited.log("forged", logging.WARNING, text)
            await asyncio.sleep(INTERVAL_SECONDS + 1)
            assert limited._suppressed == {}

    assert lines(main()) == ["WARNING one", "WARNING another"]
