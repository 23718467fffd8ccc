from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.utils.session import create_session
from sqlalchemy import update

from planasonix_provider.api.models import Job
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.waiting_tasks import read_waiting_tasks, wait_row
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.triggers.planasonix import (
    PlanasonixBackfillTrigger,
    PlanasonixJobTrigger,
    PlanasonixSyncTrigger,
)
from planasonix_provider.waiting.targets import JobTarget
from tests.support.task_rows import TaskRows

DEADLINE = datetime(2030, 1, 1, 12, tzinfo=UTC)


class OwnTrigger(PlanasonixJobTrigger):
    """A trigger of a user."""


def test_a_waiting_task(task_rows: TaskRows, simulator: Simulator) -> None:
    trigger = PlanasonixWaitTrigger(JobTarget("job_1"), "planasonix_eu", deadline=DEADLINE, status="queued")
    run_id = task_rows.add(state="deferred", trigger=trigger)
    (waiting,) = read_waiting_tasks().items
    row = wait_row(waiting, PlanasonixHook().settings)
    since = row.pop("since")  # type: ignore[misc]
    assert since.endswith("Z")
    assert row == {
        "task": waiting.task,
        "deadline": "2030-01-01T12:00:00Z",
        "target": "job job_1",
        "kind": "job",
        "id": "job_1",
        "conn_id": "planasonix_eu",
        "connection_id": None,
        "status": "queued",
        "is_triggerer_alive": None,
        "url": f"{simulator.url}/jobs/job_1",
    }
    assert (waiting.task["run_id"], waiting.task["state"]) == (run_id, "deferred")


def test_a_known_job_shows_its_state_and_connection(task_rows: TaskRows) -> None:
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1", status="queued"))
    (waiting,) = read_waiting_tasks().items
    known = {("planasonix_default", "job_1"): Job(id="job_1", status="running", connection_id="conn_1")}
    row = wait_row(waiting, None, lambda *key: known.get(key))
    assert (row["status"], row["connection_id"], row["url"]) == ("running", "conn_1", None)


@pytest.mark.parametrize(
    ("trigger", "kind", "target", "connection_id"),
    [
        (PlanasonixJobTrigger("job_1"), "job", "job job_1", None),
        (PlanasonixBackfillTrigger("bf_1"), "backfill", "backfill bf_1", None),
        (PlanasonixSyncTrigger("conn_1", since="2025-01-01"), "sync", None, "conn_1"),
    ],
)
def test_all_triggers_that_users_type(
    task_rows: TaskRows, trigger: Any, kind: str, target: str | None, connection_id: str | None
) -> None:
    task_rows.add(state="deferred", trigger=trigger)
    (waiting,) = read_waiting_tasks().items
    row = wait_row(waiting)
    assert (row["kind"], row["connection_id"]) == (kind, connection_id)
    assert row["target"] == (target or trigger.target.name)
    assert row["id"] == (None if connection_id else trigger.target.id)


def test_other_tasks_are_left_out(task_rows: TaskRows) -> None:
    task_rows.add(state="running", trigger=PlanasonixJobTrigger("job_1"))
    task_rows.add(state="deferred", trigger=OwnTrigger("job_2"))
    task_rows.add(state="deferred")
    assert read_waiting_tasks().items == []


def test_those_that_wait_longest_are_listed(task_rows: TaskRows) -> None:
    for number in range(5):
        task_rows.add(task_id=f"load_{number}", state="deferred", trigger=PlanasonixJobTrigger(f"job_{number}"))
    waiting = read_waiting_tasks(3)
    assert [item.task["task_id"] for item in waiting.items] == ["load_0", "load_1", "load_2"]
    assert waiting.has_more
    assert not read_waiting_tasks(5).has_more


def test_an_unreadable_trigger_is_listed_without_its_target(task_rows: TaskRows) -> None:
    from airflow.models.trigger import Trigger

    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1"))
    with create_session() as session:
        session.execute(update(Trigger.__table__).values(kwargs="encrypted with another key"))
    (waiting,) = read_waiting_tasks().items
    assert wait_row(waiting)["target"] == "unknown"


def test_an_unreadable_deadline_hides_no_other_task(task_rows: TaskRows) -> None:
    trigger = PlanasonixJobTrigger("job_1")
    trigger.deadline = "soon"  # type: ignore[assignment]
    task_rows.add(state="deferred", trigger=trigger)
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_2", deadline=DEADLINE))
    assert [item.deadline for item in read_waiting_tasks().items] == [None, DEADLINE]


@pytest.mark.parametrize("is_alive", [True, False])
def test_whether_the_triggerer_is_alive(task_rows: TaskRows, is_alive: bool) -> None:
    triggerer_id = task_rows.add_triggerer(datetime.now(UTC) if is_alive else datetime(2025, 1, 1, tzinfo=UTC))
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1"), triggerer_id=triggerer_id)
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_2"), triggerer_id=triggerer_id + 1)
    assert [item.is_triggerer_alive for item in read_waiting_tasks().items] == [is_alive, False]
