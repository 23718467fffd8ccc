"""The clock of travelled time. This module imports no Airflow."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import pytest
import time_machine

from planasonix_provider import clock
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.waiting import interruptible_sleep

R = TypeVar("R")

#: Real seconds between two checks of a loop for requests in flight.
IN_FLIGHT_CHECK_SECONDS = 0.02


class TravelledClock:
    """A clock that advances only while code sleeps.

    :param traveller: also shifts this process's time of day; ``None`` leaves it alone.
    """

    def __init__(self, traveller: Any = None) -> None:
        self._traveller = traveller
        self._passed = timedelta()
        #: The coroutines that wait for something real; time stands still for them.
        self.in_flight = 0

    @property
    def passed(self) -> float:
        """The seconds that have passed."""
        return self._passed.total_seconds()

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        # Both clocks move by whole microseconds, as datetimes do. If each rounded in its own way, they could disagree
        # about whether a deadline is over.
        step = timedelta(seconds=seconds)
        if seconds > 0:
            # An event loop would never reach a timer that is due in less than a microsecond.
            step = max(step, timedelta.resolution)
        self._passed += step
        if self._traveller:
            self._traveller.shift(step)

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.passed

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine as ``asyncio.run`` does, in an event loop whose timers follow this clock."""
        with asyncio.Runner(loop_factory=lambda: TravelledEventLoop(self)) as runner:
            return runner.run(main)

    def stop_during(self, function: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        """Wrap a coroutine function that waits for the network or a thread: the clock stands still meanwhile."""

        @wraps(function)
        async def counted(*arguments: Any) -> R:
            self.in_flight += 1
            try:
                return await function(*arguments)
            finally:
                self.in_flight -= 1

        return counted


class _TravellingSelector(selectors.DefaultSelector):
    """Advances the clock by the time that the loop would sleep."""

    travel: TravelledClock

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            return super().select(None)
        if self.travel.in_flight:
            # The request may belong to a loop in another thread, whose end does not wake this one.
            return super().select(IN_FLIGHT_CHECK_SECONDS)
        self.travel.sleep(timeout)
        return []


class TravelledEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers follow a clock."""

    def __init__(self, travel: TravelledClock) -> None:
        selector = _TravellingSelector()
        selector.travel = travel
        self._travel = travel
        super().__init__(selector)

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._travel.passed

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        """Wait for the threads in real time: from Python 3.13 on, a timer limits this wait."""
        await self._travel.stop_during(super().shutdown_default_executor)(*arguments)


@contextmanager
def travel_clock(began: datetime | None = None) -> Iterator[TravelledClock]:
    """Advance the time only while code sleeps.

    With ``began``, the time of day starts there and advances only while code sleeps. Without, it starts now and real
    time counts too.
    """
    day = time_machine.travel(began or datetime.now(UTC), tick=began is None)
    with day as traveller, pytest.MonkeyPatch.context() as patch:
        travel = TravelledClock(traveller)
        patch.setattr(clock, "time", travel)
        patch.setattr(clock, "run", travel.run)
        # Slices of half a second would make days slow.
        patch.setattr(interruptible_sleep, "MAX_SLICE_SECONDS", 10.0)
        patch.setattr(AsyncClient, "_send_once", travel.stop_during(AsyncClient._send_once))
        yield travel
