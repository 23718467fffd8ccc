"""Three ways to wait behave identically: on a worker, deferred, and rescheduled.

One table has what is waited for and its outcomes. In all ways, a person and the next task see the same. Time is
simulated, so an outage of an hour passes at once.
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
from tests.support.scenarios import routes_asked
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
    """Start the work that a sensor waits for."""
    if subject == "job sensor":
        return simulator.workspace.start_sync(CONNECTION).id
    return simulator.workspace.start_backfill(CONNECTION, BackfillBody.model_validate(WINDOW)).id


def task(subject: str, way: dict[str, Any], work_id: str, timeout: float) -> Callable[[], BaseOperator]:
    """Return a function that makes the task."""
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
    """Plan the outcome of the work, and the faults of the API."""
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
    """Let a person cancel the work after some minutes."""
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
    """Run the task in one way; return its run, the states of all work, and whether results were fetched."""
    simulator.reset()
    no_variables(monkeypatch)
    with travelling(monkeypatch):
        prepare(outcome, simulator)
        work_id = start(subject, simulator) if subject.endswith("sensor") else ""
        if outcome == "cancelled":
            cancel_after(simulator, 10)
        timeout = 10 * MINUTE if outcome == "deadline" else 7 * 24 * 60 * MINUTE
        result = drive(task(subject, WAYS[way], work_id, timeout))
    states = [work.status for work in (*simulator.jobs(), *simulator.backfills())]
    return result, (states, "get_job_results" in routes_asked(simulator))


def visible_outcome(run: Run) -> dict[str, Any]:
    """Return all that a person and the next task see of a run, without ids and times.

    This leaves out the URL of the button: a trigger cannot set it while a backfill makes its first job.
    """
    visible = {"result": run.result, "error": type(run.error).__name__, "message": str(run.error)}
    text = re.sub(r"\d\d:\d\d:\d\d UTC", "then", json.dumps(visible, sort_keys=True))
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
#: What the message of an operator's error contains.
MESSAGES = {
    ("sync", "failed"): r"^Job \w+ failed: source_unreachable: No route to the source\. See \S+/jobs/\w+$",
    ("sync", "cancelled"): r"^Job \w+ was cancelled",
    ("sync", "404"): r"answered 404",
    ("backfill", "404"): r"answered 404",
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
    runs = {way: run(subject, outcome, way, simulator, monkeypatch) for way in ways}
    expected = EXPECTED[outcome][kind]
    for way, (result, (_, has_fetched_results)) in runs.items():
        assert type(result.error) is (expected or type(None)), (way, result.error, result.log.lines)
        assert (result.result is None) == (expected is not None), way
        assert re.search(MESSAGES.get((subject, outcome), ""), str(result.error)), way
        assert has_fetched_results == (kind == "operator" and expected is None), way
    first, *others = ways
    for other in others:
        assert visible_outcome(runs[other][0]) == visible_outcome(runs[first][0]), (first, other)
        assert runs[other][1] == runs[first][1], (first, other)
