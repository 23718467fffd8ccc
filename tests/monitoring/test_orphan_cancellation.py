from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider import metrics
from planasonix_provider.monitoring.orphan_cancellation import cancel_orphans
from planasonix_provider.monitoring.orphan_listing import list_orphans
from tests.support.attempts import take
from tests.support.planted_tasks import PlantedTasks, start
from tests.support.scenarios import CONNECTION, routes_asked
from tests.support.statsd import StatsdServer


@pytest.mark.parametrize("kind", ["job", "backfill"])
def test_ends_the_work_and_its_record(planted: PlantedTasks, kind: Any) -> None:
    planted.add(kind=kind)
    (result,) = cancel_orphans(list_orphans().orphans)
    assert result.outcome == "cancelled"
    assert result.orphan.status in ("cancelling", "cancelled")
    assert routes_asked(planted.simulator).count("cancel_job") == 1
    planted.simulator.workspace.advance()
    take(planted.simulator, 0)
    assert list_orphans().orphans == []


def test_is_counted_because_no_task_counts_it(planted: PlantedTasks, statsd: StatsdServer) -> None:
    planted.add_many(2)
    cancel_orphans(list_orphans().orphans)
    tags = {"conn_id": "planasonix_default", "connection_id": CONNECTION, "kind": "job", "source": "operator"}
    assert statsd.tags(metrics.JOB_CANCELLED) == [tags, tags]


@pytest.mark.parametrize("state", [None, "running", "deferred", "up_for_retry", "queued"])
def test_spares_a_task_that_runs_again(planted: PlantedTasks, state: str | None) -> None:
    record = planted.add()
    listed = list_orphans().orphans
    planted.tasks.set_state(record.task_key, state)
    (result,) = cancel_orphans(listed)
    assert result.outcome == "kept"
    assert "cancel_job" not in routes_asked(planted.simulator)


def test_spares_the_job_of_a_later_try(planted: PlantedTasks) -> None:
    record = planted.add()
    listed = list_orphans().orphans
    planted.tasks.store(record.model_copy(update={"id": start(planted.simulator)}))
    (result,) = cancel_orphans(listed)
    assert result.outcome == "kept"
    assert "because its task runs again, or its record has changed." in result.message


def test_does_not_report_ended_work_as_cancelled(planted: PlantedTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.add()
    listed = list_orphans().orphans
    monkeypatch.setattr(planted.simulator.workspace, "clock", lambda: datetime.now(UTC) + timedelta(days=1))
    (result,) = cancel_orphans(listed)
    assert (result.outcome, result.orphan.status) == ("ended", "succeeded")
    assert "was not cancelled, because it had ended: it is succeeded." in result.message


def test_spares_work_that_a_lost_start_may_have_created(planted: PlantedTasks) -> None:
    planted.add(id=None)
    start(planted.simulator)
    (result,) = cancel_orphans(list_orphans().orphans)
    assert result.outcome == "unknown"
    assert [job.status for job in planted.simulator.workspace.jobs()] == ["running"]


def test_sends_one_request_for_each_job(planted: PlantedTasks) -> None:
    planted.add_many(60)
    results = cancel_orphans(list_orphans().orphans)
    assert Counter(result.outcome for result in results) == {"cancelled": 60}
    assert routes_asked(planted.simulator).count("cancel_job") == 60


def test_reports_a_failed_cancel(planted: PlantedTasks) -> None:
    planted.add_many(2)
    listed = list_orphans().orphans
    planted.simulator.fail("status", status=403, route="cancel_job", times=None)
    results = cancel_orphans(listed, max_seconds=0)
    assert [result.outcome for result in results] == ["failed", "failed"]
    assert "403" in str(results[0].error)


def test_ends_in_an_outage(planted: PlantedTasks) -> None:
    planted.add_many(20)
    listed = list_orphans().orphans
    planted.simulator.fail("reset", route="cancel_job", times=None)
    results = cancel_orphans(listed, max_seconds=0)
    assert {result.outcome for result in results} == {"failed"}
    assert routes_asked(planted.simulator).count("cancel_job") <= 5
