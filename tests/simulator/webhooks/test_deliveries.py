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
from tests.support.webhook_target import Receiver, until

SECRET = "whsec_0123456789abcdef"
EVERYTHING = ["job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def simulator(simulator: Simulator) -> Iterator[Simulator]:
    """A simulator that tries deliveries again 100 times as fast, and whose jobs are over at once."""
    simulator.workspace.configure(speed=100)
    for number in range(1, 5):
        simulator.plan(f"conn_demo_0{number}", queued_seconds=0, running_seconds=0)
    yield simulator
    simulator.reset()


def start(simulator: Simulator, number: int = 1) -> str:
    return simulator.workspace.start_sync(f"conn_demo_0{number}").id


def statuses(simulator: Simulator) -> list[str]:
    return [delivery.status for delivery in simulator.deliveries()]


def sender_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "planasonix-webhooks"]


def test_events_come_signed(simulator, client, clock, receiver):
    webhook_id = simulator.subscribe(receiver.url, EVERYTHING, secret=SECRET).id
    job_id = start(simulator)
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
    until(lambda: statuses(simulator) == ["delivered", "delivered"])
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
    assert [delivery.event_id for delivery in simulator.deliveries()] == [succeeded.event["id"], queued.event["id"]]


def test_events_follow_the_clock(simulator, clock, receiver):
    simulator.subscribe(receiver.url, ["job.failed"])
    simulator.plan("conn_demo_05", outcome="failed", queued_seconds=0, running_seconds=1000)
    start(simulator, 5)
    clock.move(10)
    receiver.wait(1)
    assert receiver.types == ["job.failed"]


def test_test_event_needs_no_subscription_to_its_type(simulator, client, clock, receiver):
    webhook_id = simulator.subscribe(receiver.url, ["job.queued"], secret=SECRET).id
    queued = client.post(f"/webhooks/{webhook_id}/test", json={"event": "backfill.completed"}).json()["data"]
    (received,) = receiver.wait(1)
    received.verify(SECRET, clock)
    assert received.event["backfill_id"].startswith("bf_")
    assert received.event["data"] == {"status": "completed"}
    assert [delivery.id for delivery in simulator.deliveries()] == [queued["delivery_id"]]


@pytest.mark.parametrize("answer", [500, 404, 301, 0])
def test_retry(simulator, receiver, answer):
    receiver.statuses = [answer, answer]
    simulator.subscribe(receiver.url, ["job.succeeded"])
    start(simulator)
    receiver.wait(3)
    until(lambda: statuses(simulator) == ["delivered"])
    (delivery,) = simulator.deliveries()
    assert (delivery.attempt, delivery.http_status) == (3, 200)
    assert delivery.last_error == (f"the receiver answered {answer}" if answer else delivery.last_error)
    assert delivery.last_error
    assert len({received.body for received in receiver.received}) == 1
    assert {received.path for received in receiver.received} == {"/hook?token=1"}, "no redirect is followed"


def test_pauses_double(simulator, receiver):
    simulator.workspace.configure(speed=10)
    receiver.statuses = [503] * 3
    simulator.subscribe(receiver.url, ["job.succeeded"])
    start(simulator)
    pauses = [later.at - earlier.at for earlier, later in pairwise(receiver.wait(4))]
    assert [pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08), strict=True)] == [True] * 3


@pytest.mark.parametrize(("changes", "attempts"), [({}, 5), ({"webhook_attempts": 3}, 3)])
def test_fails_after_the_last_attempt(simulator, client, receiver, changes, attempts):
    simulator.workspace.configure(**changes)
    receiver.statuses = [503] * attempts
    webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"]).id
    start(simulator)
    until(lambda: statuses(simulator) == ["failed"])
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
    start(simulator, 2)
    until(lambda: statuses(simulator) == ["delivered", "failed"])
    assert len(receiver.received) == attempts + 1


def test_receiver_is_down(simulator, client, clock):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening, so it refuses connections
        port = closed.getsockname()[1]
        webhook_id = simulator.subscribe(f"http://127.0.0.1:{port}", ["job.succeeded"]).id
        start(simulator)
        until(lambda: statuses(simulator) == ["failed"])
    (delivery,) = simulator.deliveries()
    assert (delivery.http_status, delivery.last_error) == (None, "connection refused")
    clock.move(86_401)
    assert client.get(f"/webhooks/{webhook_id}").json()["data"]["failure_count_24h"] == 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of host names, by lookup; the last address is used for all further lookups."""
    names: dict[str, list[str]] = {}
    resolve, create_connection = socket.getaddrinfo, socket.create_connection

    def getaddrinfo(host, *arguments, **options):
        if host in names:
            addresses = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
            return [found for address in addresses.split() for found in resolve(address, *arguments, **options)]
        return resolve(host, *arguments, **options)

    def connect(address, *arguments, **options):
        assert address[0].startswith("127."), "no test connects to another machine"
        return create_connection(address, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", connect)
    return names


@pytest.mark.parametrize(
    "addresses", ["10.1.2.3", "169.254.169.254", "0.0.0.0", "127.0.0.1 10.1.2.3", "::ffff:10.1.2.3"]
)
def test_host_name_of_another_machine_is_rejected(simulator, names, addresses):
    names["hooks.example"] = [addresses]
    simulator.subscribe("https://hooks.example/", ["job.succeeded"])
    start(simulator)
    until(lambda: statuses(simulator) == ["failed"])
    (delivery,) = simulator.deliveries()
    assert delivery.last_error == (
        "webhooks are delivered to this machine only; to deliver to hooks.example, start the simulator with "
        "--webhook-host hooks.example"
    )


@pytest.mark.usefixtures("names")
def test_address_of_another_machine_is_rejected(simulator):
    simulator.subscribe("https://10.1.2.3/", ["job.succeeded"])
    start(simulator)
    until(lambda: statuses(simulator) == ["failed"])
    assert "--webhook-host 10.1.2.3" in simulator.deliveries()[0].last_error


def test_host_name_is_resolved_once(simulator, receiver, names):
    names["localhost"] = ["127.0.0.1", "10.1.2.3"]
    simulator.subscribe(receiver.url.replace("127.0.0.1", "localhost"), ["job.succeeded"])
    start(simulator)
    (received,) = receiver.wait(1)
    assert received.headers["host"] == receiver.url.split("/")[2].replace("127.0.0.1", "localhost")


def test_each_address_of_a_name_is_tried(simulator, receiver, names):
    names["localhost"] = ["127.0.0.2 127.0.0.1"]
    simulator.subscribe(receiver.url.replace("127.0.0.1", "localhost"), ["job.succeeded"])
    start(simulator)
    receiver.wait(1)
    until(lambda: statuses(simulator) == ["delivered"])
    assert [delivery.attempt for delivery in simulator.deliveries()] == [1]


@pytest.mark.parametrize("hosts", [["hooks.example"], ["Hooks.Example."], ["*"]])
def test_configured_host_is_allowed(clock, names, hosts):
    names["hooks.example"] = ["127.0.0.1 ::ffff:10.1.2.3"]
    with socket.create_server(("127.0.0.1", 0)) as server, Simulator(clock=clock, webhook_hosts=hosts) as simulator:
        simulator.workspace.configure(webhook_attempts=1)
        simulator.subscribe(f"https://hooks.example:{server.getsockname()[1]}/", ["job.queued"])
        start(simulator)
        line, _ = server.accept()
        with line:
            hello = line.recv(4096)
    assert b"hooks.example" in hello, "TLS names the host, not its address"


def test_receiver_without_tls(simulator, receiver):
    simulator.subscribe(receiver.url.replace("http:", "https:"), ["job.succeeded"])
    start(simulator)
    until(lambda: statuses(simulator) == ["failed"])
    assert simulator.deliveries()[0].last_error
    assert receiver.received == []


def test_rotated_secret_signs_retries(simulator, client, clock, receiver):
    receiver.statuses = [503]
    receiver.may_answer.clear()
    webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"], secret=SECRET).id
    start(simulator)
    receiver.wait(1)
    rotated = client.post(f"/webhooks/{webhook_id}/rotate-secret").json()["data"]["signing_secret"]
    receiver.may_answer.set()
    first, second = receiver.wait(2)
    first.verify(SECRET, clock)
    second.verify(rotated, clock)
    with pytest.raises(InvalidSignatureError):
        second.verify(SECRET, clock)


def test_disabled_subscription_gets_nothing(simulator, client, receiver):
    with Receiver() as other:
        webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"]).id
        simulator.subscribe(other.url, ["job.succeeded"])
        client.put(f"/webhooks/{webhook_id}", json={"enabled": False})
        start(simulator)
        other.wait(1)
        client.put(f"/webhooks/{webhook_id}", json={"enabled": True})
        job_id = start(simulator, 2)
        other.wait(2)
    assert [received.event["job_id"] for received in receiver.wait(1)] == [job_id]


def test_url_can_change(simulator, client, receiver):
    webhook_id = simulator.subscribe("http://127.0.0.1:9/", ["job.succeeded"]).id
    client.put(f"/webhooks/{webhook_id}", json={"url": receiver.url})
    start(simulator)
    receiver.wait(1)


def test_deleted_subscription_gets_nothing(simulator, client, receiver, mocker):
    mocker.patch("planasonix_provider.simulator.webhooks.deliveries.FIRST_PAUSE", 300)
    receiver.statuses = [503, 503]
    with Receiver() as other:
        webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"]).id
        simulator.subscribe(other.url, ["job.succeeded"])
        simulator.workspace.configure(speed=1)
        start(simulator)
        until(lambda: [delivery.attempt for delivery in simulator.deliveries()] == [1, 1])
        client.delete(f"/webhooks/{webhook_id}")
        # After the pause, two more events arrive at the other receiver: everything that was due has been sent by then.
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 1_000)
        mocker.patch("planasonix_provider.simulator.webhooks.deliveries.time", later)
        for number in (2, 3):
            start(simulator, number)
            other.wait(number)
    assert len(receiver.received) == 1
    (gone,) = (delivery for delivery in simulator.deliveries() if delivery.webhook_id == webhook_id)
    assert (gone.status, gone.last_error) == ("failed", "the subscription was deleted")


def test_twice(simulator, client, receiver):
    simulator.workspace.configure(webhook_delivery="twice")
    simulator.subscribe(receiver.url, EVERYTHING)
    start(simulator)
    receiver.wait(4)
    assert receiver.types == ["job.queued", "job.queued", "job.succeeded", "job.succeeded"]
    assert len({received.event["id"] for received in receiver.received}) == 2
    assert len({delivery.id for delivery in simulator.deliveries()}) == 4


def test_shuffled(simulator, receiver, mocker):
    mocker.patch("planasonix_provider.simulator.webhooks.deliveries.MAX_HOLD", 300)
    simulator.workspace.configure(webhook_delivery="shuffled", speed=1)
    simulator.plan("conn_demo_06", queued_seconds=0, running_seconds=0, times=2)
    simulator.subscribe(receiver.url, EVERYTHING)
    for came in (2, 4):
        start(simulator, 6)
        receiver.wait(came)
    assert receiver.types == ["job.succeeded", "job.queued"] * 2
    happened = [delivery.event_id for delivery in reversed(simulator.deliveries())]
    assert [received.event["id"] for received in receiver.received] == [happened[i] for i in (1, 0, 3, 2)]


def test_shuffled_sends_the_last_event(simulator, receiver):
    simulator.workspace.configure(webhook_delivery="shuffled")
    simulator.subscribe(receiver.url, ["job.succeeded"])
    start(simulator)
    receiver.wait(1)


def test_state_has_subscriptions_and_deliveries(simulator, client, receiver):
    webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"], secret=SECRET).id
    start(simulator)
    until(lambda: statuses(simulator) == ["delivered"])
    answer = client.get(f"{simulator.url}/_simulator/state")
    state = answer.json()["data"]
    assert [(webhook["id"], webhook["url"]) for webhook in state["webhooks"]] == [(webhook_id, receiver.url)]
    (delivery,) = state["deliveries"]
    assert (delivery["webhook_id"], delivery["event"], delivery["status"]) == (webhook_id, "job.succeeded", "delivered")
    assert SECRET not in answer.text
    simulator.reset()
    assert (simulator.deliveries(), simulator.workspace.webhooks.all()) == ([], [])


def test_thread_runs_only_with_subscriptions(simulator, client, receiver):
    until(lambda: not sender_threads())
    start(simulator)
    assert sender_threads() == []
    webhook_id = simulator.subscribe(receiver.url, ["job.succeeded"]).id
    simulator.subscribe(receiver.url, ["job.succeeded"])
    (thread,) = sender_threads()
    client.delete(f"/webhooks/{webhook_id}")
    start(simulator, 2)
    receiver.wait(1)
    simulator.reset()
    until(lambda: not thread.is_alive())
    simulator.subscribe(receiver.url, ["job.queued"])
    start(simulator)
    receiver.wait(2)


def test_delivers_only_while_started(receiver, mocker):
    mocker.patch("planasonix_provider.simulator.webhooks.webhook_sender.SEND_TIMEOUT", 120)
    simulator = Simulator(queued_seconds=0, job_seconds=0)
    simulator.subscribe(receiver.url, ["job.succeeded"])
    until(lambda: not sender_threads())
    start(simulator)
    simulator.workspace.webhooks.advance()
    assert (sender_threads(), receiver.received) == ([], [])
    receiver.may_answer.clear()
    with simulator:
        receiver.wait(1)
        begin = time.monotonic()
        simulator.stop()
        assert time.monotonic() - begin < 60, "stop does not wait for a receiver that hangs"
    assert sender_threads() == []
    assert statuses(simulator) == ["pending"]
    receiver.may_answer.set()
    with simulator:
        until(lambda: statuses(simulator) == ["delivered"])
    assert len({received.event["id"] for received in receiver.received}) == 1
