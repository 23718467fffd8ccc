"""The promise that there are three ways to wait and one meaning, as one table.

Each row is something to wait for, each column what becomes of it; along the ways, everything that a person or the next
task could see is the same. Time travels: an outage of an hour passes at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, BaseOperator

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixBackfillSensor, PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from tests.support.task_runs import HAS_NOTES, Run, drive, no_variables
from tests.support.time_travel import travelling

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
MINUTE = 60.0
#: How long the work takes, unless something happens to it.
TAKES = 30 * MINUTE

WAYS: dict[str, dict[str, Any]] = {
    "worker": {"deferrable": False},
    "deferred": {"deferrable": True},
    "rescheduled": {"mode": "reschedule"},
}
OUTCOMES = ("succeeded", "failed", "cancelled", "deadline", "404", "outage of 55 minutes", "outage without an end")
SUBJECTS = ("sync", "backfill", "job sensor", "backfill sensor")


def start(subject: str, simulator: Simulator) -> str:
    """Start what a sensor waits for, as somebody else would."""
    if subject == "job sensor":
        return simulator.workspace.start_sync(CONNECTION).id
    return simulator.workspace.start_backfill(CONNECTION, BackfillBody.model_validate(WINDOW)).id


def task(subject: str, way: dict[str, Any], work_id: str, timeout: float) -> Callable[[], BaseOperator]:
    """Say how to make the task that waits."""
    starts = {"task_id": "load", "connection_id": CONNECTION, "poll_interval": MINUTE, "timeout": timeout, **way}
    looks = {"task_id": "wait", "poke_interval": MINUTE, "timeout": timeout, **way}
    makers: dict[str, Callable[[], BaseOperator]] = {
        "sync": lambda: PlanasonixSyncOperator(**starts),
        "backfill": lambda: PlanasonixBackfillOperator(**starts, **WINDOW),
        "job sensor": lambda: PlanasonixJobSensor(job_id=work_id, **looks),
        "backfill sensor": lambda: PlanasonixBackfillSensor(backfill_id=work_id, **looks),
    }
    return makers[subject]


def prepare(outcome: str, simulator: Simulator) -> None:
    """Let the work, or the API, do what the column says."""
    fails = {"code": "source_unreachable", "message": "No route to the source."}
    simulator.plan(CONNECTION, running_seconds=TAKES, **({"outcome": "failed", **fails} if outcome == "failed" else {}))
    simulator.plan_backfill(
        CONNECTION,
        jobs=4,
        parallel=2,
        job_seconds=TAKES / 2,
        **({"failing_jobs": [1], **fails} if outcome == "failed" else {}),
    )
    for route in ("get_job", "get_backfill"):
        if outcome == "404":
            simulator.fail("status", status=404, route=route, times=None, skip=1)
        if outcome.startswith("outage"):
            simulator.fail("status", status=503, route=route, times=None if "end" in outcome else 56, skip=5)


def cancel_after(simulator: Simulator, minutes: int) -> None:
    """Let somebody else cancel the work once it was looked at for some minutes."""
    began = simulator.workspace.clock()
    now = simulator.workspace.clock

    def clock() -> Any:
        moment = now()
        if (moment - began).total_seconds() >= minutes * MINUTE:
            simulator.workspace.clock = now
            for job in simulator.jobs():
                simulator.workspace.cancel(job.id)
        return moment

    simulator.workspace.clock = clock


def run(subject: str, outcome: str, way: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Any]:
    """Run one cell of the table in one way; give what came of it, and the states that the work is left in."""
    simulator.reset()
    no_variables(monkeypatch)
    with travelling(monkeypatch):
        prepare(outcome, simulator)
        work_id = start(subject, simulator) if subject.endswith("sensor") else ""
        if outcome == "cancelled":
            cancel_after(simulator, 10)
        timeout = 10 * MINUTE if outcome == "deadline" else 7 * 24 * 60 * MINUTE
        came = drive(task(subject, WAYS[way], work_id, timeout))
        left = [job.status for job in simulator.jobs()], [backfill.status for backfill in simulator.backfills()]
    return came, left


def seen(came: Run) -> dict[str, Any]:
    """All that the next task, and a person, learn from the task, without the ids and the time of day.

    Where the button leads is left out: a trigger cannot write it while a backfill makes its first job.
    """
    told = {"result": came.result, "error": type(came.error).__name__, "message": str(came.error)}
    text = re.sub(r"\d\d:\d\d:\d\d UTC", "then", json.dumps(told, sort_keys=True))
    ids: dict[str, str] = {}
    named = re.sub(
        r"(?:job_|bf_|req_|sha256:)[0-9a-f]{8,}", lambda found: ids.setdefault(found[0], f"id {len(ids)}"), text
    )
    return dict(json.loads(named))


EXPECTED: dict[str, dict[str, type[BaseException] | None]] = {
    "succeeded": {"operator": None, "sensor": None},
    "failed": {"operator": PlanasonixJobFailedError, "sensor": AirflowFailException},
    "cancelled": {"operator": PlanasonixJobCancelledError, "sensor": AirflowFailException},
    "deadline": {"operator": PlanasonixTimeoutError, "sensor": AirflowSensorTimeout},
    "404": {"operator": AirflowFailException, "sensor": AirflowFailException},
    "outage of 55 minutes": {"operator": None, "sensor": None},
    "outage without an end": {"operator": PlanasonixOutageError, "sensor": PlanasonixOutageError},
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_means_the_same_in_every_way(
    subject: str, outcome: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "sensor" if subject.endswith("sensor") else "operator"
    ways = [way for way in WAYS if kind == "sensor" or way != "rescheduled"]
    if outcome == "outage without an end" and not HAS_NOTES:
        # Nothing remembers since when a rescheduled sensor has had no answer; there its timeout ends the wait.
        ways = [way for way in ways if way != "rescheduled"]
    came = {way: run(subject, outcome, way, simulator, monkeypatch) for way in ways}
    expected = EXPECTED[outcome][kind]
    for way, (one, _) in came.items():
        assert type(one.error) is (expected or type(None)), (way, one.error, one.log.lines)
        assert (one.result is None) == (expected is not None), way
    first, *others = ways
    for other in others:
        assert seen(came[other][0]) == seen(came[first][0]), (first, other)
        assert came[other][1] == came[first][1], (first, other)
