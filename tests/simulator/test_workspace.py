from __future__ import annotations

import re
from datetime import timedelta

import pytest

from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator.workspace import Workspace
from tests.support.simulator_responses import raises_api_error

CONNECTION = "conn_demo_01"


class TestJob:
    @pytest.mark.parametrize(
        ("after", "status"),
        [(0, "queued"), (1.999, "queued"), (2, "running"), (21.999, "running"), (22, "succeeded"), (9999, "succeeded")],
    )
    def test_state_follows_the_clock(self, workspace, clock, after, status):
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(after)
        assert workspace.job(job_id).status == status

    def test_times_appear_when_they_are_reached(self, workspace, clock):
        started = workspace.start_sync(CONNECTION)
        assert (started.created_at, started.queued_at) == (clock.now, clock.now)
        assert (started.started_at, started.finished_at, started.duration_seconds) == (None, None, None)
        begin = clock.now
        clock.move(30)
        over = workspace.job(started.id)
        assert over.started_at == begin + timedelta(seconds=2)
        assert over.finished_at == begin + timedelta(seconds=22)
        assert over.duration_seconds == 20

    def test_metrics_grow_with_progress(self, workspace, clock):
        workspace.plan(CONNECTION, tables={"a": 1000, "b": 500})
        job_id = workspace.start_sync(CONNECTION).id
        assert workspace.job(job_id).metrics.rows_loaded == 0
        clock.move(2 + 10)
        half = workspace.job(job_id).metrics
        assert (half.rows_loaded, half.rows_extracted) == (750, 825)
        clock.move(10)
        full = workspace.job(job_id).metrics
        assert (full.rows_loaded, full.rows_extracted, full.bytes_read) == (1500, 1500, 1500 * 67_108_864 // 45_210)

    def test_failure_has_the_planned_error_and_only_at_the_end(self, workspace, clock):
        workspace.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route to host.")
        job_id = workspace.start_sync(CONNECTION).id
        assert workspace.job(job_id).error is None
        clock.move(22)
        job = workspace.job(job_id)
        assert (job.status, job.error.code, job.error.message) == ("failed", "source_unreachable", "No route to host.")
        assert job.metrics.rows_loaded == 44802 // 2

    def test_job_without_any_duration_is_over_at_once(self, workspace):
        workspace.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        job = workspace.start_sync(CONNECTION)
        assert (job.status, job.duration_seconds, job.metrics.rows_loaded) == ("succeeded", 0, 44802)


class TestFailedJob:
    def test_is_over_at_once_with_the_given_error(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(7)
        failed = workspace.fail_job(job_id, code="disk_full", message="No room.")
        assert failed == workspace.job(job_id)
        assert (failed.status, failed.finished_at, failed.duration_seconds) == ("failed", clock.now, 5)
        assert (failed.error.code, failed.error.message) == ("disk_full", "No room.")
        assert workspace.job_page(lambda job, now: True, limit=5, status="failed")[0][0].id == job_id

    def test_keeps_its_loaded_rows(self, workspace, clock):
        workspace.plan(CONNECTION, tables={"a": 1000})
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(2 + 5)
        before = workspace.job(job_id).metrics
        assert workspace.fail_job(job_id).metrics == before
        clock.move(60)
        assert workspace.job(job_id).metrics == before
        assert [table.rows_loaded for table in workspace.results(job_id).tables] == [250]

    @pytest.mark.parametrize(("planned", "code"), [({}, "sync_failed"), ({"code": "disk_full"}, "disk_full")])
    def test_has_the_code_of_its_plan_by_default(self, workspace, planned, code):
        workspace.plan(CONNECTION, **planned)
        error = workspace.fail_job(workspace.start_sync(CONNECTION).id).error
        assert (error.code, error.message) == (code, "The job was made to fail.")

    def test_has_never_started_if_it_was_queued(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(1)
        workspace.fail_job(job_id)
        clock.move(60)
        job = workspace.job(job_id)
        assert (job.status, job.started_at, job.duration_seconds) == ("failed", None, None)
        assert job.metrics.rows_loaded == 0

    def test_does_not_conflict(self, workspace):
        workspace.fail_job(workspace.start_sync(CONNECTION).id)
        assert workspace.start_sync(CONNECTION).status == "queued"

    def test_later_cancel_changes_nothing(self, workspace):
        failed = workspace.fail_job(workspace.start_sync(CONNECTION).id)
        assert workspace.cancel(failed.id) == failed


class TestSlowedJob:
    def test_ends_later_and_still_as_planned(self, workspace, clock):
        workspace.plan(CONNECTION, outcome="failed", code="disk_full")
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(12)
        workspace.slow_job(job_id, 30)
        clock.move(10 + 29.999)
        assert workspace.job(job_id).status == "running"
        clock.move(0.001)
        job = workspace.job(job_id)
        assert (job.status, job.error.code, job.duration_seconds) == ("failed", "disk_full", 50)

    def test_continues_from_its_progress(self, workspace, clock):
        workspace.plan(CONNECTION, tables={"a": 1000}, queued_seconds=0)
        job_id = workspace.start_sync(CONNECTION).id
        seen = []
        for seconds, longer in ((10, 30), (20, 20), (20, 0), (20, 0)):
            clock.move(seconds)
            seen.append(workspace.job(job_id).metrics.rows_loaded)
            if longer:
                assert workspace.slow_job(job_id, longer).metrics.rows_loaded == seen[-1]
        assert seen == [500, 750, 875, 1000]
        assert workspace.job(job_id).duration_seconds == 70

    def test_is_queued_no_longer_than_before(self, workspace, clock):
        workspace.plan(CONNECTION, running_seconds=0, tables={"a": 1000})
        job_id = workspace.start_sync(CONNECTION).id
        workspace.slow_job(job_id, 4)
        clock.move(2 + 1)
        assert workspace.job(job_id).metrics.rows_loaded == 250
        clock.move(3)
        assert workspace.job(job_id).duration_seconds == 4

    def test_takes_real_seconds_at_any_speed(self, workspace, clock):
        workspace.configure(speed=10)
        job_id = workspace.start_sync(CONNECTION).id
        workspace.slow_job(job_id, 5)
        clock.move(0.2 + 2 + 5)
        assert workspace.job(job_id).duration_seconds == 7

    def test_can_be_cancelled_and_failed(self, workspace, clock):
        one, other = (workspace.start_sync(connection).id for connection in ("conn_demo_01", "conn_demo_02"))
        for job_id in (one, other):
            workspace.slow_job(job_id, 100)
        clock.move(30)
        assert workspace.fail_job(one).status == "failed"
        assert workspace.cancel(other).status == "cancelling"
        clock.move(1)
        assert workspace.job(other).status == "cancelled"

    @pytest.mark.parametrize("seconds", [0, -1, 31_536_000, float("nan"), float("inf")])
    def test_slowdown_is_limited_to_a_year(self, workspace, seconds):
        job_id = workspace.start_sync(CONNECTION).id
        workspace.slow_job(job_id, 1)
        before = workspace.next_change_at()
        with pytest.raises(ValueError, match=r"seconds: got .*, allowed is a number above 0, in all 31536000"):
            workspace.slow_job(job_id, seconds)
        assert workspace.next_change_at() == before


@pytest.mark.parametrize(
    "change",
    [lambda workspace, job_id: workspace.fail_job(job_id), lambda workspace, job_id: workspace.slow_job(job_id, 1)],
)
@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelling", "cancelled"])
def test_ended_or_cancelled_job_cannot_be_changed(workspace, clock, change, status):
    job_id = workspace.start_sync(CONNECTION).id
    if status == "succeeded":
        clock.move(22)
    elif status == "failed":
        workspace.fail_job(job_id)
    else:
        workspace.cancel(job_id)
        clock.move(1 if status == "cancelled" else 0)
    before = workspace.job(job_id)
    with raises_api_error("job_not_active") as caught:
        change(workspace, job_id)
    assert caught.value.message == f"job {job_id!r} is {status} and can no longer be changed"
    assert workspace.job(job_id) == before


class TestCancel:
    def test_running_job_passes_through_cancelling(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(12)
        requested_at = clock.now
        job = workspace.cancel(job_id)
        assert (job.status, job.cancel_requested_at, job.finished_at) == ("cancelling", requested_at, None)
        clock.move(1)
        job = workspace.job(job_id)
        assert (job.status, job.finished_at) == ("cancelled", requested_at + timedelta(seconds=1))
        assert job.metrics.rows_loaded == 44802 // 2, "it loads no rows after the request to cancel"

    def test_queued_job_never_starts(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        workspace.cancel(job_id)
        clock.move(100)
        job = workspace.job(job_id)
        assert (job.status, job.started_at, job.duration_seconds) == ("cancelled", None, None)

    def test_second_request_keeps_the_first_time(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        first = workspace.cancel(job_id).cancel_requested_at
        clock.move(0.5)
        assert workspace.cancel(job_id).cancel_requested_at == first

    def test_ended_job_is_unchanged(self, workspace, clock):
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(22)
        job = workspace.cancel(job_id)
        assert (job.status, job.cancel_requested_at) == ("succeeded", None)


class TestPlan:
    def test_plans_are_used_in_order_and_then_the_default(self, workspace):
        workspace.configure(conflict="allowed")
        workspace.plan(CONNECTION, tables={"first": 1}, times=2, running_seconds=0, queued_seconds=0)
        workspace.plan(CONNECTION, tables={"second": 1}, running_seconds=0, queued_seconds=0)
        workspace.plan(CONNECTION, tables={"always": 1}, times=None, running_seconds=0, queued_seconds=0)
        jobs = [workspace.start_sync(CONNECTION).id for _ in range(5)]
        names = [workspace.results(job_id).tables[0].name for job_id in jobs]
        assert names == ["first", "first", "second", "always", "always"]

    def test_plan_is_for_its_connection_only(self, workspace, clock):
        workspace.plan(CONNECTION, outcome="failed")
        job_id = workspace.start_sync("conn_demo_02").id
        clock.move(22)
        assert workspace.job(job_id).status == "succeeded"

    def test_speed_shortens_later_starts(self, workspace, clock):
        slow = workspace.start_sync(CONNECTION).id
        workspace.configure(speed=10)
        fast = workspace.start_sync("conn_demo_02").id
        clock.move(2.2)
        assert (workspace.job(slow).status, workspace.job(fast).status) == ("running", "succeeded")

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"times": 0}, "times: got 0"),
            ({"outcome": "exploded"}, "outcome"),
            ({"queued_seconds": -1}, "queued_seconds"),
            ({"running_seconds": float("nan")}, "running_seconds"),
            ({"tables": {"a": -1}}, "tables.a"),
            ({"colour": "red"}, "colour"),
        ],
    )
    def test_bad_values_are_named(self, workspace, changes, named):
        with pytest.raises(ValueError, match=re.escape(named)):
            workspace.plan(CONNECTION, **changes)


class TestConnection:
    def test_unknown_connection_can_be_added(self, workspace):
        with raises_api_error("not_found"):
            workspace.start_sync("conn_new")
        workspace.add_connection("conn_new")
        assert workspace.start_sync("conn_new").connection_id == "conn_new"

    def test_initial_connections(self, workspace):
        assert {"conn_01jq8k2m3n4p5q6r7s8t9u0v1", "conn_demo_01", "conn_demo_10"} <= set(workspace.connections)

    def test_adding_again_keeps_its_plan(self, workspace):
        workspace.plan(CONNECTION, times=None, queued_seconds=0)
        workspace.add_connection(CONNECTION)
        assert workspace.start_sync(CONNECTION).status == "running"

    def test_empty_id(self):
        with pytest.raises(ValueError, match="connection_id: got ''"):
            Workspace(connections=[""])


class TestConflict:
    def test_cancelling_job_conflicts(self, workspace, clock):
        workspace.cancel(workspace.start_sync(CONNECTION).id)
        with raises_api_error("sync_in_progress"):
            workspace.start_sync(CONNECTION)
        clock.move(1)
        assert workspace.start_sync(CONNECTION).status == "queued"

    def test_rejected_sync_uses_no_plan(self, workspace, clock):
        workspace.start_sync(CONNECTION)
        workspace.plan(CONNECTION, outcome="failed", queued_seconds=0, running_seconds=0)
        with raises_api_error("sync_in_progress"):
            workspace.start_sync(CONNECTION)
        clock.move(22)
        assert workspace.start_sync(CONNECTION).status == "failed"


class TestIdempotency:
    BODY = SyncBody(metadata={"run": 1})

    def test_same_key_gives_the_same_job_even_after_its_end(self, workspace, clock):
        first = workspace.start_sync(CONNECTION, self.BODY, idempotency_key="k")
        clock.move(100)
        again = workspace.start_sync(CONNECTION, SyncBody(metadata={"run": 1}), idempotency_key="k")
        assert (again.id, again.status) == (first.id, "succeeded")
        assert len(workspace.jobs()) == 1

    @pytest.mark.parametrize(
        ("connection", "body"), [(CONNECTION, SyncBody(metadata={"run": 2})), ("conn_demo_02", BODY)]
    )
    def test_same_key_for_another_request(self, workspace, connection, body):
        workspace.start_sync(CONNECTION, self.BODY, idempotency_key="k")
        with raises_api_error("idempotency_key_reused"):
            workspace.start_sync(connection, body, idempotency_key="k")

    def test_rejected_start_does_not_use_its_key(self, workspace, clock):
        workspace.start_sync(CONNECTION)
        with raises_api_error("sync_in_progress"):
            workspace.start_sync(CONNECTION, idempotency_key="k")
        clock.move(22)
        assert workspace.start_sync(CONNECTION, idempotency_key="k").status == "queued"

    def test_key_can_be_ignored(self, workspace):
        workspace.configure(honour_idempotency=False, conflict="allowed")
        first = workspace.start_sync(CONNECTION, idempotency_key="k").id
        assert workspace.start_sync(CONNECTION, idempotency_key="k").id != first


class TestResults:
    def test_tables_checksums_and_warnings(self, workspace, clock):
        warning = {"code": "column_type_widened", "message": "discount_pct"}
        workspace.plan(CONNECTION, tables={"public.orders": 44802, "public.items": 3}, warnings=[warning])
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(22)
        results = workspace.results(job_id)
        assert (results.job_id, results.status) == (job_id, "succeeded")
        assert {table.name: table.rows_loaded for table in results.tables} == {
            "public.orders": 44802,
            "public.items": 3,
        }
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", table.checksum) for table in results.tables)
        assert [one.model_dump() for one in results.warnings] == [warning]


def test_page_that_is_just_full_is_the_last(workspace):
    ids = [workspace.start_sync(f"conn_demo_0{number}").id for number in range(1, 6)]
    jobs, end = workspace.job_page(lambda job, now: True, limit=5)
    assert ([job.id for job in jobs], end) == (ids[::-1], None)


def test_reset_removes_everything(workspace):
    first = workspace.start_sync(CONNECTION, idempotency_key="k").id
    workspace.plan(CONNECTION, outcome="failed", queued_seconds=0, running_seconds=0)
    workspace.plan(CONNECTION, times=None, queued_seconds=0)
    workspace.configure(results_policy="partial")
    workspace.add_connection("conn_new")
    workspace.keys.add("other")
    workspace.reset()
    job = workspace.start_sync(CONNECTION, idempotency_key="k")
    assert (job.id != first, job.status, workspace.jobs()) == (True, "queued", [job])
    assert workspace.settings.results_policy == "conflict"
    assert "conn_new" not in workspace.connections
    with raises_api_error("unauthorized"):
        workspace.keys.authenticate("Bearer other")


def test_started_work_in_order_of_starts(workspace, clock):
    window = BackfillBody(start_at=clock.now - timedelta(days=1), end_at=clock.now, tables=["public.orders"])
    first = workspace.start_backfill(CONNECTION, window)
    clock.move(5)
    second = workspace.start_sync(CONNECTION, SyncBody(priority="high"))
    clock.move(5)
    third = workspace.start_sync("conn_demo_02")
    assert len(workspace.jobs()) > 2, "the backfill has jobs"
    started = workspace.started_work()
    assert [work.id for work in started] == [first.id, second.id, third.id]
    assert (started[0].body, started[1].body.priority) == (window, "high")


def test_next_change_at(workspace, clock):
    assert workspace.next_change_at() is None
    workspace.plan_backfill(CONNECTION, jobs=2, parallel=1, queued_seconds=30, job_seconds=10)
    workspace.start_backfill(CONNECTION, BackfillBody(start_at=clock.now - timedelta(days=1), end_at=clock.now))
    workspace.start_sync("conn_demo_02")
    began, changes = clock.now, []
    while (change := workspace.next_change_at()) is not None:
        changes.append((change - began).total_seconds())
        clock.move(changes[-1] - (clock.now - began).total_seconds())
    # The sync is queued for 2 s and runs for 20 s; each job of the backfill starts at the end of the one before it.
    assert changes == [2, 22, 30, 40, 50]
