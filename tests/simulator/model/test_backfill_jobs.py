from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.workspace import Workspace

CONNECTION = "conn_demo_01"
BODY = BackfillRequestBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


def test_jobs_are_created_in_order_of_time(workspace, clock):
    workspace.configure(conflict="allowed")
    for queued_seconds, job_seconds in ((0, 10), (5, 7)):
        workspace.plan_backfill(CONNECTION, jobs=3, parallel=1, queued_seconds=queued_seconds, job_seconds=job_seconds)
        workspace.start_backfill(CONNECTION, BODY)
    for _ in range(5):
        clock.move(4)
        workspace.start_sync(CONNECTION)
    clock.move(100)
    jobs = workspace.jobs()
    assert len(jobs) == 2 * 3 + 5
    created = [job.created_at for job in jobs]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize("step", [0.5, 3, 1000])
def test_result_is_independent_of_polls(clock, step):
    names = (f"{number}" for number in range(100))
    workspace = Workspace(clock=clock, ids=lambda prefix: f"{prefix}_{next(names)}")
    for jobs, parallel in ((7, 2), (5, 3)):
        workspace.plan_backfill(CONNECTION, jobs=jobs, parallel=parallel, job_seconds=4.5)
        workspace.start_backfill(CONNECTION, BODY)
    end = clock.now.timestamp() + 60
    while clock.now.timestamp() < end:
        clock.move(step)
        workspace.jobs()
    assert [job.id for job in workspace.jobs()] == [f"job_{number}" for number in range(13, 1, -1)]
    first, second = workspace.backfills()[::-1]
    assert first.job_ids == [f"job_{number}" for number in (2, 3, 7, 8, 11, 12, 13)]
    assert second.job_ids == [f"job_{number}" for number in (4, 5, 6, 9, 10)]


@pytest.mark.parametrize(
    "call",
    [
        lambda workspace, job_id, _: workspace.job(job_id),
        lambda workspace, *_: workspace.jobs(),
        lambda workspace, *_: workspace.job_page(lambda job, now: True, limit=5),
        lambda workspace, job_id, _: workspace.results(job_id),
        lambda workspace, _, backfill_id: workspace.backfill(backfill_id),
        lambda workspace, *_: workspace.backfills(),
        lambda workspace, *_: workspace.backfill_page(lambda backfill, now: True, limit=5),
        lambda workspace, *_: workspace.start_sync("conn_demo_02"),
        lambda workspace, *_: workspace.start_backfill(CONNECTION, BODY),
        lambda workspace, job_id, _: workspace.cancel(job_id),
        lambda workspace, job_id, _: workspace.fail_job(job_id),
        lambda workspace, job_id, _: workspace.slow_job(job_id, 5),
    ],
)
def test_every_method_creates_due_jobs(workspace, clock, call):
    workspace.configure(results_policy="partial")
    job_id = workspace.start_sync(CONNECTION).id
    backfill_id = workspace.start_backfill(CONNECTION, BODY).id
    clock.move(10)
    call(workspace, job_id, backfill_id)
    clock.move(-9)
    assert len(workspace.backfill(backfill_id).job_ids) == 3


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of functions, by event of the profiler."""
    calls: Counter[str] = Counter()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.update([event]))
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.heavy
@pytest.mark.parametrize("parallel", [4, 5_000])
def test_polls_are_cheap_with_thousands_of_jobs(workspace, clock, parallel):
    workspace.plan_backfill(CONNECTION, jobs=5_000, parallel=parallel, running_seconds=1_000)
    backfill_id = workspace.start_backfill(CONNECTION, BODY).id
    clock.move(1_001)
    workspace.cancel(workspace.backfill(backfill_id).job_ids[-1])
    with counted_calls() as calls:
        clock.move(0.01)
        workspace.backfill(backfill_id)
        workspace.backfill_page(lambda backfill, now: backfill.status_at(now) == "completed", limit=100)
        workspace.job_page(lambda job, now: job.status_at(now) == "cancelled", limit=100)
    assert calls["call"] + calls["c_call"] < 20 * 5_000, "at most twenty for each job; currently eighteen"
