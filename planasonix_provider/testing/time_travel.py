"""Hours that pass at once, though what is asked over the network is really asked.

Whoever waits for Planasonix lets time pass: on a worker, between two pokes or reschedules of a sensor, in a trigger. So
does ``dag.test()`` while none of its tasks can run, as before a retry. Nothing passes while a request is under way, or
the Airflow connection is read.
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

#: How many seconds pass each time that ``dag.test()`` finds nothing to run and sleeps for one: five minutes are what
#: Airflow lets go by before a retry.
IDLE = 300.0
#: How often a loop checks, in real seconds, whether all requests are over.
CHECK_SECONDS = 0.02
#: The modules in which it does.
DAG_TESTS = ("airflow.models.dag", "airflow.sdk.definitions.dag")


class TravelledClock:
    """A clock that passes while somebody sleeps.

    :param traveller: sets this process's time of day; ``None`` lets that be.
    """

    def __init__(self, traveller: Any = None) -> None:
        self._traveller = traveller
        #: The seconds that were slept.
        self.passed = 0.0
        #: How many coroutines wait for something real.
        self.in_flight = 0

    def sleep(self, seconds: float) -> None:
        """Let time pass.

        :param seconds: for how long.
        """
        self.passed += seconds
        if self._traveller:
            self._traveller.shift(seconds)

    def monotonic(self) -> float:
        """Count the seconds.

        :return: the seconds that have passed.
        """
        return self.passed

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Run what is awaited, as ``asyncio.run``, in an event loop whose timers go by this clock.

        :param main: what to run.
        :return: what came of it.
        """
        with asyncio.Runner(loop_factory=lambda: _TravelledEventLoop(self)) as runner:
            return runner.run(main)

    def stops_during(self, function: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        """Let no time pass while a coroutine waits for something real: the network, or a thread.

        :param function: makes the coroutine.
        :return: a function that does the same.
        """

        @wraps(function)
        async def counted(*arguments: Any) -> R:
            self.in_flight += 1
            try:
                return await function(*arguments)
            finally:
                self.in_flight -= 1

        return counted


class _Selector(selectors.DefaultSelector):
    """Lets the time that the loop would sleep pass on the clock instead."""

    travel: TravelledClock

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            return super().select(None)
        if self.travel.in_flight:
            # The request may be of a loop in another thread, whose end does not wake this one.
            return super().select(CHECK_SECONDS)
        self.travel.sleep(timeout)
        return []


class _TravelledEventLoop(asyncio.SelectorEventLoop):
    def __init__(self, travel: TravelledClock) -> None:
        selector = _Selector()
        selector.travel = travel
        self._travel = travel
        super().__init__(selector)

    def time(self) -> float:
        return self._travel.passed


@contextmanager
def travelling(began: datetime | None = None) -> Iterator[TravelledClock]:
    """Let hours pass at once while somebody waits for Planasonix.

    :param began: the time of day to begin at; from then on, time passes while somebody sleeps and not otherwise.
        ``None`` is now; then the time of day goes on by itself as well.
    :return: the clock.
    """
    day = time_machine.travel(began or datetime.now(UTC), tick=began is None)
    with day as traveller, pytest.MonkeyPatch.context() as patch:
        travel = TravelledClock(traveller)
        # Looked up at each sleep: a test may put something in its place.
        passing = SimpleNamespace(sleep=lambda seconds: travel.sleep(seconds), monotonic=travel.monotonic)
        patch.setattr(clock, "time", passing)
        patch.setattr(clock, "asyncio", SimpleNamespace(run=travel.run))
        # In pieces of half a second, days would take their time.
        patch.setattr(interruptible_sleep, "MAX_SLICE", 10.0)
        patch.setattr(AsyncClient, "_send_once", travel.stops_during(AsyncClient._send_once))
        patch.setattr(PlanasonixHook, "async_settings", travel.stops_during(PlanasonixHook.async_settings))
        patch.setattr(PlanasonixWaitTrigger, "run", _in_travelled_time(PlanasonixWaitTrigger.run))
        patch.setattr(PlanasonixSensor, "execute", _poking_in_travelled_time(PlanasonixSensor.execute, passing))
        patch.setattr(time, "sleep", _passes_while_idle(time.sleep, passing.sleep))
        yield travel


def _in_travelled_time(run: Callable[..., AsyncIterator[R]]) -> Callable[..., AsyncIterator[R]]:
    """Let a trigger of ours run in a loop of ours: Airflow's own has timers of others, or goes by real time."""

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


def _poking_in_travelled_time(execute: Callable[..., R], passing: SimpleNamespace) -> Callable[..., R]:
    """Let a sensor of ours pass the time between two pokes, in which Airflow itself sleeps or ends the process."""
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


def _passes_while_idle(sleep: Callable[[float], None], advance: Callable[[float], None]) -> Callable[[float], None]:
    """Let time pass where ``dag.test()`` sleeps; whoever else does so sleeps."""

    def sleep_or_pass(seconds: float, /) -> None:
        if sys._getframe(1).f_globals.get("__name__") in DAG_TESTS:
            advance(IDLE)
        else:
            sleep(seconds)

    return sleep_or_pass
