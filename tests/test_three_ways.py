"""Three ways to wait behave identically: on a worker, deferred, and rescheduled.

One table lists the targets and their outcomes. In all ways, a user and the next task see the same. Time is
simulated, so an outage of an hour passes at once.

All sensors are tested, also those that search a list for their work. A sensor gets the ids of the work that the test
starts, and faults on the route of its target's first request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, BaseOperator

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.models import BackfillBody, Job
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, WaitTarget
from tests.support.example_calls import ROUTE_BY_PATH, without_parameter_names
from tests.support.example_tasks import SENSORS, VALUES, make_example, parameters_of
from tests.support.scenarios import routes_asked
from tests.support.task_runs import HAS_NOTES, Run, drive, no_variables
from tests.support.time_travel import simulated_time

CONNECTION = VALUES["connection_id"]
WINDOW = {name: VALUES[name] for name in ("start_at", "end_at")}
MINUTE = 60.0
#: The duration of the work, unless its outcome changes it.
TAKES = 30 * MINUTE

WAYS: dict[str, dict[str, Any]] = {
    "worker": {"deferrable": False},
    "deferred": {"deferrable": True},
    "rescheduled": {"mode": "reschedule"},
}
OUTCOMES = ("succeeded", "failed", "cancelled", "deadline", "404", "outage of 55 minutes", "outage without an end")
OUTAGE_POLLS = 56
#: The target of each operator. A sensor has its ``target()``, so new sensors are tested without a change.
OPERATORS: dict[type, WaitTarget] = {
    PlanasonixSyncOperator: JobTarget("job_1"),
    PlanasonixBackfillOperator: BackfillTarget("bf_1"),
}
SUBJECTS: tuple[type, ...] = (*OPERATORS, *SENSORS)


def target_of(subject: type) -> WaitTarget:
    """Return an example of a task's target."""
    target: WaitTarget = OPERATORS.get(subject) or make_example(subject).target()
    return target


def start(subject: type, simulator: Simulator) -> str:
    """Start the work that a sensor waits for."""
    if target_of(subject).work_type is Job:
        return simulator.workspace.start_sync(CONNECTION).id
    return simulator.workspace.start_backfill(CONNECTION, BackfillBody.model_validate(WINDOW)).id


def task(subject: type, way: dict[str, Any], work_id: str, timeout: float) -> Callable[[], BaseOperator]:
    """Return a function that makes the task."""
    interval = "poll_interval" if subject in OPERATORS else "poke_interval"
    ids = {name: work_id for name in ("job_id", "backfill_id") if name in parameters_of(subject)}
    return partial(make_example, subject, timeout=timeout, **{interval: MINUTE}, **ids, **way)


def prepare(subject: type, outcome: str, simulator: Simulator) -> None:
    """Plan the outcome of the work, and the faults of the route that the task polls."""
    fails = {"code": "source_unreachable", "message": "No route to the source."}
    simulator.plan(CONNECTION, running_seconds=TAKES, **({"outcome": "failed", **fails} if outcome == "failed" else {}))
    simulator.plan_backfill(
        CONNECTION,
        jobs=4,
        parallel=2,
        job_seconds=TAKES / 2,
        **({"failing_jobs": [1], **fails} if outcome == "failed" else {}),
    )
    request = target_of(subject).request
    route = ROUTE_BY_PATH[request.method, without_parameter_names(request.path)]
    if outcome == "404":
        simulator.fail("status", status=404, route=route, times=None, skip=1)
    if outcome.startswith("outage"):
        times = None if "end" in outcome else OUTAGE_POLLS
        simulator.fail("status", status=503, route=route, times=times, skip=6)


def cancel_after(simulator: Simulator, minutes: int) -> None:
    """Cancel the work after some minutes, at the same time in all ways, although their polls differ by seconds."""
    workspace, now = simulator.workspace, simulator.workspace.clock
    cancelled_at = now() + timedelta(minutes=minutes)

    def clock() -> datetime:
        if now() >= cancelled_at:
            workspace.clock = lambda: cancelled_at
            for job in simulator.jobs():
                workspace.cancel(job.id)
            workspace.clock = now
        return now()

    workspace.clock = clock


def count_faults(outcome: str, simulator: Simulator) -> int:
    status = 404 if outcome == "404" else 503
    return [request.status for request in simulator.requests].count(status)


def run(
    subject: type, outcome: str, way: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, Any, int]:
    """Run the task in one way.

    Return its run, then the states of all work and whether results were fetched, then the number of faults that it met.
    """
    simulator.reset()
    no_variables(monkeypatch)
    with simulated_time():
        prepare(subject, outcome, simulator)
        work_id = "" if subject in OPERATORS else start(subject, simulator)
        if outcome == "cancelled":
            cancel_after(simulator, 10)
        timeout = 10 * MINUTE if outcome == "deadline" else 7 * 24 * 60 * MINUTE
        result = drive(task(subject, WAYS[way], work_id, timeout))
    states = [work.status for work in (*simulator.jobs(), *simulator.backfills())]
    return result, (states, "get_job_results" in routes_asked(simulator)), count_faults(outcome, simulator)


def visible_outcome(run: Run) -> dict[str, Any]:
    """Return everything that a user and the next task see of a run, without ids and times.

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


def expected_error(subject: type, outcome: str) -> type[BaseException] | None:
    if subject in OPERATORS:
        return EXPECTED[outcome]["operator"]
    is_allowed = outcome in make_example(subject).allowed_states
    return None if is_allowed else EXPECTED[outcome]["sensor"]


#: The content of the messages of operators' errors.
MESSAGES: dict[type, dict[str, str]] = {
    PlanasonixSyncOperator: {
        "failed": r"^Job failed: source_unreachable: No route to the source \(job \w+\)\. See \S+/jobs/\w+$",
        "cancelled": r"^Job \w+ was cancelled",
        "404": r"answered 404",
    },
    PlanasonixBackfillOperator: {"404": r"answered 404"},
}


@pytest.mark.slow("runs each task in three ways")
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.__name__)
def test_all_ways_have_the_same_outcome(
    subject: type, outcome: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "operator" if subject in OPERATORS else "sensor"
    ways = [way for way in WAYS if kind == "sensor" or way != "rescheduled"]
    if outcome == "outage without an end" and not HAS_NOTES:
        # Without a state store, a rescheduled sensor does not know the start of an outage: its timeout ends the wait.
        ways = [way for way in ways if way != "rescheduled"]
    runs = {way: run(subject, outcome, way, simulator, monkeypatch) for way in ways}
    expected = expected_error(subject, outcome)
    for way, (result, (_, has_fetched_results), faults) in runs.items():
        assert type(result.error) is (expected or type(None)), (way, result.error, result.log.lines)
        assert (result.result is None) == (expected is not None), way
        assert re.search(MESSAGES.get(subject, {}).get(outcome, ""), str(result.error)), way
        assert has_fetched_results == (kind == "operator" and expected is None), way
        assert (faults > 0) == (outcome == "404" or outcome.startswith("outage")), (way, "planned faults", faults)
        assert faults == OUTAGE_POLLS or outcome != "outage of 55 minutes", (way, "planned faults", faults)
    first, *others = ways
    for other in others:
        assert visible_outcome(runs[other][0]) == visible_outcome(runs[first][0]), (first, other)
        assert runs[other][1] == runs[first][1], (first, other)
