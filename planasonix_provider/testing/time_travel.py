"""Travelled time: hours of waiting pass at once, while requests over the network are real.

Time passes while a task waits for Planasonix: on a worker, between two pokes or reschedules of a sensor, in a trigger.
It also passes while ``dag.test()`` has no task to run, as before a retry. It stands still during a request and while
the Airflow connection is read. While ``dag.test()`` waits for a person, only real time passes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

import pytest
from airflow.providers.common.compat.sdk import BaseSensorOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.sensors.base import PlanasonixSensor
from planasonix_provider.testing.travelled_clock import TravelledClock, TravelledEventLoop, travel_clock
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.waiting.loop_thread import run_in_loop_thread

R = TypeVar("R")

#: Seconds that pass each time that ``dag.test()`` finds nothing to run and sleeps for one second. Airflow's default
#: delay before a retry is five minutes.
IDLE_STEP_SECONDS = 300.0
#: The modules whose ``time.sleep`` lets time pass.
DAG_TEST_MODULES = ("airflow.models.dag", "airflow.sdk.definitions.dag")


@contextmanager
def travel_time(began: datetime | None = None) -> Iterator[TravelledClock]:
    """Make hours of waiting for Planasonix pass at once, in Airflow's tasks, sensors and triggers, too."""
    with travel_clock(began) as travel, pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlanasonixHook, "async_settings", travel.stop_during(PlanasonixHook.async_settings))
        patch.setattr(PlanasonixWaitTrigger, "run", _run_in_travelled_loop(PlanasonixWaitTrigger.run))
        patch.setattr(PlanasonixSensor, "execute", _poke_in_travelled_time(PlanasonixSensor.execute, travel))
        patch.setattr(time, "sleep", _advance_while_idle(time.sleep, travel))
        if not AIRFLOW_V_3_0_PLUS:
            # dag.test() of Airflow 2 leaves triggers to a running triggerer, in which time is not simulated.
            patch.setattr("airflow.models.dag._triggerer_is_healthy", lambda: False)
        yield travel


def _run_in_travelled_loop(run: Callable[..., AsyncIterator[R]]) -> Callable[..., AsyncIterator[R]]:
    """Run a trigger in an event loop with moved time, because Airflow's own loop follows real time."""

    @wraps(run)
    async def travelled(trigger: Any) -> AsyncIterator[R]:
        if isinstance(asyncio.get_running_loop(), TravelledEventLoop):
            async for event in run(trigger):
                yield event
            return

        async def first() -> R:
            async with aclosing(run(trigger)) as events:  # type: ignore[type-var] # it is a generator
                return await anext(events)

        yield run_in_loop_thread(first)

    return travelled


def _poke_in_travelled_time(execute: Callable[..., R], travel: TravelledClock) -> Callable[..., R]:
    """Advance the clock between two pokes, where Airflow itself sleeps or ends the process."""
    airflows = sys.modules[BaseSensorOperator.__module__]

    @wraps(execute)
    def travelled(*arguments: Any, **named: Any) -> R:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(airflows, "time", travel)
            try:
                return execute(*arguments, **named)
            except Exception as end:
                if again := getattr(end, "reschedule_date", None):
                    travel.sleep(max(0.0, (again - datetime.now(UTC)).total_seconds()))
                raise

    return travelled


def _advance_while_idle(sleep: Callable[[float], None], travel: TravelledClock) -> Callable[[float], None]:
    """Advance the clock if ``dag.test()`` sleeps and waits for no person; otherwise sleep."""

    def sleep_or_pass(seconds: float, /) -> None:
        caller = sys._getframe(1)
        is_dag_test = caller.f_globals.get("__name__") in DAG_TEST_MODULES
        # A local variable of dag.test() in Airflow 3.3. The login of a person must not expire before the response.
        if is_dag_test and not caller.f_locals.get("awaiting_input_tis"):
            travel.sleep(IDLE_STEP_SECONDS)
        else:
            sleep(seconds)

    return sleep_or_pass
