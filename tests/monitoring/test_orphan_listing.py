from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.monitoring.orphan_listing import list_orphans
from tests.support.airflow_tasks import key_of
from tests.support.planted_tasks import PlantedTasks
from tests.support.scenarios import CONNECTION, routes_asked


def ids(conn_id: str | None = None, **options: Any) -> list[str | None]:
    return [orphan.id for orphan in list_orphans(conn_id, **options).orphans]


@pytest.mark.parametrize("kind", ["job", "backfill"])
@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed"])
def test_lists_work_whose_task_is_over(planted: PlantedTasks, state: str, kind: Any) -> None:
    record = planted.add(state, kind=kind)
    (orphan,) = list_orphans().orphans
    assert (orphan.kind, orphan.id, orphan.status) == (kind, record.id, "running")
    assert (orphan.conn_id, orphan.connection_id) == ("planasonix_default", CONNECTION)
    assert orphan.stored.record.task_key == record.task_key
    assert orphan.task_state == state
    assert orphan.task_ended_at is not None
    assert datetime.now(UTC) - orphan.task_ended_at > timedelta(minutes=29)
    assert planted.tasks.records() == 1


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred", "up_for_retry"])
def test_lists_no_work_whose_task_runs_or_will(planted: PlantedTasks, state: str | None) -> None:
    planted.add(state)
    assert ids() == []
    assert routes_asked(planted.simulator) == []
    assert planted.tasks.records() == 1


def test_lists_work_whose_task_is_deleted(planted: PlantedTasks) -> None:
    record = planted.add("deferred")
    planted.tasks.delete_task(record.task_key)
    (orphan,) = list_orphans().orphans
    assert (orphan.id, orphan.task_state, orphan.task_ended_at) == (record.id, None, None)


@pytest.mark.parametrize("fields", [{"is_own": False}, {"cancel_on_kill": False}])
def test_lists_no_work_that_must_run_on(planted: PlantedTasks, fields: dict[str, bool]) -> None:
    planted.add(**fields)
    assert ids() == []
    assert routes_asked(planted.simulator) == []
    assert planted.tasks.records() == 0


def test_lists_no_work_that_another_task_waits_for(planted: PlantedTasks) -> None:
    record = planted.add()
    attached = planted.add("deferred", key=key_of("attached"), id=record.id, is_own=False)
    assert ids() == []
    planted.tasks.set_state(attached.task_key, "success")
    assert ids() == [record.id]


def test_can_be_limited_by_age(planted: PlantedTasks) -> None:
    record = planted.add()
    assert ids(older_than=timedelta(minutes=31)) == []
    assert ids(older_than=timedelta(minutes=29)) == [record.id]


def test_can_be_limited_to_a_connection(planted: PlantedTasks) -> None:
    record = planted.add()
    assert ids("planasonix_other") == []
    assert ids("planasonix_default") == [record.id]
