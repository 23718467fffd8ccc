"""Tries that are killed at a point of their start, and work that others start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from planasonix_provider.api import rate_limiter
from planasonix_provider.api.client import Client
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.api import middleware
from planasonix_provider.simulator.workspace import Workspace
from planasonix_provider.waiting import blocking_wait, lost_start_search
from tests.support.scenarios import CONNECTION, Killed, backfill, cut, started, sync
from tests.support.task_runs import Run, context, record

Make = Callable[..., BaseOperator]


def take(simulator: Simulator, seconds: float, *, fails: bool = False) -> None:
    """Plan the duration of all work."""
    how: dict[str, Any] = {"times": None, "queued_seconds": 0, "cancelling_seconds": 0.05}
    simulator.plan(CONNECTION, **how, running_seconds=seconds, outcome="failed" if fails else "succeeded")
    simulator.plan_backfill(CONNECTION, **how, jobs=1, job_seconds=seconds, failing_jobs=[0] if fails else [])


def id_of(run: Run) -> Any:
    return run.result.get("job_id") or run.result.get("backfill_id")


def check_only_work(run: Run, simulator: Simulator) -> Any:
    """Check that a task has succeeded with the only work that was started, and return the work."""
    assert run.error is None
    (one,) = started(simulator)
    assert id_of(run) == one.id
    return one


def old_work(run: Run, simulator: Simulator) -> Any:
    """Return the work of an earlier try; check that this one has succeeded with work of its own."""
    assert run.error is None
    old, new = started(simulator)
    assert id_of(run) == new.id
    return old


POINTS: dict[str, dict[str, Any]] = {
    "before the record": {"owner": AttemptStore, "name": "write", "is_done": False},
    "after the record": {"owner": AttemptStore, "name": "write", "is_done": True},
    # The first request lists the existing work.
    "after the POST left": {"owner": Client, "name": "_send_once", "call": 2, "is_done": True},
    "after the answer": {"owner": None, "name": "submit_job", "is_done": True},
    "before the id was recorded": {"owner": AttemptStore, "name": "write", "call": 2, "is_done": False},
    "after the id was recorded": {"owner": AttemptStore, "name": "write", "call": 2, "is_done": True},
    "after the XCom": {"owner": XComWriter, "name": "push", "is_done": True},
    "while it waited": {"owner": blocking_wait, "name": "poll", "is_done": True},
}


def die_at(make: Make, point: str, *, deferrable: bool = True, **ti: int) -> dict[str, Any]:
    """Run a try that ends at a point of its start, as after kill -9. Return its state store."""
    operator = make(deferrable=deferrable)
    record(operator, (run := Run(notes={})).log)
    with pytest.MonkeyPatch.context() as patch:
        how = {**POINTS[point]}
        cut(patch, how.pop("owner") or type(operator), **how)
        with pytest.raises(Killed):
            operator.execute(context(run, **ti))
    return run.notes


def start_theirs(simulator: Simulator) -> str:
    """Start a sync of the same connection for another task."""
    return simulator.workspace.start_sync(CONNECTION, SyncBody(metadata={"dag_id": "theirs", "task_id": "load"})).id


def start_theirs_of(make: Make, simulator: Simulator) -> None:
    if make is sync:
        start_theirs(simulator)
        return
    start_at, end_at = backfill().window()
    simulator.workspace.start_backfill(CONNECTION, BackfillBody(start_at=start_at, end_at=end_at))


def at_that_moment(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], times: int = 1) -> None:
    """Call a function just before the first start requests."""
    whole, done = PlanasonixSyncOperator.submit_job, []

    def start(self: PlanasonixSyncOperator, *arguments: Any) -> Any:
        if len(done) < times:
            done.append(act())
        return whole(self, *arguments)

    monkeypatch.setattr(PlanasonixSyncOperator, "submit_job", start)


def dates_are_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the ``Date`` of all responses ahead of ``created_at``."""
    ahead = timedelta(seconds=seconds)
    monkeypatch.setattr(
        middleware, "format_datetime", lambda time, usegmt: format_datetime(time + ahead, usegmt=usegmt)
    )
    # Forget the clock skew.
    monkeypatch.setattr(rate_limiter, "_rate_limiters", {})


def start_earlier_backfills(simulator: Simulator, connection_id: str, count: int) -> None:
    for _ in range(count):
        body = BackfillBody(start_at=datetime(2023, 1, 1, tzinfo=UTC), end_at=datetime(2023, 2, 1, tzinfo=UTC))
        simulator.workspace.start_backfill(connection_id, body)


def list_the_oldest_backfills_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reverse the simulator's lists of backfills: the reference does not say how they are sorted."""
    newest_first = Workspace.backfill_page

    def oldest_first(
        world: Workspace, wants: Any, *, limit: int, before: int | None = None
    ) -> tuple[list[Any], int | None]:
        found, _ = newest_first(world, wants, limit=10**6)
        begin = before or 0
        end = begin + limit
        return list(reversed(found))[begin:end], end if end < len(found) else None

    monkeypatch.setattr(Workspace, "backfill_page", oldest_first)


async def nothing(*_: object) -> list[Any]:
    return []


def show_nothing(monkeypatch: pytest.MonkeyPatch, *, looks: int) -> None:
    """Return empty lists to the first searches for a lost start, because lists may lag."""
    whole, seen = lost_start_search._candidates, []

    async def late(*arguments: Any) -> list[Any]:
        seen.append(arguments)
        return [] if len(seen) <= looks else await whole(*arguments)

    monkeypatch.setattr(lost_start_search, "_candidates", late)


def is_seen(simulator: Simulator) -> bool:
    return any(request.route == "get_job" and request.status for request in simulator.requests)
