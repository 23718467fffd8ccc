from __future__ import annotations

import json

import pytest

from planasonix_provider.api.models import BackfillBody
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody

EVERYTHING = ["job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"]
WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01", "end_at": "2025-03-01"})


@pytest.fixture
def subscribe(workspace):
    def create(*events: str) -> str:
        return workspace.webhooks.create(
            WebhookRequestBody(url="https://example.com", events=list(events or EVERYTHING))
        ).id

    return create


@pytest.fixture
def event_types(workspace):
    """The types of all events that were queued for subscriptions, oldest first."""

    def types() -> list[str]:
        workspace.webhooks.advance()
        return [delivery.event for delivery in reversed(workspace.webhooks.outbox.all())]

    return types


def bodies(workspace) -> list[dict]:
    workspace.webhooks.advance()
    return [json.loads(delivery.event.body) for delivery in workspace.webhooks.outbox.due()]


def test_job_that_succeeds(workspace, clock, subscribe):
    subscribe()
    job_id = workspace.start_sync("conn_demo_01").id
    clock.move(100)
    queued, succeeded = bodies(workspace)
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


def test_each_event_happens_once(workspace, clock, subscribe, event_types):
    subscribe()
    workspace.start_sync("conn_demo_01")
    for _ in range(30):
        clock.move(1)
        event_types()
    assert event_types() == ["job.queued", "job.succeeded"]


def test_job_that_fails_and_job_that_is_cancelled(workspace, clock, subscribe, event_types):
    subscribe()
    workspace.plan("conn_demo_01", outcome="failed")
    workspace.start_sync("conn_demo_01")
    cancelled = workspace.start_sync("conn_demo_02").id
    workspace.cancel(cancelled)
    assert event_types() == ["job.queued", "job.queued"]
    clock.move(30)
    assert event_types() == ["job.queued", "job.queued", "job.cancelled", "job.failed"], "in the order of their times"


def test_job_made_to_fail(workspace, clock, subscribe, event_types):
    subscribe()
    job_id = workspace.start_sync("conn_demo_01").id
    clock.move(5)
    workspace.fail_job(job_id)
    (_, failed) = bodies(workspace)
    assert (failed["type"], failed["job_id"], failed["timestamp"]) == ("job.failed", job_id, "2025-03-27T14:22:15Z")
    clock.move(60)
    assert event_types() == ["job.queued", "job.failed"], "the planned end does not happen"


def test_slowed_job(workspace, clock, subscribe, event_types):
    subscribe()
    job_id = workspace.start_sync("conn_demo_01").id
    workspace.start_sync("conn_demo_02")
    workspace.slow_job(job_id, 5)
    clock.move(22)
    assert event_types() == ["job.queued", "job.queued", "job.succeeded"]
    clock.move(100)
    assert [(body["job_id"], body["timestamp"]) for body in bodies(workspace)[-1:]] == [
        (job_id, "2025-03-27T14:22:37Z")
    ]


def test_failed_job_of_a_backfill_precedes_the_next_wave(workspace, clock, subscribe, event_types):
    subscribe()
    workspace.plan_backfill("conn_demo_01", jobs=2, parallel=1, queued_seconds=0)
    backfill_id = workspace.start_backfill("conn_demo_01", WINDOW).id
    clock.move(5)
    workspace.fail_job(workspace.backfill(backfill_id).job_ids[0])
    clock.move(100)
    assert event_types() == ["job.queued", "job.queued", "job.failed", "job.succeeded"]


def test_backfill_that_completes(workspace, clock, subscribe):
    subscribe("backfill.completed")
    workspace.plan_backfill("conn_demo_01", jobs=5, parallel=4)
    backfill_id = workspace.start_backfill("conn_demo_01", WINDOW).id
    clock.move(41)
    assert bodies(workspace) == []
    clock.move(2)
    (completed,) = bodies(workspace)
    assert completed.pop("id").startswith("evt_")
    assert completed == {
        "type": "backfill.completed",
        "timestamp": "2025-03-27T14:22:52Z",
        "backfill_id": backfill_id,
        "data": {"status": "completed"},
    }


def test_failed_backfill_sends_events_of_its_jobs_only(workspace, clock, subscribe, event_types):
    subscribe()
    workspace.plan_backfill("conn_demo_01", jobs=2, failing_jobs=[1])
    workspace.start_backfill("conn_demo_01", WINDOW)
    clock.move(100)
    assert event_types() == ["job.queued", "job.queued", "job.succeeded", "job.failed"]


def test_earlier_changes_are_not_sent(workspace, clock, subscribe, event_types):
    workspace.start_sync("conn_demo_01")
    clock.move(30)
    workspace.start_sync("conn_demo_01")
    subscribe()
    assert event_types() == []
    clock.move(30)
    assert event_types() == ["job.succeeded"], "jobs that were active send events"


def test_subscriptions_to_different_events(workspace, clock, subscribe):
    first = subscribe("job.queued", "coffee.ready")
    workspace.start_sync("conn_demo_01")
    second = subscribe("job.queued", "job.succeeded")
    clock.move(30)
    workspace.webhooks.advance()
    sent = [(delivery.webhook_id, delivery.event) for delivery in workspace.webhooks.outbox.all()]
    assert sent == [(second, "job.succeeded"), (first, "job.queued")]


def test_no_events_after_the_last_subscription_is_deleted(workspace, clock, subscribe, event_types):
    workspace.webhooks.delete(subscribe())
    workspace.start_sync("conn_demo_01")
    clock.move(30)
    assert event_types() == []
    subscribe()
    assert event_types() == []
