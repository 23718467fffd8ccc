from __future__ import annotations

import random
from collections import Counter

import pytest

from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.workspace import Workspace

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
BODY = BackfillRequestBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


def listed(workspace: Workspace, status: str | None, limit: int) -> list[str]:
    """Return the ids of a whole list, read in pages."""
    ids: list[str] = []
    before = None
    while True:
        page, before = workspace.job_page(lambda job, now: True, limit=limit, before=before, status=status)
        assert {job.status for job in page} <= ({status} if status else {*STATES})
        ids += [job.id for job in page]
        if before is None:
            return ids


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(20))
def test_each_job_is_in_the_list_of_its_state(clock, seed):
    chance = random.Random(seed)
    workspace = Workspace(clock=clock, keep=chance.choice([5, 10_000]))
    workspace.configure(conflict="allowed")
    seen = set()
    for _ in range(60):
        connection = f"conn_demo_0{chance.randint(1, 3)}"
        running = chance.choice([0, 0, 5, 40])
        happens = chance.randrange(4)
        if happens == 0:
            outcome = chance.choice(["succeeded", "failed"])
            queued = chance.choice([0, 3])
            workspace.plan(connection, outcome=outcome, queued_seconds=queued, running_seconds=running)
            workspace.start_sync(connection)
        if happens == 1:
            parallel, after = chance.randint(1, 3), chance.choice([0, 2])
            workspace.plan_backfill(connection, jobs=4, parallel=parallel, job_seconds=running, jobs_after_cancel=after)
            workspace.start_backfill(connection, BODY)
        if happens == 2 and (jobs := workspace.jobs()):
            workspace.plan(connection, cancelling_seconds=chance.choice([0, 2]))
            workspace.cancel(chance.choice(jobs).id)
        if happens == 3 and (active := [job.id for job in workspace.jobs() if job.status in ("queued", "running")]):
            chance.choice([workspace.fail_job, lambda job_id: workspace.slow_job(job_id, 9)])(chance.choice(active))
        clock.move(chance.choice([0, 0, 1, 7]))
        jobs = workspace.jobs()
        assert listed(workspace, None, 7) == [job.id for job in jobs]
        for status in STATES:
            assert listed(workspace, status, chance.randint(1, 9)) == [job.id for job in jobs if job.status == status]
        counts = Counter(job.status for job in jobs)
        assert {status: count for status, count in workspace.job_counts().items() if count} == counts
        seen |= {job.status for job in jobs}
    assert len(seen) >= 4, "too few states occurred"


def test_list_contains_the_replaced_job(workspace, clock):
    job_id = workspace.start_sync("conn_demo_01").id

    def shown(status: str) -> dict:
        ((job,), _) = workspace.job_page(lambda job, now: True, limit=1, status=status)
        assert job.id == job_id
        return job.model_dump(exclude_unset=True, exclude={"id", "type", "connection_id", "created_at", "status"})

    assert shown("queued") == {}
    clock.move(3)
    started_at = workspace.job(job_id).started_at
    assert shown("running") == {"started_at": started_at}
    workspace.cancel(job_id)
    assert shown("cancelling") == {"started_at": started_at}
    clock.move(3)
    assert shown("cancelled") == {"started_at": started_at}


def test_unknown_state_has_no_jobs(workspace):
    workspace.start_sync("conn_demo_01")
    assert workspace.job_page(lambda job, now: True, limit=1, status="paused") == ([], None)


def test_list_of_a_state_reads_no_other_jobs(workspace, clock):
    workspace.configure(conflict="allowed")
    for _ in range(100):
        workspace.start_sync("conn_demo_01")
    clock.move(100)
    started = [workspace.start_sync("conn_demo_01").id for _ in range(3)]
    looked_at = []
    workspace.job_page(lambda job, now: not looked_at.append(job.id), limit=100, status="queued")
    assert looked_at == started[::-1]
