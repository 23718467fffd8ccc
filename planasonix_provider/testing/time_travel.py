"""Travelled time: hours of waiting pass at once, while requests over the network are real.

Time passes while a task waits for Planasonix: on a worker, between two pokes or reschedules of a sensor, in a trigger.
It also passes while ``dag.test()`` has no task to run, as before a retry. It stands still
during a request and while the Airflow connection is read.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from functools import wraps
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import time_machine
from airflow.providers.common.compat.sdk import BaseSensorOperator

from planasonix_provider import clock
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.sensors.base import PlanasonixSensor
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.waiting import interruptible_sleep
from planasonix_provider.waiting.loop_thread import run_in_loop_thread

R = TypeVar("R")

#: Seconds that pass each time that ``dag.test()`` finds nothing to run and sleeps for one second. Airflow's default
#: delay before a retry is five minutes.
IDLE_STEP_SECONDS = 300.0
#: Real seconds between two checks of a loop for requests in flight.
IN_FLIGHT_CHECK_SECONDS = 0.02
#: The modules whose ``time.sleep`` lets time pass.
DAG_TEST_MODULES = ("airflow.models.dag", "airflow.sdk.definitions.dag")


class TravelledClock:
    """A clock that advances only while code sleeps.

    :param traveller: also shifts this process's time of day; ``None`` leaves it alone.
    """

    def __init__(self, traveller: Any = None) -> None:
        self._traveller = traveller
        self.passed = 0.0
        #: The coroutines that wait for something real; time stands still for them.
        self.in_flight = 0

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.passed += seconds
        if self._traveller:
            self._traveller.shift(seconds)

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.passed

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine as ``asyncio.run`` does, in an event loop whose timers follow this clock."""
        with asyncio.Runner(loop_factory=lambda: _TravelledEventLoop(self)) as runner:
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


class _TravelledEventLoop(asyncio.SelectorEventLoop):
    def __init__(self, travel: TravelledClock) -> None:
        selector = _TravellingSelector()
        selector.travel = travel
        self._travel = travel
        super().__init__(selector)

    def time(self) -> float:
        return self._travel.passed


@contextmanager
def travel_time(began: datetime | None = None) -> Iterator[TravelledClock]:
    """Make hours of waiting for Planasonix pass at once.

    With ``began``, the time of day starts there and advances only while code sleeps. Without, it starts now and real
    time counts too.
    """
    day = time_machine.travel(began or datetime.now(UTC), tick=began is None)
    with day as traveller, pytest.MonkeyPatch.context() as patch:
        travel = TravelledClock(traveller)
        # Looked up at each sleep, because tests patch the clock's sleep.
        passing = SimpleNamespace(sleep=lambda seconds: travel.sleep(seconds), monotonic=travel.monotonic)
        patch.setattr(clock, "time", passing)
        patch.setattr(clock, "run", travel.run)
        # Slices of half a second would make days slow.
        patch.setattr(interruptible_sleep, "MAX_SLICE_SECONDS", 10.0)
        patch.setattr(AsyncClient, "_send_once", travel.stop_during(AsyncClient._send_once))
        patch.setattr(PlanasonixHook, "async_settings", travel.stop_during(PlanasonixHook.async_settings))
        patch.setattr(PlanasonixWaitTrigger, "run", _run_in_travelled_loop(PlanasonixWaitTrigger.run))
        patch.setattr(PlanasonixSensor, "execute", _poke_in_travelled_time(PlanasonixSensor.execute, passing))
        patch.setattr(time, "sleep", _advance_while_idle(time.sleep, passing.sleep))
        yield travel


def _run_in_travelled_loop(run: Callable[..., AsyncIterator[R]]) -> Callable[..., AsyncIterator[R]]:
    """Run a trigger in an event loop with moved time, because Airflow's own loop follows real time."""

    @wraps(run)
    async def travelled(trigger: Any) -> AsyncIterator[R]:
        if isinstance(asyncio.get_running_loop(), _TravelledEventLoop):
            async for event in run(trigger):
                yield event
            return

        async def first() -> R:
            async with aclosing(run(trigger)) as events:  # type: ignore[type-var] # it is a generator
                return await anext(events)

        yield run_in_loop_thread(first)

    return travelled


def _poke_in_travelled_time(execute: Callable[..., R], passing: SimpleNamespace) -> Callable[..., R]:
    """Advance the clock between two pokes, where Airflow itself sleeps or ends the process."""
    airflows = sys.modules[BaseSensorOperator.__module__]

    @wraps(execute)
    def travelled(*arguments: Any, **named: Any) -> R:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(airflows, "time", passing)
            try:
                return execute(*arguments, **named)
            except Exception as end:
                if again := getattr(end, "reschedule_date", None):
                    passing.sleep(max(0.0, (again - datetime.now(UTC)).total_seconds()))
                raise

    return travelled


def _advance_while_idle(sleep: Callable[[float], None], advance: Callable[[float], None]) -> Callable[[float], None]:
    """Advance the clock if ``dag.test()`` calls ``time.sleep``; other callers sleep."""

    def sleep_or_pass(seconds: float, /) -> None:
        if sys._getframe(1).f_globals.get("__name__") in DAG_TEST_MODULES:
            advance(IDLE_STEP_SECONDS)
        else:
            sleep(seconds)

    return sleep_or_pass
