from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

import pytest

from planasonix_provider.api.signature import InvalidSignatureError
from planasonix_provider.simulator import Simulator
from tests.simulator.receiver import Receiver, until

SECRET = "whsec_0123456789abcdef"
EVERYTHING = ["job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def planasonix(planasonix: Simulator) -> Iterator[Simulator]:
    """A simulator that tries deliveries again 100 times as fast, and whose jobs are over at once."""
    planasonix.world.configure(speed=100)
    for number in range(1, 5):
        planasonix.plan(f"conn_demo_0{number}", queued_seconds=0, running_seconds=0)
    yield planasonix
    planasonix.reset()


def start(planasonix: Simulator, number: int = 1) -> str:
    return planasonix.world.start_sync(f"conn_demo_0{number}").id


def statuses(planasonix: Simulator) -> list[str]:
    return [delivery.status for delivery in planasonix.deliveries()]


def couriers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "planasonix-webhooks"]


def test_events_come_signed(planasonix, client, clock, receiver):
    webhook_id = planasonix.subscribe(receiver.url, EVERYTHING, secret=SECRET).id
    job_id = start(planasonix)
    queued, succeeded = receiver.wait(2)
    for received in (queued, succeeded):
        received.verify(SECRET, clock)
        assert received.path == "/hook?token=1"
        assert received.headers["content-type"] == "application/json"
    with pytest.raises(InvalidSignatureError):
        queued.verify(SECRET[::-1], clock)
    assert receiver.types == ["job.queued", "job.succeeded"]
    assert succeeded.event == {
        "id": succeeded.event["id"],
        "type": "job.succeeded",
        "timestamp": "2025-03-27T14:22:10Z",
        "job_id": job_id,
        "data": {"status": "succeeded"},
    }
    until(lambda: statuses(planasonix) == ["delivered", "delivered"])
    deliveries = client.get(f"/webhooks/{webhook_id}/deliveries").json()["data"]
    assert deliveries[0].pop("id").startswith("whd_")
    assert deliveries[0] == {
        "event": "job.succeeded",
        "status": "delivered",
        "http_status": 200,
        "attempt": 1,
        "delivered_at": "2025-03-27T14:22:10Z",
    }
    webhook = client.get(f"/webhooks/{webhook_id}").json()["data"]
    assert (webhook["last_delivery_at"], webhook["failure_count_24h"]) == ("2025-03-27T14:22:10Z", 0)
    assert [delivery.event_id for delivery in planasonix.deliveries()] == [succeeded.event["id"], queued.event["id"]]


def test_whatever_the_clock_shows_is_noticed(planasonix, clock, receiver):
    planasonix.subscribe(receiver.url, ["job.failed"])
    planasonix.plan("conn_demo_05", outcome="failed", queued_seconds=0, running_seconds=1000)
    start(planasonix, 5)
    clock.move(10)
    receiver.wait(1)
    assert receiver.types == ["job.failed"]


def test_test_event_comes_although_it_was_not_subscribed_to(planasonix, client, clock, receiver):
    webhook_id = planasonix.subscribe(receiver.url, ["job.queued"], secret=SECRET).id
    told = client.post(f"/webhooks/{webhook_id}/test", json={"event": "backfill.completed"}).json()["data"]
    (received,) = receiver.wait(1)
    received.verify(SECRET, clock)
    assert received.event["backfill_id"].startswith("bf_")
    assert received.event["data"] == {"status": "completed"}
    assert [delivery.id for delivery in planasonix.deliveries()] == [told["delivery_id"]]


@pytest.mark.parametrize("answer", [500, 404, 301, 0])
def test_tried_again(planasonix, receiver, answer):
    receiver.statuses = [answer, answer]
    planasonix.subscribe(receiver.url, ["job.succeeded"])
    start(planasonix)
    receiver.wait(3)
    until(lambda: statuses(planasonix) == ["delivered"])
    (delivery,) = planasonix.deliveries()
    assert (delivery.attempt, delivery.http_status) == (3, 200)
    assert delivery.last_error == (f"the receiver answered {answer}" if answer else delivery.last_error)
    assert delivery.last_error
    assert len({received.body for received in receiver.received}) == 1
    assert {received.path for received in receiver.received} == {"/hook?token=1"}, "no redirect is followed"


def test_pauses_double(planasonix, receiver):
    planasonix.world.configure(speed=10)
    receiver.statuses = [503] * 3
    planasonix.subscribe(receiver.url, ["job.succeeded"])
    start(planasonix)
    pauses = [later.at - earlier.at for earlier, later in pairwise(receiver.wait(4))]
    assert [pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08), strict=True)] == [True] * 3


@pytest.mark.parametrize(("changes", "attempts"), [({}, 5), ({"webhook_attempts": 3}, 3)])
def test_given_up(planasonix, client, receiver, changes, attempts):
    planasonix.world.configure(**changes)
    receiver.statuses = [503] * attempts
    webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"]).id
    start(planasonix)
    until(lambda: statuses(planasonix) == ["failed"])
    (delivery,) = client.get(f"/webhooks/{webhook_id}/deliveries").json()["data"]
    assert delivery == {
        "id": delivery["id"],
        "event": "job.succeeded",
        "status": "failed",
        "http_status": 503,
        "attempt": attempts,
        "last_error": "the receiver answered 503",
        "delivered_at": None,
    }
    assert client.get(f"/webhooks/{webhook_id}").json()["data"]["failure_count_24h"] == 1
    start(planasonix, 2)
    until(lambda: statuses(planasonix) == ["delivered", "failed"])
    assert len(receiver.received) == attempts + 1


def test_nobody_listens(planasonix, client, clock):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes the port, and it refuses
        port = closed.getsockname()[1]
        webhook_id = planasonix.subscribe(f"http://127.0.0.1:{port}", ["job.succeeded"]).id
        start(planasonix)
        until(lambda: statuses(planasonix) == ["failed"])
    (delivery,) = planasonix.deliveries()
    assert (delivery.http_status, delivery.last_error) == (None, "connection refused")
    clock.move(86_401)
    assert client.get(f"/webhooks/{webhook_id}").json()["data"]["failure_count_24h"] == 0


def test_receiver_without_tls(planasonix, receiver):
    planasonix.subscribe(receiver.url.replace("http:", "https:"), ["job.succeeded"])
    start(planasonix)
    until(lambda: statuses(planasonix) == ["failed"])
    assert planasonix.deliveries()[0].last_error
    assert receiver.received == []


def test_rotated_secret_signs_further_attempts_too(planasonix, client, clock, receiver):
    receiver.statuses = [503]
    receiver.may_answer.clear()
    webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"], secret=SECRET).id
    start(planasonix)
    receiver.wait(1)
    rotated = client.post(f"/webhooks/{webhook_id}/rotate-secret").json()["data"]["signing_secret"]
    receiver.may_answer.set()
    first, second = receiver.wait(2)
    first.verify(SECRET, clock)
    second.verify(rotated, clock)
    with pytest.raises(InvalidSignatureError):
        second.verify(SECRET, clock)


def test_disabled_is_silent(planasonix, client, receiver):
    with Receiver() as other:
        webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"]).id
        planasonix.subscribe(other.url, ["job.succeeded"])
        client.put(f"/webhooks/{webhook_id}", json={"enabled": False})
        start(planasonix)
        other.wait(1)
        client.put(f"/webhooks/{webhook_id}", json={"enabled": True})
        job_id = start(planasonix, 2)
        other.wait(2)
    assert [received.event["job_id"] for received in receiver.wait(1)] == [job_id]


def test_url_can_change(planasonix, client, receiver):
    webhook_id = planasonix.subscribe("http://127.0.0.1:9/", ["job.succeeded"]).id
    client.put(f"/webhooks/{webhook_id}", json={"url": receiver.url})
    start(planasonix)
    receiver.wait(1)


def test_deleted_gets_nothing_more(planasonix, client, receiver, mocker):
    mocker.patch("planasonix_provider.simulator.deliveries.FIRST_PAUSE", 300)
    receiver.statuses = [503, 503]
    with Receiver() as other:
        webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"]).id
        planasonix.subscribe(other.url, ["job.succeeded"])
        planasonix.world.configure(speed=1)
        start(planasonix)
        until(lambda: [delivery.attempt for delivery in planasonix.deliveries()] == [1, 1])
        client.delete(f"/webhooks/{webhook_id}")
        # The pause is over, and twice comes what belongs to a round of its own: all that was due has been sent then.
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 1_000)
        mocker.patch("planasonix_provider.simulator.deliveries.time", later)
        for number in (2, 3):
            start(planasonix, number)
            other.wait(number)
    assert len(receiver.received) == 1
    (gone,) = (delivery for delivery in planasonix.deliveries() if delivery.webhook_id == webhook_id)
    assert (gone.status, gone.last_error) == ("failed", "the subscription was deleted")


def test_twice(planasonix, client, receiver):
    planasonix.world.configure(webhook_delivery="twice")
    planasonix.subscribe(receiver.url, EVERYTHING)
    start(planasonix)
    receiver.wait(4)
    assert receiver.types == ["job.queued", "job.queued", "job.succeeded", "job.succeeded"]
    assert len({received.event["id"] for received in receiver.received}) == 2
    assert len({delivery.id for delivery in planasonix.deliveries()}) == 4


def test_shuffled(planasonix, receiver, mocker):
    mocker.patch("planasonix_provider.simulator.deliveries.LONGEST_HOLD", 300)
    planasonix.world.configure(webhook_delivery="shuffled", speed=1)
    planasonix.plan("conn_demo_06", queued_seconds=0, running_seconds=0, times=2)
    planasonix.subscribe(receiver.url, EVERYTHING)
    for came in (2, 4):
        start(planasonix, 6)
        receiver.wait(came)
    assert receiver.types == ["job.succeeded", "job.queued"] * 2
    happened = [delivery.event_id for delivery in reversed(planasonix.deliveries())]
    assert [received.event["id"] for received in receiver.received] == [happened[i] for i in (1, 0, 3, 2)]


def test_shuffled_holds_nothing_back_for_ever(planasonix, receiver):
    planasonix.world.configure(webhook_delivery="shuffled")
    planasonix.subscribe(receiver.url, ["job.succeeded"])
    start(planasonix)
    receiver.wait(1)


def test_state_tells_subscriptions_and_deliveries(planasonix, client, receiver):
    webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"], secret=SECRET).id
    start(planasonix)
    until(lambda: statuses(planasonix) == ["delivered"])
    answer = client.get(f"{planasonix.url}/_simulator/state")
    state = answer.json()["data"]
    assert [(webhook["id"], webhook["url"]) for webhook in state["webhooks"]] == [(webhook_id, receiver.url)]
    (delivery,) = state["deliveries"]
    assert (delivery["webhook_id"], delivery["event"], delivery["status"]) == (webhook_id, "job.succeeded", "delivered")
    assert SECRET not in answer.text
    planasonix.reset()
    assert (planasonix.deliveries(), planasonix.world.webhooks.all()) == ([], [])


def test_thread_only_where_somebody_subscribed(planasonix, client, receiver):
    until(lambda: not couriers())
    start(planasonix)
    assert couriers() == []
    webhook_id = planasonix.subscribe(receiver.url, ["job.succeeded"]).id
    planasonix.subscribe(receiver.url, ["job.succeeded"])
    (courier,) = couriers()
    client.delete(f"/webhooks/{webhook_id}")
    start(planasonix, 2)
    receiver.wait(1)
    planasonix.reset()
    until(lambda: not courier.is_alive())
    planasonix.subscribe(receiver.url, ["job.queued"])
    start(planasonix)
    receiver.wait(2)


def test_delivers_only_while_it_runs(receiver, mocker):
    mocker.patch("planasonix_provider.simulator.courier.PATIENCE", 120)
    planasonix = Simulator(queued_seconds=0, job_seconds=0)
    planasonix.subscribe(receiver.url, ["job.succeeded"])
    until(lambda: not couriers())
    start(planasonix)
    planasonix.world.webhooks.look()
    assert (couriers(), receiver.received) == ([], [])
    receiver.may_answer.clear()
    with planasonix:
        receiver.wait(1)
        begin = time.monotonic()
        planasonix.stop()
        assert time.monotonic() - begin < 60, "a receiver that hangs keeps nobody waiting"
    assert couriers() == []
    assert statuses(planasonix) == ["pending"]
    receiver.may_answer.set()
    with planasonix:
        until(lambda: statuses(planasonix) == ["delivered"])
    assert len({received.event["id"] for received in receiver.received}) == 1
