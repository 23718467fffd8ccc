from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider import metrics
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.monitoring import orphans
from planasonix_provider.monitoring.orphans import cancel_orphans, list_orphans
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import ATTEMPT_KEY, AttemptRecord, TaskKey
from planasonix_provider.waiting.lost_start_search import START_WINDOW
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.attempts import take
from tests.support.scenarios import CONNECTION, routes_asked
from tests.support.statsd import StatsdServer

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _long_jobs(simulator: Simulator) -> None:
    take(simulator, 3600)
    simulator.workspace.configure(conflict="allowed")


def start(simulator: Simulator, **metadata: Any) -> str:
    return simulator.workspace.start_sync(CONNECTION, SyncBody(metadata=metadata or None)).id


def start_backfill(simulator: Simulator) -> str:
    body = BackfillBody(start_at=datetime(2025, 1, 1, tzinfo=UTC), end_at=datetime(2025, 2, 1, tzinfo=UTC))
    return simulator.workspace.start_backfill(CONNECTION, body).id


class Planted:
    """Tasks with jobs that run."""

    def __init__(self, tasks: AirflowTasks, simulator: Simulator) -> None:
        self.tasks = tasks
        self.simulator = simulator

    def add(self, state: str | None = "failed", *, key: TaskKey | None = None, **fields: Any) -> AttemptRecord:
        """Add a task, a job that it has started an hour ago, and the record."""
        one = self.tasks.add(key or key_of(), state, datetime.now(UTC) - timedelta(minutes=30))
        if "id" not in fields:
            fields["id"] = start_backfill(self.simulator) if fields.get("kind") == "backfill" else start(self.simulator)
        record = record_of(one, **fields)
        self.tasks.store(record)
        return record

    def add_many(self, count: int, state: str = "failed", **fields: Any) -> list[AttemptRecord]:
        return [self.add(state, key=key_of(map_index=index), **fields) for index in range(count)]


@pytest.fixture
def planted(airflow_tasks: AirflowTasks, simulator: Simulator) -> Planted:
    return Planted(airflow_tasks, simulator)


def ids(conn_id: str | None = None, **options: Any) -> list[str | None]:
    return [orphan.id for orphan in list_orphans(conn_id, **options).orphans]


class TestAListing:
    @pytest.mark.parametrize("kind", ["job", "backfill"])
    @pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed"])
    def test_has_work_whose_task_is_over(self, planted: Planted, state: str, kind: Any) -> None:
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
    def test_has_no_work_whose_task_runs_or_will(self, planted: Planted, state: str | None) -> None:
        planted.add(state)
        assert ids() == []
        assert routes_asked(planted.simulator) == []
        assert planted.tasks.records() == 1

    def test_has_work_whose_task_is_deleted(self, planted: Planted) -> None:
        record = planted.add("deferred")
        planted.tasks.delete_task(record.task_key)
        (orphan,) = list_orphans().orphans
        assert (orphan.id, orphan.task_state, orphan.task_ended_at) == (record.id, None, None)

    @pytest.mark.parametrize("fields", [{"is_own": False}, {"cancel_on_kill": False}])
    def test_has_no_work_that_must_run_on(self, planted: Planted, fields: dict[str, bool]) -> None:
        planted.add(**fields)
        assert ids() == []
        assert routes_asked(planted.simulator) == []
        assert planted.tasks.records() == 0

    def test_has_no_work_that_another_task_waits_for(self, planted: Planted) -> None:
        record = planted.add()
        attached = planted.add("deferred", key=key_of("attached"), id=record.id, is_own=False)
        assert ids() == []
        planted.tasks.set_state(attached.task_key, "success")
        assert ids() == [record.id]

    @pytest.mark.parametrize("kind", ["job", "backfill"])
    @pytest.mark.parametrize("count", [1, 7])
    def test_deletes_the_records_of_work_that_is_over(self, planted: Planted, count: int, kind: Any) -> None:
        take(planted.simulator, 0)
        planted.add_many(count, kind=kind)
        assert ids() == []
        assert planted.tasks.records() == 0

    def test_has_no_job_that_is_being_cancelled(self, planted: Planted) -> None:
        planted.simulator.plan(CONNECTION, times=None, running_seconds=60, cancelling_seconds=60)
        record = planted.add()
        planted.simulator.workspace.cancel(str(record.id))
        assert ids() == []
        assert planted.tasks.records() == 1

    def test_can_be_limited_by_age(self, planted: Planted) -> None:
        record = planted.add()
        assert ids(older_than=timedelta(minutes=31)) == []
        assert ids(older_than=timedelta(minutes=29)) == [record.id]

    def test_forgets_missing_work_after_a_day(self, planted: Planted) -> None:
        planted.add(id="job_gone")
        assert ids() == []
        assert planted.tasks.records() == 1
        planted.add(id="job_gone", key=key_of(map_index=1), first_sent_at=datetime.now(UTC) - DAY)
        assert ids() == []
        assert planted.tasks.records() == 1

    @pytest.mark.slow("handles hundreds of jobs")
    def test_asks_for_a_hundred_jobs_at_once(self, planted: Planted) -> None:
        records = planted.add_many(230)
        for record in records[:30]:
            planted.simulator.workspace.cancel(str(record.id))
        found = ids()
        assert Counter(found) == Counter(record.id for record in records[30:])
        assert Counter(routes_asked(planted.simulator))["get_job"] <= 30
        assert Counter(routes_asked(planted.simulator))["list_jobs"] <= 10

    def test_asks_for_no_more_than_it_may(self, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(orphans, "MAX_SINGLE_REQUESTS", 3)
        monkeypatch.setattr(orphans, "MAX_SEARCHES", 1)
        for index in range(5):
            planted.add(kind="backfill", key=key_of(map_index=index))
            planted.add(id=None, key=key_of(map_index=10 + index))
        listing = list_orphans()
        assert Counter(orphan.kind for orphan in listing.orphans) == {"backfill": 3, "job": 1}
        assert listing.problems == [
            "There are more ended tasks of Airflow connection 'planasonix_default' to look at: 6. List again for them."
        ]


class TestConnections:
    def test_do_not_hide_each_other(self, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = planted.simulator.airflow_connection() | {"password": "plnx_wrong"}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_WRONG", json.dumps(wrong))
        right = planted.add()
        planted.add(planasonix_conn_id="planasonix_wrong", key=key_of(map_index=1))
        planted.add(planasonix_conn_id="planasonix_missing", key=key_of(map_index=2))
        listing = list_orphans(max_seconds=9)
        assert [orphan.id for orphan in listing.orphans] == [right.id]
        first, second = sorted(listing.problems)
        assert "'planasonix_missing' cannot be found. There is no Airflow connection" in first
        assert "'planasonix_wrong' cannot be found. GET" in second
        assert "401" in second
        assert planted.tasks.records() == 3

    def test_can_be_chosen(self, planted: Planted) -> None:
        record = planted.add()
        assert ids("planasonix_other") == []
        assert ids("planasonix_default") == [record.id]

    def test_show_what_they_can_although_one_job_cannot_be_read(self, planted: Planted) -> None:
        records = planted.add_many(3)
        planted.simulator.fail("status", status=403, route="get_job")
        listing = list_orphans()
        assert len({orphan.id for orphan in listing.orphans} & {record.id for record in records}) == 2
        (problem,) = listing.problems
        assert "Some orphaned jobs of Airflow connection 'planasonix_default' cannot be found. GET" in problem
        assert "403" in problem

    def test_show_what_they_have_found_in_time(self, planted: Planted) -> None:
        planted.add_many(3)
        planted.simulator.fail("hang", seconds=60, route="get_job")
        listing = list_orphans(max_seconds=2)
        assert len(listing.orphans) == 2
        assert listing.problems == [
            "Some orphaned jobs of Airflow connection 'planasonix_default' cannot be found. Planasonix does not answer "
            "in time."
        ]

    def test_survive_an_error_of_the_database_for_another(
        self, planted: Planted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_OTHER", json.dumps(planted.simulator.airflow_connection()))
        planted.add()
        planted.add(planasonix_conn_id="planasonix_other", key=key_of(map_index=1))
        listed = list_orphans().orphans
        whole = orphans.still_over

        def fails_for_one(some: Any) -> Any:
            if some[0].record.planasonix_conn_id == "planasonix_other":
                raise OSError("away")
            return whole(some)

        monkeypatch.setattr(orphans, "still_over", fails_for_one)
        results = cancel_orphans(listed)
        assert Counter((result.outcome, result.error) for result in results) == {
            ("cancelled", None): 1,
            ("failed", "OSError, see the log."): 1,
        }

    def test_that_hang_take_only_their_time(self, planted: Planted) -> None:
        planted.add()
        planted.simulator.fail("hang", seconds=60, times=None)
        assert list_orphans(max_seconds=0.3).problems == [
            "The orphaned jobs of Airflow connection 'planasonix_default' cannot be found. Planasonix does not answer "
            "in time."
        ]


class TestALostStart:
    def test_is_found_by_its_metadata(self, planted: Planted) -> None:
        planted.simulator.workspace.configure(show_metadata=True)
        record = planted.add(id=None)
        mine = start(planted.simulator, **{ATTEMPT_KEY: record.nonce})
        start(planted.simulator, **{ATTEMPT_KEY: "other"})
        assert ids() == [mine]

    @pytest.mark.parametrize("others", [0, 1])
    def test_is_unknown_without_metadata(self, planted: Planted, others: int) -> None:
        planted.add(id=None)
        for _ in range(others):
            start(planted.simulator)
        (orphan,) = list_orphans().orphans
        assert (orphan.id, orphan.status) == (None, "unknown")
        assert orphan.manual_command == (
            f"`python -m planasonix_provider jobs --connection-id {CONNECTION} --conn-id planasonix_default`"
        )
        (result,) = cancel_orphans([orphan])
        assert result.outcome == "unknown"
        assert {job.status for job in planted.simulator.workspace.jobs()} <= {"running"}

    def test_is_forgotten_when_it_can_have_no_effect_any_more(self, planted: Planted) -> None:
        planted.add(id=None, first_sent_at=datetime.now(UTC) - START_WINDOW)
        assert ids() == []
        assert planted.tasks.records() == 0

    def test_is_forgotten_when_its_work_is_over(self, planted: Planted) -> None:
        planted.simulator.workspace.configure(show_metadata=True)
        take(planted.simulator, 0)
        record = planted.add(id=None)
        start(planted.simulator, **{ATTEMPT_KEY: record.nonce})
        assert ids() == []
        assert planted.tasks.records() == 0


class TestACancel:
    @pytest.mark.parametrize("kind", ["job", "backfill"])
    def test_ends_the_work_and_its_record(self, planted: Planted, kind: Any) -> None:
        planted.add(kind=kind)
        (result,) = cancel_orphans(list_orphans().orphans)
        assert result.outcome == "cancelled"
        assert result.orphan.status in ("cancelling", "cancelled")
        assert routes_asked(planted.simulator).count("cancel_job") == 1
        planted.simulator.workspace.advance()
        take(planted.simulator, 0)
        assert ids() == []

    def test_is_counted_because_no_task_counts_it(self, planted: Planted, statsd: StatsdServer) -> None:
        planted.add_many(2)
        cancel_orphans(list_orphans().orphans)
        tags = {"conn_id": "planasonix_default", "connection_id": CONNECTION, "kind": "job", "source": "operator"}
        assert statsd.tags(metrics.JOB_CANCELLED) == [tags, tags]

    @pytest.mark.parametrize("state", [None, "running", "deferred", "up_for_retry", "queued"])
    def test_spares_a_task_that_runs_again(self, planted: Planted, state: str | None) -> None:
        record = planted.add()
        listed = list_orphans().orphans
        planted.tasks.set_state(record.task_key, state)
        (result,) = cancel_orphans(listed)
        assert result.outcome == "kept"
        assert "cancel_job" not in routes_asked(planted.simulator)

    def test_spares_the_job_of_a_later_try(self, planted: Planted) -> None:
        record = planted.add()
        listed = list_orphans().orphans
        planted.tasks.store(record.model_copy(update={"id": start(planted.simulator)}))
        (result,) = cancel_orphans(listed)
        assert result.outcome == "kept"
        assert "because its task runs again, or its record has changed." in result.message

    def test_does_not_claim_to_have_cancelled_what_had_ended(
        self, planted: Planted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planted.add()
        listed = list_orphans().orphans
        monkeypatch.setattr(planted.simulator.workspace, "clock", lambda: datetime.now(UTC) + DAY)
        (result,) = cancel_orphans(listed)
        assert (result.outcome, result.orphan.status) == ("ended", "succeeded")
        assert "was not cancelled, because it had ended: it is succeeded." in result.message

    def test_sends_one_request_for_each_job(self, planted: Planted) -> None:
        planted.add_many(60)
        results = cancel_orphans(list_orphans().orphans)
        assert Counter(result.outcome for result in results) == {"cancelled": 60}
        assert routes_asked(planted.simulator).count("cancel_job") == 60

    def test_says_what_could_not_be_cancelled(self, planted: Planted) -> None:
        planted.add_many(2)
        listed = list_orphans().orphans
        planted.simulator.fail("status", status=403, route="cancel_job", times=None)
        results = cancel_orphans(listed, max_seconds=0)
        assert [result.outcome for result in results] == ["failed", "failed"]
        assert "403" in str(results[0].error)

    def test_gives_up_in_an_outage(self, planted: Planted) -> None:
        planted.add_many(20)
        listed = list_orphans().orphans
        planted.simulator.fail("reset", route="cancel_job", times=None)
        results = cancel_orphans(listed, max_seconds=0)
        assert {result.outcome for result in results} == {"failed"}
        assert routes_asked(planted.simulator).count("cancel_job") <= 5
