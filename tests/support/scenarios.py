"""Tasks that tests run, kills of tasks, and the requests that the simulator got."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from planasonix_provider.api.models import Backfill
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from tests.support.task_runs import Log, Run, context, record

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
#: Four jobs run at a time, and after a cancel two more appear.
STUBBORN: dict[str, Any] = {
    "queued_seconds": 0,
    "parallel": 4,
    "job_seconds": 60,
    "jobs_after_cancel": 2,
    "cancelling_seconds": 0.1,
}
ENDED = ("cancelling", "cancelled")
START_ROUTES = ("trigger_sync", "trigger_backfill")


def sync(**parameters: Any) -> PlanasonixSyncOperator:
    return PlanasonixSyncOperator(
        **{"task_id": "load", "connection_id": CONNECTION, "poll_interval": 0.03, **parameters}
    )


def backfill(**parameters: Any) -> PlanasonixBackfillOperator:
    return PlanasonixBackfillOperator(
        **{
            "task_id": "replay",
            "connection_id": CONNECTION,
            "start_at": "2025-01-01T00:00:00Z",
            "end_at": "2025-03-01T00:00:00Z",
            "poll_interval": 0.03,
            **parameters,
        }
    )


def routes_asked(simulator: Simulator) -> list[str]:
    return [request.route for request in simulator.requests]


@contextmanager
def meanwhile(act: Callable[[], object], *, once: Callable[[], bool]) -> Iterator[None]:
    """Call a function in a thread beside the block as soon as a condition holds, even on a slow machine."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            if once():
                act()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def is_asked(simulator: Simulator, route: str) -> Callable[[], bool]:
    """Return a condition: whether the simulator has got a request of a route, even if it has not responded."""
    return lambda: route in routes_asked(simulator)


def ring() -> None:
    """Send the signal of a timer."""
    os.kill(os.getpid(), signal.SIGALRM)


@contextmanager
def signal_handler(handle: Callable[[], object]) -> Iterator[None]:
    """Handle the signal of a timer as Airflow handles the signal of a kill."""
    previous = signal.signal(signal.SIGALRM, lambda *_: handle())
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def signalled(handle: Callable[[], object], *, when: Callable[[], bool]) -> Iterator[None]:
    """Interrupt the block by a signal and its handler."""
    with signal_handler(handle), meanwhile(ring, once=when):
        yield


def killed(
    simulator: Simulator,
    operator: BaseOperator,
    *,
    route: str | None = None,
    is_answered: bool = True,
    notes: dict[str, Any] | None = None,
    once: Callable[[], bool] = lambda: True,
    **ti: int,
) -> tuple[BaseException, Log]:
    """Run a task and kill it as Airflow does: a signal handler calls ``on_kill`` and returns.

    Return the error of the kill, and the log. The kill comes just after the first request (of a route): after its
    response, or without ``is_answered`` during the request; and not before ``once`` is true.
    """
    is_over = threading.Event()

    def is_time() -> bool:
        asked = [request for request in simulator.requests if route in (None, request.route)]
        return bool(asked) and (not is_answered or asked[0].status is not None) and once()

    def kill() -> None:
        while not is_over.wait(0.005):
            if is_time():
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGALRM)
                return

    record(operator, log := Log())
    killer = threading.Thread(target=kill, daemon=True)
    with signal_handler(operator.on_kill):
        killer.start()
        try:
            with pytest.raises((TaskKilledError, AirflowException), match=r"^The task was killed") as raised:
                operator.execute(context(Run(notes={} if notes is None else notes), **ti))
        finally:
            is_over.set()
            killer.join()
    return raised.value, log


def the_one(simulator: Simulator) -> Backfill:
    (only,) = simulator.backfills()
    return only


def started(simulator: Simulator) -> list[Any]:
    """Return all work, oldest first."""
    return [*reversed(simulator.backfills()), *(job for job in reversed(simulator.jobs()) if job.type != "backfill")]


def starts(simulator: Simulator) -> int:
    return sum(request.route in START_ROUTES for request in simulator.requests)


def fail_starts(simulator: Simulator, kind: Any, **options: Any) -> None:
    """Make the next start of a sync and the next start of a backfill fail."""
    for route in START_ROUTES:
        simulator.fail(kind, route=route, **options)


class Killed(BaseException):
    """Stands in for SIGKILL: after it, the task only closes its sockets."""


def cut(patch: pytest.MonkeyPatch, owner: Any, name: str, *, call: int = 1, is_done: bool) -> None:
    """End the process in a call of a method, either before or after the call has its effect."""
    whole, calls = getattr(owner, name), []

    def method(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        result = whole(*arguments, **options) if is_done or len(calls) != call else None
        if len(calls) == call:
            raise Killed
        return result

    patch.setattr(owner, name, method)
