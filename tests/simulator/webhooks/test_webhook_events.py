from __future__ import annotations

import json

import pytest

from planasonix_provider.api.models import BackfillBody
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody

EVERYTHING = ["job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"]
WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01", "end_at": "2025-03-01"})


@pytest.fixture
def subscribe(world):
    def create(*events: str) -> str:
        return world.webhooks.create(
            WebhookRequestBody(url="https://example.com", events=list(events or EVERYTHING))
        ).id

    return create


@pytest.fixture
def told(world):
    """What subscriptions are told of, oldest first."""

    def types() -> list[str]:
        world.webhooks.look()
        return [delivery.event for delivery in reversed(world.webhooks.outbox.all())]

    return types


def bodies(world) -> list[dict]:
    world.webhooks.look()
    return [json.loads(parcel.event.body) for parcel in world.webhooks.outbox.due()]


def test_job_that_succeeds(world, clock, subscribe):
    subscribe()
    job_id = world.start_sync("conn_demo_01").id
    clock.move(100)
    queued, succeeded = bodies(world)
    assert queued.pop("id") != succeeded.pop("id")
    assert queued == {
        "type": "job.queued",
        "timestamp": "2025-03-27T14:22:10Z",
        "job_id": job_id,
        "data": {"status": "queued"},
    }
    assert succeeded == {
        "type": "job.succeeded",
        "timestamp": "2025-03-27T14:22:32Z",
        "job_id": job_id,
        "data": {"status": "succeeded"},
    }


def test_each_event_happens_once(world, clock, subscribe, told):
    subscribe()
    world.start_sync("conn_demo_01")
    for _ in range(30):
        clock.move(1)
        told()
    assert told() == ["job.queued", "job.succeeded"]


def test_job_that_fails_and_job_that_is_cancelled(world, clock, subscribe, told):
    subscribe()
    world.plan("conn_demo_01", outcome="failed")
    world.start_sync("conn_demo_01")
    cancelled = world.start_sync("conn_demo_02").id
    world.cancel(cancelled)
    assert told() == ["job.queued", "job.queued"]
    clock.move(30)
    assert told() == ["job.queued", "job.queued", "job.cancelled", "job.failed"], "in the order of their times"


def test_job_that_is_made_to_fail(world, clock, subscribe, told):
    subscribe()
    job_id = world.start_sync("conn_demo_01").id
    clock.move(5)
    world.fail_job(job_id)
    (_, failed) = bodies(world)
    assert (failed["type"], failed["job_id"], failed["timestamp"]) == ("job.failed", job_id, "2025-03-27T14:22:15Z")
    clock.move(60)
    assert told() == ["job.queued", "job.failed"], "and what was planned does not happen"


def test_job_that_is_let_take_longer(world, clock, subscribe, told):
    subscribe()
    job_id = world.start_sync("conn_demo_01").id
    world.start_sync("conn_demo_02")
    world.slow_job(job_id, 5)
    clock.move(22)
    assert told() == ["job.queued", "job.queued", "job.succeeded"]
    clock.move(100)
    assert [(body["job_id"], body["timestamp"]) for body in bodies(world)[-1:]] == [(job_id, "2025-03-27T14:22:37Z")]


def test_job_of_a_backfill_that_is_made_to_fail_comes_before_the_one_that_it_makes_room_for(
    world, clock, subscribe, told
):
    subscribe()
    world.plan_backfill("conn_demo_01", jobs=2, parallel=1, queued_seconds=0)
    backfill_id = world.start_backfill("conn_demo_01", WINDOW).id
    clock.move(5)
    world.fail_job(world.backfill(backfill_id).job_ids[0])
    clock.move(100)
    assert told() == ["job.queued", "job.queued", "job.failed", "job.succeeded"]


def test_backfill_that_completes(world, clock, subscribe):
    subscribe("backfill.completed")
    world.plan_backfill("conn_demo_01", jobs=5, parallel=4)
    backfill_id = world.start_backfill("conn_demo_01", WINDOW).id
    clock.move(41)
    assert bodies(world) == []
    clock.move(2)
    (completed,) = bodies(world)
    assert completed.pop("id").startswith("evt_")
    assert completed == {
        "type": "backfill.completed",
        "timestamp": "2025-03-27T14:22:52Z",
        "backfill_id": backfill_id,
        "data": {"status": "completed"},
    }


def test_backfill_that_fails_tells_only_of_its_jobs(world, clock, subscribe, told):
    subscribe()
    world.plan_backfill("conn_demo_01", jobs=2, failing_jobs=[1])
    world.start_backfill("conn_demo_01", WINDOW)
    clock.move(100)
    assert told() == ["job.queued", "job.queued", "job.succeeded", "job.failed"]


def test_what_happened_before_a_subscription_is_not_told(world, clock, subscribe, told):
    world.start_sync("conn_demo_01")
    clock.move(30)
    world.start_sync("conn_demo_01")
    subscribe()
    assert told() == []
    clock.move(30)
    assert told() == ["job.succeeded"], "what was active is"


def test_subscriptions_to_different_events(world, clock, subscribe):
    first = subscribe("job.queued", "coffee.ready")
    world.start_sync("conn_demo_01")
    second = subscribe("job.queued", "job.succeeded")
    clock.move(30)
    world.webhooks.look()
    sent = [(delivery.webhook_id, delivery.event) for delivery in world.webhooks.outbox.all()]
    assert sent == [(second, "job.succeeded"), (first, "job.queued")]


def test_nothing_is_noticed_after_the_last_subscription_is_deleted(world, clock, subscribe, told):
    world.webhooks.delete(subscribe())
    world.start_sync("conn_demo_01")
    clock.move(30)
    assert told() == []
    subscribe()
    assert told() == []
