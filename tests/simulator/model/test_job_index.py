from __future__ import annotations

import random
from collections import Counter

import pytest

from planasonix_provider.simulator.model.simulated_backfills import BackfillRequestBody
from planasonix_provider.simulator.model.workspace import Workspace

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
BODY = BackfillRequestBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


def listed(world: Workspace, status: str | None, limit: int) -> list[str]:
    """Walk a list to its end."""
    ids: list[str] = []
    before = None
    while True:
        page, before = world.job_page(lambda job, now: True, limit=limit, before=before, status=status)
        assert {job.status for job in page} <= ({status} if status else {*STATES})
        ids += [job.id for job in page]
        if before is None:
            return ids


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_job_is_in_the_list_of_its_state(clock, seed):
    chance = random.Random(seed)
    world = Workspace(clock=clock, keep=chance.choice([5, 10_000]))
    world.configure(conflict="allowed")
    seen = set()
    for _ in range(60):
        connection = f"conn_demo_0{chance.randint(1, 3)}"
        running = chance.choice([0, 0, 5, 40])
        happens = chance.randrange(4)
        if happens == 0:
            outcome = chance.choice(["succeeded", "failed"])
            queued = chance.choice([0, 3])
            world.plan(connection, outcome=outcome, queued_seconds=queued, running_seconds=running)
            world.start_sync(connection)
        if happens == 1:
            parallel, after = chance.randint(1, 3), chance.choice([0, 2])
            world.plan_backfill(connection, jobs=4, parallel=parallel, job_seconds=running, jobs_after_cancel=after)
            world.start_backfill(connection, BODY)
        if happens == 2 and (jobs := world.jobs()):
            world.plan(connection, cancelling_seconds=chance.choice([0, 2]))
            world.cancel(chance.choice(jobs).id)
        if happens == 3 and (active := [job.id for job in world.jobs() if job.status in ("queued", "running")]):
            chance.choice([world.fail_job, lambda job_id: world.slow_job(job_id, 9)])(chance.choice(active))
        clock.move(chance.choice([0, 0, 1, 7]))
        jobs = world.jobs()
        assert listed(world, None, 7) == [job.id for job in jobs]
        for status in STATES:
            assert listed(world, status, chance.randint(1, 9)) == [job.id for job in jobs if job.status == status]
        counts = Counter(job.status for job in jobs)
        assert {status: count for status, count in world.job_counts().items() if count} == counts
        seen |= {job.status for job in jobs}
    assert len(seen) >= 4, "or nothing was tried"


def test_a_list_shows_what_became_of_a_job(world, clock):
    job_id = world.start_sync("conn_demo_01").id

    def shown(status: str) -> dict:
        ((job,), _) = world.job_page(lambda job, now: True, limit=1, status=status)
        assert job.id == job_id
        return job.model_dump(exclude_unset=True, exclude={"id", "type", "connection_id", "created_at", "status"})

    assert shown("queued") == {}
    clock.move(3)
    started_at = world.job(job_id).started_at
    assert shown("running") == {"started_at": started_at}
    world.cancel(job_id)
    assert shown("cancelling") == {"started_at": started_at}
    clock.move(3)
    assert shown("cancelled") == {"started_at": started_at}


def test_a_state_that_nobody_knows_has_no_jobs(world):
    world.start_sync("conn_demo_01")
    assert world.job_page(lambda job, now: True, limit=1, status="paused") == ([], None)


def test_who_lists_the_jobs_of_a_state_does_not_go_through_the_others(world, clock):
    world.configure(conflict="allowed")
    for _ in range(100):
        world.start_sync("conn_demo_01")
    clock.move(100)
    started = [world.start_sync("conn_demo_01").id for _ in range(3)]
    looked_at = []
    world.job_page(lambda job, now: not looked_at.append(job.id), limit=100, status="queued")
    assert looked_at == started[::-1]
