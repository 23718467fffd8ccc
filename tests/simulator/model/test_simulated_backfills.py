from __future__ import annotations

import random
from datetime import timedelta

import pytest

from planasonix_provider.api.models import Backfill, BackfillBody, SyncBody
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.workspace import Workspace
from tests.support.simulator_responses import raises_api_error

CONNECTION = "conn_demo_01"
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
#: The state of an ended backfill that has a job in one of these states; the first match counts.
ENDS = {"cancelled": "cancelled", "failed": "failed", "succeeded": "completed"}
BODY = BackfillRequestBody.model_validate(WINDOW)


def start(workspace: Workspace, **changes: object) -> str:
    """Start a backfill as planned, and return its id."""
    workspace.plan_backfill(CONNECTION, **changes)
    return workspace.start_backfill(CONNECTION, BODY).id


def states(workspace: Workspace, backfill: Backfill) -> list[str]:
    """Return the states of a backfill's jobs, in the order of creation."""
    return [workspace.job(job_id).status for job_id in backfill.job_ids or ()]


class TestCourse:
    """A backfill without any intervention."""

    @pytest.mark.parametrize(
        ("after", "status", "jobs"),
        [
            (0, "queued", 0),
            (1.999, "queued", 0),
            (2, "running", 4),
            (21.999, "running", 4),
            (22, "running", 8),
            (42, "running", 10),
            (61.999, "running", 10),
            (62, "completed", 10),
            (9999, "completed", 10),
        ],
    )
    def test_state_and_jobs_follow_the_clock(self, workspace, clock, after, status, jobs):
        backfill_id = start(workspace, jobs=10)
        clock.move(after)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, len(backfill.job_ids)) == (status, jobs)

    def test_no_more_jobs_run_at_a_time_than_planned(self, workspace, clock):
        backfill_id = start(workspace, jobs=7, parallel=2, running_seconds=30)
        most = 0
        for _ in range(70):
            clock.move(0.5)
            most = max(most, states(workspace, workspace.backfill(backfill_id)).count("running"))
        assert most == 2
        assert states(workspace, workspace.backfill(backfill_id)) == ["succeeded"] * 7

    @pytest.mark.parametrize("jobs", [7, 12, pytest.param(5_000, marks=pytest.mark.heavy)])
    def test_total_duration_is_as_planned(self, workspace, clock, jobs):
        backfill_id = start(workspace, jobs=jobs, running_seconds=40)
        clock.move(2 + 39.99)
        assert workspace.backfill(backfill_id).status == "running"
        clock.move(0.01)
        assert workspace.backfill(backfill_id).status == "completed"

    def test_jobs_are_created_when_due_and_keep_their_ids(self, workspace, clock):
        backfill_id = start(workspace, jobs=3, parallel=1)
        begin = clock.now
        clock.move(23)
        first = workspace.backfill(backfill_id).job_ids
        clock.move(100)
        last = workspace.backfill(backfill_id).job_ids
        assert (len(set(last)), last[:2]) == (3, first)
        created = [workspace.job(job_id).created_at - begin for job_id in last]
        assert created == [timedelta(seconds=seconds) for seconds in (2, 22, 42)]

    def test_job_is_like_any_other(self, workspace, clock):
        body = BackfillRequestBody.model_validate({**WINDOW, "metadata": {"dag_id": "d"}})
        workspace.plan_backfill(CONNECTION, jobs=2, tables={"a": 11, "b": 2}, warnings=[{"code": "w", "message": "m"}])
        backfill_id = workspace.start_backfill(CONNECTION, body).id
        clock.move(22)
        first, second = (workspace.job(job_id) for job_id in workspace.backfill(backfill_id).job_ids)
        assert (first.type, first.connection_id, first.metadata) == ("backfill", CONNECTION, {"dag_id": "d"})
        assert (first.started_at, first.duration_seconds) == (first.created_at, 20)
        assert (first.metrics.rows_loaded, second.metrics.rows_loaded) == (7, 6)
        results = workspace.results(first.id)
        assert [(table.name, table.rows_loaded) for table in results.tables] == [("a", 6), ("b", 1)]
        assert [warning.code for warning in results.warnings] == ["w"]

    def test_backfill_without_any_duration_is_over_at_once(self, workspace):
        workspace.plan_backfill(CONNECTION, jobs=10, parallel=1, queued_seconds=0, job_seconds=0)
        backfill = workspace.start_backfill(CONNECTION, BODY)
        assert (backfill.status, len(backfill.job_ids), backfill.progress_percent) == ("completed", 10, 100)
        assert backfill.rows_processed == 5_000_000

    def test_backfill_without_queue_runs_at_once(self, workspace):
        workspace.plan_backfill(CONNECTION, queued_seconds=0)
        assert workspace.start_backfill(CONNECTION, BODY).status == "running"

    def test_speed_shortens_later_starts(self, workspace, clock):
        slow = start(workspace)
        workspace.configure(speed=10)
        fast = start(workspace)
        clock.move(2.2)
        assert (workspace.backfill(slow).status, workspace.backfill(fast).status) == ("running", "completed")

    def test_only_requested_tables_are_loaded(self, workspace, clock):
        workspace.plan_backfill(CONNECTION, tables={"a": 10, "b": 20})
        body = BackfillRequestBody.model_validate({**WINDOW, "tables": ["b", "new"]})
        backfill_id = workspace.start_backfill(CONNECTION, body).id
        clock.move(22)
        backfill = workspace.backfill(backfill_id)
        assert backfill.rows_processed == 20 + 1_000_000
        assert [table.name for table in workspace.results(backfill.job_ids[0]).tables] == ["b", "new"]


class TestProgress:
    def test_percent_and_rows_grow_while_jobs_run(self, workspace, clock):
        backfill_id = start(workspace, jobs=3, parallel=1, tables={"a": 3000})
        seen = []
        for seconds in (0, 2, 10, 10, 10, 29.95, 0.05, 100):
            clock.move(seconds)
            backfill = workspace.backfill(backfill_id)
            seen.append((backfill.progress_percent, backfill.rows_processed))
        assert seen == [(0, 0), (0, 0), (16, 500), (33, 1000), (50, 1500), (99, 2997), (100, 3000), (100, 3000)]

    def test_updated_at_follows_progress(self, workspace, clock):
        backfill_id = start(workspace)
        created_at = clock.now
        clock.move(1)
        assert workspace.backfill(backfill_id).updated_at == created_at
        clock.move(5)
        assert workspace.backfill(backfill_id).updated_at == clock.now
        clock.move(100)
        assert workspace.backfill(backfill_id).updated_at == created_at + timedelta(seconds=22)

    def test_updated_at_stands_still_while_cancelling(self, workspace, clock):
        backfill_id = start(workspace, jobs=1)
        clock.move(12)
        cancelled_at = clock.now
        workspace.cancel(workspace.backfill(backfill_id).job_ids[0])
        clock.move(0.5)
        assert workspace.backfill(backfill_id).updated_at == cancelled_at


class TestFailure:
    def test_backfill_fails_after_all_jobs_have_ended(self, workspace, clock):
        backfill_id = start(workspace, jobs=12, failing_jobs=[0, 5], code="disk_full", message="No space.")
        clock.move(61.9)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, backfill.error) == ("running", None)
        assert states(workspace, backfill).count("failed") == 2
        clock.move(0.1)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, backfill.progress_percent) == ("failed", 91)
        assert (backfill.error.code, backfill.error.message) == ("jobs_failed", "2 of 12 jobs failed")
        expected = ["succeeded"] * 12
        expected[0] = expected[5] = "failed"
        assert states(workspace, backfill) == expected
        failed = workspace.job(backfill.job_ids[5])
        assert (failed.error.code, failed.error.message) == ("disk_full", "No space.")


class TestCancel:
    def test_creates_no_more_jobs(self, workspace, clock):
        backfill_id = start(workspace, jobs=12)
        clock.move(12)
        job_ids = workspace.backfill(backfill_id).job_ids
        for job_id in job_ids:
            assert workspace.cancel(job_id).status == "cancelling"
        clock.move(0.9)
        assert workspace.backfill(backfill_id).status == "running"
        clock.move(0.1)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, backfill.error, backfill.job_ids) == ("cancelled", None, job_ids)
        assert states(workspace, backfill) == ["cancelled"] * 4
        clock.move(999)
        assert workspace.backfill(backfill_id) == backfill
        assert backfill.updated_at == workspace.job(job_ids[0]).finished_at

    def test_jobs_may_still_appear_after_the_first_cancel(self, workspace, clock):
        backfill_id = start(workspace, jobs=12, parallel=2, jobs_after_cancel=2)
        clock.move(12)
        first = workspace.backfill(backfill_id).job_ids
        workspace.cancel(first[0])
        cancelled_at = clock.now
        clock.move(0.4)
        workspace.cancel(first[1])
        assert workspace.backfill(backfill_id).job_ids == first
        clock.move(0.1)
        assert len(workspace.backfill(backfill_id).job_ids) == 3
        clock.move(0.5)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, states(workspace, backfill)) == (
            "running",
            ["cancelled", "cancelling", "running", "running"],
        )
        late = [workspace.job(job_id) for job_id in backfill.job_ids[2:]]
        assert [job.created_at - cancelled_at for job in late] == [timedelta(seconds=0.5), timedelta(seconds=1)]
        for job in late:
            workspace.cancel(job.id)
        clock.move(0.9)
        assert workspace.backfill(backfill_id).status == "running"
        clock.move(0.1)
        backfill = workspace.backfill(backfill_id)
        assert (backfill.status, states(workspace, backfill)) == ("cancelled", ["cancelled"] * 4)
        clock.move(999)
        assert len(workspace.backfill(backfill_id).job_ids) == 4

    def test_late_jobs_are_limited_by_the_plan(self, workspace, clock):
        backfill_id = start(workspace, jobs=3, parallel=2, jobs_after_cancel=10)
        clock.move(2)
        workspace.cancel(workspace.backfill(backfill_id).job_ids[0])
        clock.move(1)
        assert len(workspace.backfill(backfill_id).job_ids) == 3
        clock.move(999)
        assert len(workspace.backfill(backfill_id).job_ids) == 3

    def test_cancel_at_the_moment_of_a_new_wave_keeps_that_wave(self, workspace, clock):
        backfill_id = start(workspace, jobs=12)
        clock.move(2)
        old = workspace.backfill(backfill_id).job_ids
        clock.move(20)
        assert workspace.cancel(old[0]).status == "succeeded"
        new = workspace.backfill(backfill_id).job_ids[4:]
        assert len(new) == 4
        workspace.cancel(new[0])
        clock.move(20)
        assert workspace.backfill(backfill_id).status == "cancelled"
        assert len(workspace.backfill(backfill_id).job_ids) == 8

    def test_cancel_of_an_ended_job_changes_nothing(self, workspace, clock):
        backfill_id = start(workspace, jobs=5, parallel=4)
        clock.move(22)
        for job_id in workspace.backfill(backfill_id).job_ids[:4]:
            assert workspace.cancel(job_id).status == "succeeded"
        clock.move(20)
        assert workspace.backfill(backfill_id).status == "completed"

    def test_cancel_of_a_sync_does_not_change_a_backfill(self, workspace, clock):
        backfill_id = start(workspace)
        clock.move(3)
        workspace.cancel(workspace.start_sync(CONNECTION).id)
        clock.move(20)
        assert workspace.backfill(backfill_id).status == "completed"

    def test_other_backfills_continue(self, workspace, clock):
        first, second = start(workspace, jobs=12), start(workspace, jobs=12)
        clock.move(3)
        workspace.cancel(workspace.backfill(first).job_ids[0])
        clock.move(59)
        assert (workspace.backfill(first).status, workspace.backfill(second).status) == ("cancelled", "completed")


class TestPlan:
    def test_syncs_and_backfills_have_separate_plans(self, workspace, clock):
        workspace.plan(CONNECTION, outcome="failed")
        workspace.plan_backfill(CONNECTION, jobs=1)
        backfill_id = workspace.start_backfill(CONNECTION, BODY).id
        job_id = workspace.start_sync(CONNECTION).id
        clock.move(22)
        backfill = workspace.backfill(backfill_id)
        assert (workspace.job(job_id).status, backfill.status, len(backfill.job_ids)) == ("failed", "completed", 1)


class TestStart:
    def test_backfills_never_conflict(self, workspace, clock):
        backfills = {workspace.start_backfill(CONNECTION, BODY).id for _ in range(12)}
        workspace.start_sync(CONNECTION)
        clock.move(2)
        backfills.add(workspace.start_backfill(CONNECTION, BODY).id)
        assert len(backfills) == 13
        assert [backfill.status for backfill in workspace.backfills()] == ["queued"] + ["running"] * 12

    def test_jobs_of_a_backfill_do_not_conflict_with_syncs(self, workspace, clock):
        workspace.start_backfill(CONNECTION, BODY)
        clock.move(3)
        assert workspace.start_sync(CONNECTION).status == "queued"


class TestIdempotency:
    def test_same_key_gives_the_same_backfill_even_after_its_end(self, workspace, clock):
        first = workspace.start_backfill(CONNECTION, BODY, idempotency_key="k")
        clock.move(100)
        shifted = {"start_at": "2025-01-01T01:00:00+01:00", "end_at": "2025-03-01"}
        again = workspace.start_backfill(CONNECTION, BackfillRequestBody.model_validate(shifted), idempotency_key="k")
        assert (again.id, again.status) == (first.id, "completed")
        assert len(workspace.backfills()) == 1

    def test_same_key_for_a_sync(self, workspace):
        workspace.start_backfill(CONNECTION, BODY, idempotency_key="k")
        with raises_api_error("idempotency_key_reused"):
            workspace.start_sync(CONNECTION, SyncBody.model_validate(WINDOW), idempotency_key="k")
        workspace.start_sync(CONNECTION, idempotency_key="l")
        with raises_api_error("idempotency_key_reused"):
            workspace.start_backfill(CONNECTION, BackfillBody.model_validate(WINDOW), idempotency_key="l")


def test_page_contains_no_job_ids(workspace, clock):
    backfill_id = start(workspace)
    clock.move(2)
    (backfill,), end = workspace.backfill_page(lambda backfill, now: True, limit=1)
    assert (backfill.id, backfill.job_ids, end) == (backfill_id, None, None)


def test_reset_removes_everything(workspace, clock):
    start(workspace)
    workspace.plan_backfill(CONNECTION, jobs=1)
    workspace.plan_backfill(CONNECTION, jobs=2, times=None)
    clock.move(1)
    workspace.start_backfill(CONNECTION, BODY, idempotency_key="k")
    workspace.reset()
    clock.move(100)
    assert (workspace.backfills(), workspace.jobs()) == ([], [])
    backfill_id = workspace.start_backfill(
        CONNECTION, BackfillRequestBody.model_validate({**WINDOW, "tables": ["a"]})
    ).id
    clock.move(22)
    assert len(workspace.backfill(backfill_id).job_ids) == 3


class TestFailedJob:
    def test_starts_the_next_wave_early(self, workspace, clock):
        backfill_id = start(workspace, jobs=3, parallel=1)
        clock.move(2 + 5)
        workspace.fail_job(workspace.backfill(backfill_id).job_ids[0])
        failed_at = clock.now
        clock.move(100)
        backfill = workspace.backfill(backfill_id)
        created = [workspace.job(job_id).created_at - failed_at for job_id in backfill.job_ids]
        assert created == [timedelta(seconds=seconds) for seconds in (-5, 0, 20)]
        assert (backfill.updated_at - failed_at, backfill.status) == (timedelta(seconds=40), "failed")


class TestSlowedJob:
    def test_delays_the_next_wave(self, workspace, clock):
        backfill_id = start(workspace, jobs=4, parallel=2)
        clock.move(2 + 5)
        begin = clock.now
        workspace.slow_job(workspace.backfill(backfill_id).job_ids[0], 30)
        clock.move(44.999)
        assert states(workspace, workspace.backfill(backfill_id)) == ["running", "succeeded"]
        clock.move(100)
        backfill = workspace.backfill(backfill_id)
        assert [workspace.job(job_id).created_at - begin for job_id in backfill.job_ids[2:]] == [
            timedelta(seconds=45)
        ] * 2
        assert (backfill.status, backfill.rows_processed) == ("completed", 5_000_000)
        assert backfill.updated_at - begin == timedelta(seconds=65)

    def test_early_failure_restores_the_planned_wave(self, workspace, clock):
        backfill_id = start(workspace, jobs=4, parallel=2)
        clock.move(2 + 5)
        begin = clock.now
        job_id = workspace.backfill(backfill_id).job_ids[0]
        workspace.slow_job(job_id, 30)
        workspace.fail_job(job_id)
        clock.move(100)
        ids = workspace.backfill(backfill_id).job_ids
        assert [workspace.job(job_id).created_at - begin for job_id in ids[2:]] == [timedelta(seconds=15)] * 2


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(20))
def test_backfill_is_the_sum_of_its_changed_jobs(workspace, clock, seed):
    chance = random.Random(seed)
    jobs, parallel = chance.randint(1, 9), chance.randint(1, 4)
    failing = chance.sample(range(jobs), chance.choice([0, 0, jobs // 3]))
    plan = {"jobs": jobs, "parallel": parallel, "failing_jobs": failing, "job_seconds": chance.choice([3, 7.7])}
    backfill_id = start(workspace, **plan, jobs_after_cancel=chance.randint(0, 3), tables={"a": 1001, "b": 7})
    acts = [
        workspace.fail_job,
        lambda job_id: workspace.slow_job(job_id, chance.uniform(0.1, 9)),
        workspace.fail_job,
        workspace.cancel,
    ]
    # Every other seed cancels jobs, too.
    acts = acts[: 3 + seed % 2]
    percent, rows = 0, 0
    before: list[str] = []
    for _ in range(400):
        clock.move(chance.uniform(0, 2))
        backfill = workspace.backfill(backfill_id)
        made = [workspace.job(job_id) for job_id in backfill.job_ids]
        assert backfill.job_ids[: len(before)] == before
        assert backfill.is_over <= all(job.is_over for job in made)
        before = backfill.job_ids
        assert backfill.rows_processed == sum(job.metrics.rows_loaded for job in made)
        sights = [workspace.job_snapshot(job_id) for job_id in backfill.job_ids]
        done = sum(sight.job.progress_at(sight.now) for sight in sights)
        assert backfill.progress_percent == pytest.approx(100 * done / jobs - 0.5, abs=0.500_001), "rounded down"
        assert (backfill.progress_percent, backfill.rows_processed) >= (percent, rows)
        percent, rows = backfill.progress_percent, backfill.rows_processed
        assert sum(not job.is_over for job in made) <= parallel or "cancelled" in {job.status for job in made}
        running = [job.id for job in made if job.status == "running"]
        if running and chance.random() < 0.15:
            chance.choice(acts)(chance.choice(running))
    ends = [job.status for job in made]
    assert backfill.status == next(end for state, end in ENDS.items() if state in ends)
    assert len(made) == jobs or "cancelled" in ends
    if backfill.status == "failed":
        assert backfill.error.message == f"{ends.count('failed')} of {jobs} jobs failed"
