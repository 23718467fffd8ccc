from __future__ import annotations

import gc

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.plans import Plan
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody
from planasonix_provider.simulator.workspace import Workspace

CONNECTION = "conn_demo_01"
KEEP = 10
BODY = BackfillRequestBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


@pytest.fixture
def workspace(clock) -> Workspace:
    """A workspace that keeps ten ended jobs. Each job is queued for 2 s and runs for 20 s."""
    workspace = Workspace(clock=clock, keep=KEEP)
    workspace.configure(conflict="allowed")
    return workspace


@pytest.fixture
def run_to_end(workspace, clock):
    """A function that starts jobs one after the other, and waits until all are over."""

    def run(count: int, **start) -> list[str]:
        ids = []
        for number in range(count):
            more = {name: f"{value}-{number}" for name, value in start.items()}
            ids.append(workspace.start_sync(CONNECTION, **more).id)
            clock.move(1)
        clock.move(30)
        return ids

    return run


def is_kept(workspace: Workspace, job_id: str) -> bool:
    try:
        workspace.job(job_id)
    except ApiError:
        return False
    return True


def test_newest_ended_jobs_are_kept(workspace, run_to_end):
    ids = run_to_end(50)
    assert [job.id for job in workspace.jobs()] == ids[: -KEEP - 1 : -1]
    assert [is_kept(workspace, job_id) for job_id in ids] == [False] * 40 + [True] * KEEP


@pytest.mark.slow("collects garbage")
@pytest.mark.parametrize("rounds", [1, 4])
def test_removed_jobs_are_garbage_collected(workspace, clock, run_to_end, rounds):
    workspace.add_connection("conn_counted")
    workspace.plan_backfill("conn_counted", times=None, jobs=7)
    for _ in range(rounds):
        run_to_end(20, idempotency_key="k")
        for number in range(20):
            cancelled = workspace.start_sync("conn_counted", idempotency_key=f"c{number}").id
            workspace.cancel(cancelled)
            workspace.start_backfill("conn_counted", BODY, idempotency_key=f"b{number}")
            workspace.job_page(lambda job, now: True, limit=100)
            clock.move(200)
    workspace.jobs()
    gc.collect()
    # Not isinstance: some objects are proxies, which would import the objects that they stand for.
    alive = [one for one in gc.get_objects() if type(one) is SimulatedJob and one.connection_id == "conn_counted"]
    assert len(alive) == 7 + 1, "the jobs of the last backfill, and the last sync"


def test_active_jobs_are_always_kept(workspace, clock, run_to_end):
    workspace.plan(CONNECTION, running_seconds=86_400)
    old = workspace.start_sync(CONNECTION).id
    run_to_end(50)
    assert workspace.job(old).status == "running"
    assert len(workspace.jobs()) == KEEP + 1
    workspace.cancel(old)
    clock.move(5)
    assert [job.status for job in workspace.jobs() if job.id == old] == ["cancelled"], "the one that ended last"
    assert len(workspace.jobs()) == KEEP


def test_removal_follows_the_order_of_ends(workspace, clock, run_to_end):
    workspace.plan(CONNECTION, running_seconds=60)
    old = workspace.start_sync(CONNECTION).id
    first, *_ = run_to_end(5)
    clock.move(60)
    assert workspace.job(old).status == "succeeded"
    run_to_end(KEEP - 1)
    assert (is_kept(workspace, old), is_kept(workspace, first)) == (True, False)
    run_to_end(1)
    assert not is_kept(workspace, old)


def test_removal_follows_the_order_of_ends_without_polls(workspace, clock):
    workspace.plan(CONNECTION, running_seconds=300)
    last = workspace.start_sync(CONNECTION).id
    workspace.plan_backfill(CONNECTION, jobs=2, job_seconds=50)
    second = workspace.start_backfill(CONNECTION, BODY).id
    workspace.plan(CONNECTION, times=None, running_seconds=100)
    syncs = [workspace.start_sync(CONNECTION).id for _ in range(KEEP - 1)]
    workspace.plan(CONNECTION, times=1, running_seconds=20)
    first = workspace.start_sync(CONNECTION).id
    clock.move(1_000)
    assert {job.id for job in workspace.jobs()} == {last, *syncs}
    assert not is_kept(workspace, first)
    with pytest.raises(ApiError):
        workspace.backfill(second)


def test_jobs_share_the_default_plan():
    plan = Plan()
    assert plan.faster(1) is plan
    assert plan.faster(2).running_seconds == plan.running_seconds / 2


def test_cursor_survives_removal_of_older_jobs(workspace, run_to_end):
    ids = run_to_end(KEEP)
    page, before = workspace.job_page(lambda job, now: True, limit=4)
    assert [job.id for job in page] == ids[:-5:-1]
    run_to_end(3)
    page, before = workspace.job_page(lambda job, now: True, limit=2, before=before)
    assert [job.id for job in page] == ids[-5:-7:-1]
    page, before = workspace.job_page(lambda job, now: True, limit=2, before=before)
    assert ([job.id for job in page], before) == ([ids[3]], None), "the three older jobs are removed"


def test_cursor_survives_removal_of_its_own_job(clock):
    with Simulator(clock=clock, keep=3, queued_seconds=0, job_seconds=1) as simulator:
        simulator.workspace.configure(conflict="allowed")

        def page(**query: object) -> tuple[list[str], str | None]:
            url, headers = f"{simulator.url}/api/v1/jobs", {"Authorization": f"Bearer {simulator.api_key}"}
            answer = httpx.get(url, params={"status": "running", "limit": 2, **query}, headers=headers, timeout=60)
            body = answer.json()
            return [job["id"] for job in body["data"]], body["meta"]["page"]["cursor"]

        simulator.plan(CONNECTION, times=2, running_seconds=1000)
        long = [simulator.workspace.start_sync(CONNECTION).id for _ in range(2)]
        short = [simulator.workspace.start_sync(CONNECTION).id for _ in range(2)]
        ids, cursor = page()
        assert ids == short[::-1]
        clock.move(2)
        for _ in range(5):
            simulator.workspace.start_sync(CONNECTION)
        clock.move(2)
        assert page(cursor=cursor) == (long[::-1], None)
        assert {*long, *short} & {job.id for job in simulator.jobs()} == {*long}


class TestBackfills:
    def test_are_removed_with_all_of_their_jobs(self, workspace, clock, run_to_end):
        workspace.plan_backfill(CONNECTION, jobs=4)
        backfill_id = workspace.start_backfill(CONNECTION, BODY).id
        clock.move(100)
        job_ids = workspace.backfill(backfill_id).job_ids
        run_to_end(KEEP - 4)
        assert workspace.backfill(backfill_id).status == "completed"
        assert all(is_kept(workspace, job_id) for job_id in job_ids)
        run_to_end(1)
        assert workspace.backfills() == []
        assert not any(is_kept(workspace, job_id) for job_id in job_ids)
        assert len(workspace.jobs()) == KEEP - 4 + 1

    def test_keep_their_jobs_as_long_as_they_run(self, workspace, clock, run_to_end):
        workspace.plan_backfill(CONNECTION, jobs=3, parallel=1, job_seconds=100)
        backfill_id = workspace.start_backfill(CONNECTION, BODY).id
        clock.move(250)
        run_to_end(15)
        assert workspace.backfill(backfill_id).status == "running"
        assert [workspace.job(job_id).status for job_id in workspace.backfill(backfill_id).job_ids] == [
            "succeeded",
            "succeeded",
            "running",
        ]

    def test_newest_is_kept_regardless_of_its_jobs(self, workspace, clock, run_to_end):
        (sync,) = run_to_end(1)
        workspace.plan_backfill(CONNECTION, jobs=50, parallel=50)
        backfill_id = workspace.start_backfill(CONNECTION, BODY).id
        clock.move(100)
        assert len(workspace.backfill(backfill_id).job_ids) == 50
        assert not is_kept(workspace, sync)
        run_to_end(1)
        assert (workspace.backfills(), len(workspace.jobs())) == ([], 1)

    def test_cancelled_ones_are_removed_too(self, workspace, clock, run_to_end):
        workspace.plan_backfill(CONNECTION, jobs=4, jobs_after_cancel=2, parallel=1)
        backfill_id = workspace.start_backfill(CONNECTION, BODY).id
        clock.move(5)
        workspace.cancel(workspace.backfill(backfill_id).job_ids[0])
        clock.move(100)
        assert (workspace.backfill(backfill_id).status, len(workspace.jobs())) == ("cancelled", 3)
        run_to_end(KEEP)
        assert (workspace.backfills(), len(workspace.jobs())) == ([], KEEP)


def test_idempotency_key_is_new_after_removal_of_its_job(workspace, run_to_end):
    ids = run_to_end(KEEP + 1, idempotency_key="key")
    assert workspace.start_sync(CONNECTION, idempotency_key="key-1").id == ids[1]
    assert workspace.start_sync(CONNECTION, idempotency_key="key-0").id not in ids


def test_finished_deliveries_are_limited_too(workspace, run_to_end):
    outbox = workspace.webhooks.outbox
    workspace.configure(webhook_attempts=1)
    webhook = workspace.webhooks.create(WebhookRequestBody(url="https://example.com", events=["job.succeeded"]))
    run_to_end(50)
    workspace.webhooks.advance()
    delivered, *failed = outbox.due()
    assert len(failed) == 49, "pending deliveries are kept, also those of removed jobs"
    outbox.record_attempt(delivered, 204)
    for delivery in failed:
        outbox.record_attempt(delivery, 500)
    assert [delivery.id for delivery in outbox.all()] == [delivery.id for delivery in failed[: -KEEP - 1 : -1]]
    shown = workspace.webhooks.get(webhook.id)
    assert (shown.failure_count_24h, shown.last_delivery_at) == (KEEP, delivered.finished_at)


def test_events_are_sent_for_jobs_that_are_removed_at_once(clock):
    workspace = Workspace(clock=clock, keep=1, default_plan=Plan(queued_seconds=0, running_seconds=0))
    workspace.webhooks.create(WebhookRequestBody(url="https://example.com", events=["job.succeeded"]))
    ids = [workspace.start_sync(f"conn_demo_0{number}").id for number in range(1, 6)]
    workspace.webhooks.advance()
    assert [delivery.event.subject_id for delivery in workspace.webhooks.outbox.due()] == ids
    assert [job.id for job in workspace.jobs()] == ids[-1:]


def test_ended_job_stays_ended_if_the_clock_is_set_back(workspace, clock, run_to_end):
    (job_id,) = run_to_end(1)
    assert workspace.job(job_id).status == "succeeded"
    clock.move(-10)
    assert workspace.cancel(job_id).cancel_requested_at is None
    clock.move(10)
    run_to_end(KEEP)
    assert len(workspace.jobs()) == KEEP


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_must_be_positive(keep):
    with pytest.raises(ValueError, match=f"keep: got {keep}, allowed is a number from 1"):
        Workspace(keep=keep)
