"""Hours that pass at once, though what is asked over the network is really asked.

Whoever sleeps lets time pass: on a worker, between the pokes of a sensor, and in every event loop. Nothing passes while
a request is under way, or the Airflow connection is read.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import time_machine
from airflow.providers.common.compat.sdk import BaseSensorOperator

from planasonix_provider.api import pace
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting import rest

T = TypeVar("T")

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


class Travel:
    """A clock that passes while somebody sleeps."""

    def __init__(self, traveller: Any) -> None:
        self._traveller = traveller
        self.passed = 0.0
        self.in_flight = 0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds
        self._traveller.shift(seconds)

    def monotonic(self) -> float:
        """Tell the seconds that have passed."""
        return self.passed

    def stops_during(self, function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        """Let no time pass while a coroutine waits for something real: the network, or a thread."""

        async def counted(*arguments: Any) -> T:
            self.in_flight += 1
            try:
                return await function(*arguments)
            finally:
                self.in_flight -= 1

        return counted


class _Selector(selectors.DefaultSelector):
    travel: Travel

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if self.travel.in_flight or timeout is None:
            return super().select(0.02)
        self.travel.sleep(timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, travel: Travel) -> None:
        selector = _Selector()
        selector.travel = travel
        self._travel = travel
        super().__init__(selector)

    def time(self) -> float:
        return self._travel.passed


class _Policy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, travel: Travel) -> None:
        super().__init__()
        self._travel = travel

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop(self._travel)


@contextmanager
def travelling(monkeypatch: pytest.MonkeyPatch, began: datetime = BEGAN) -> Iterator[Travel]:
    """Let time pass only while somebody sleeps, from a moment on."""
    with time_machine.travel(began, tick=False) as traveller, monkeypatch.context() as patch:
        travel = Travel(traveller)
        clock = SimpleNamespace(**{**vars(time), "sleep": travel.sleep, "monotonic": travel.monotonic})
        patch.setattr(rest, "time", clock)
        patch.setattr(pace, "time", clock)
        patch.setattr(sys.modules[BaseSensorOperator.__module__], "time", clock)
        patch.setattr(AsyncClient, "_send_once", travel.stops_during(AsyncClient._send_once))
        patch.setattr(PlanasonixHook, "async_settings", travel.stops_during(PlanasonixHook.async_settings))
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(_Policy(travel))
        try:
            yield travel
        finally:
            asyncio.set_event_loop_policy(before)
