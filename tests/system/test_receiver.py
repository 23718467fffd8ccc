"""The webhook receiver in the API server of a running Airflow. A task creates the webhook and stores its secret."""

from __future__ import annotations

import json
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from dev.local_airflow import LocalAirflow, add_connection
from dev.processes import end, free_port, start
from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from planasonix_provider.simulator import Simulator
from tests.system.components import kill_process_tree, megabytes
from tests.system.conftest import Notes
from tests.system.rest import query_database
from tests.system.runs import AIRFLOW, TaskRun, expect_runs, needs_partitions, runs_by_key, wait_until

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has no API server for the receiver")

NAME = "system_orders"
ASSET = "system_orders_ready"
SECRET_IN = "variable:system_webhook_secret"


@dataclass(frozen=True)
class Receiver:
    """The receiver and its webhook."""

    airflow: LocalAirflow
    simulator: Simulator
    webhook_id: str
    url: str

    @property
    def secret(self) -> SecretStr:
        """The current signing secret in Planasonix."""
        return self.simulator.workspace.webhooks._get(self.webhook_id).secret

    def look_up(self, query: str) -> list[tuple[Any, ...]]:
        return query_database(self.airflow, query)

    def events(self) -> list[dict[str, Any]]:
        """Return the extras of the asset's events."""
        query = f"SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = '{ASSET}'"
        return [extra for (extra,) in self.look_up(query)]

    def recorded(self, event_ids: Iterable[str]) -> set[str]:
        """Return those of the events that the receiver has recorded as delivered."""
        keys = {sha256(f"{NAME}\0{event_id}".encode()).hexdigest(): event_id for event_id in event_ids}
        rows = self.look_up("SELECT id FROM planasonix_webhook_delivery")
        return {keys[key] for (key,) in rows if key in keys}

    def runs(self) -> list[dict[str, Any]]:
        answer = self.airflow.api("GET", "dags/webhook_received/dagRuns?limit=100&order_by=-start_date")
        return list(answer["dag_runs"])

    def headers(self, content: bytes, *, secret: SecretStr | None = None, age: float = 0) -> dict[str, str]:
        timestamp = int(time.time() - age)
        signature = sign(content, secret or self.secret, timestamp)
        return {TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: signature}

    def log(self) -> str:
        return self.airflow.log("api-server").read_text(errors="replace")


@pytest.fixture(scope="module")
def receiver(airflow: LocalAirflow, simulator: Simulator) -> Iterator[Receiver]:
    """A webhook that a task has created, and a receiver that reads the secret that the task has stored."""
    # As in the DAG.
    store = f"file:{airflow.home}/webhook_secret.json" if AIRFLOW == (3, 0) else SECRET_IN
    extra = {"asset": ASSET, "kept_in": store}
    add_connection(airflow, NAME, {"conn_type": "planasonix_webhook", "extra": extra})
    url = f"{airflow.url}/planasonix/webhook/{NAME}"
    TaskRun.start(airflow, "webhook_subscription", url=url).task("subscribe").wait_for("success")
    (webhook,) = simulator.workspace.webhooks.all()
    yield Receiver(airflow, simulator, webhook.id, url)
    simulator.workspace.webhooks.delete(webhook.id)


@pytest.fixture(scope="module")
def another_api_server(airflow: LocalAirflow) -> Iterator[str]:
    """The receiver's URL on a second API server, whose base URL has a path, as behind a proxy."""
    port = free_port()
    base = f"http://localhost:{port}/behind/a/proxy"
    env = airflow.env | {"AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": base}
    server = start([airflow.python, "-m", "airflow", "api-server"], env, airflow.log("another-api-server"))
    try:
        wait_until(lambda: is_there(f"{base}/api/v2/monitor/health"), "the other API server responds")
        yield f"{base}/planasonix/webhook/{NAME}"
    finally:
        end(server)


def is_there(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.HTTPError:
        return False


def a_delivery(event_id: str, status: str = "succeeded", timestamp: str = "2025-03-27T14:30:02Z") -> bytes:
    event = {
        "id": event_id,
        "type": f"job.{status}",
        "timestamp": timestamp,
        "job_id": f"job_{event_id}",
        "data": {"status": status},
    }
    return json.dumps(event).encode()


def test_a_job_that_ends_starts_the_dag(receiver: Receiver, connection_id: str, note: Notes) -> None:
    took = []
    for _ in range(5):
        known = len(receiver.runs())
        receiver.simulator.plan(connection_id, queued_seconds=0, running_seconds=1)
        job = receiver.simulator.workspace.start_sync(connection_id)
        wait_until(lambda known=known: len(receiver.runs()) > known, "a DAG run")  # type: ignore[misc]
        run = wait_until(lambda: next((run for run in receiver.runs() if run["start_date"]), None), "the run has begun")
        ended = receiver.simulator.job(job.id).finished_at
        assert ended is not None
        took.append((datetime.fromisoformat(run["start_date"]) - ended).total_seconds())
        assert [event["status"] for event in receiver.events() if event.get("job_id") == job.id] == ["succeeded"]
        wait_until(lambda: receiver.runs()[0]["state"] == "success", "the DAG run is over")
    note(f"from the end of a job to the start of the DAG: {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    assert sorted(took)[len(took) // 2] < 2


@needs_partitions
def test_deliveries_start_the_dag_of_the_day_on_which_a_job_ended(receiver: Receiver, note: Notes) -> None:
    extra = {"asset": "system_orders_by_day", "kept_in": SECRET_IN, "partition_by": "day"}
    berlin = {"partition_timezone": "Europe/Berlin", "partition_key_format": "%Y-%m-%d"}
    add_connection(receiver.airflow, "system_days", {"conn_type": "planasonix_webhook", "extra": extra | berlin})

    def deliver(event_id: str, *event: str) -> None:
        content = a_delivery(event_id, *event)
        url = receiver.url.replace(NAME, "system_days")
        answer = httpx.post(url, content=content, headers=receiver.headers(content), timeout=30)
        assert answer.status_code == 204

    for _ in range(2):  # Planasonix delivers at least once
        deliver("evt_before_midnight", "succeeded", "2025-03-27T22:59:59Z")
        deliver("evt_after_midnight", "failed", "2025-03-27T23:00:00Z")
        # An event of a job that has not ended has no partition key.
        deliver("evt_started", "started", "2025-03-26T10:00:00Z")
    expect_runs(receiver.airflow, "webhook_received_by_day", ["2025-03-27", "2025-03-28"])
    kill_process_tree(receiver.airflow, "api-server")
    receiver.airflow.restart("api-server")
    wait_until(lambda: is_there(f"{receiver.airflow.url}/api/v2/monitor/health"), "the API server responds again")
    deliver("evt_before_midnight", "succeeded", "2025-03-27T22:59:59Z")
    deliver("evt_next_day", "cancelled", "2025-03-29T02:00:00Z")
    expect_runs(receiver.airflow, "webhook_received_by_day", ["2025-03-27", "2025-03-28", "2025-03-29"])
    note(f"webhook_received_by_day: {sorted(runs_by_key(receiver.airflow, 'webhook_received_by_day').items())}")


def test_a_rotation_loses_no_delivery(receiver: Receiver, connection_id: str) -> None:
    before = receiver.secret
    begun = []

    def start_a_job() -> None:
        receiver.simulator.plan(connection_id, queued_seconds=0, running_seconds=0.5)
        begun.append(receiver.simulator.workspace.start_sync(connection_id).id)
        wait_until(lambda: receiver.simulator.job(begun[-1]).finished_at, "the job is over")

    rotation = TaskRun.start(receiver.airflow, "webhook_rotation", webhook_id=receiver.webhook_id).task("rotate")
    while rotation.state not in ("success", "failed"):
        start_a_job()
    start_a_job()
    assert rotation.state == "success"
    assert receiver.secret != before
    wait_until(lambda: {event.get("job_id") for event in receiver.events()} >= set(begun), "each job has an event")
    late = a_delivery(f"evt_{uuid.uuid4().hex}")
    # A delivery that was signed with the old secret before the rotation and arrives after it.
    assert httpx.post(receiver.url, content=late, headers=receiver.headers(late, secret=before)).status_code == 204


def test_500_deliveries_a_minute_sent_twice_to_two_api_servers_each_count_once(
    receiver: Receiver, another_api_server: str, note: Notes
) -> None:
    told = {event_id: a_delivery(event_id) for event_id in (f"evt_{uuid.uuid4().hex}" for _ in range(500))}
    chance = random.Random(2011)
    order = [*told, *told]
    chance.shuffle(order)
    began, took, statuses = time.monotonic(), [], []

    def send(number: int, event_id: str) -> None:
        time.sleep(max(0.0, began + number * 60 / len(order) - time.monotonic()))
        asked = time.monotonic()
        for _ in range(10):
            url = chance.choice([receiver.url, another_api_server])
            answer = httpx.post(url, content=told[event_id], headers=receiver.headers(told[event_id]), timeout=30)
            if answer.status_code != 503:
                break
        took.append(time.monotonic() - asked)
        statuses.append(answer.status_code)

    with ThreadPoolExecutor(16) as senders:
        list(senders.map(send, range(len(order)), order))
    seconds = time.monotonic() - began
    took.sort()
    note(
        f"1,000 deliveries of 500 events in {seconds:.0f} s: median response after {took[500] * 1000:.0f} ms, "
        f"{took[990] * 1000:.0f} ms at the 99th percentile"
    )
    assert set(statuses) == {204}
    ours = [event["event_id"] for event in receiver.events() if event["event_id"] in told]
    assert sorted(ours) == sorted(told)
    assert receiver.recorded(told) == set(told)


def test_a_delivery_that_the_simulator_repeats_counts_once(receiver: Receiver) -> None:
    names = [f"conn_{uuid.uuid4().hex[:12]}" for _ in range(30)]
    for name in names:
        receiver.simulator.workspace.add_connection(name)
        receiver.simulator.plan(name, queued_seconds=0, running_seconds=1)
    with_settings(receiver.simulator, webhook_delivery="twice")
    try:
        jobs = {receiver.simulator.workspace.start_sync(name).id for name in names}
        wait_until(lambda: count_delivered(receiver, jobs) == 60, "each event is delivered twice")
    finally:
        with_settings(receiver.simulator, webhook_delivery="once")
    ours = [event["job_id"] for event in receiver.events() if event.get("job_id") in jobs]
    assert sorted(ours) == sorted(jobs)


def with_settings(simulator: Simulator, **settings: Any) -> None:
    httpx.post(f"{simulator.url}/_simulator/settings", json=settings).raise_for_status()


def count_delivered(receiver: Receiver, jobs: set[str]) -> int:
    """Count the accepted deliveries about the success of these jobs."""
    outbox = receiver.simulator.workspace.webhooks.outbox
    return sum(
        delivery.status == "delivered" and delivery.event.subject_id in jobs
        for delivery in outbox._deliveries.newest_first()
        if delivery.event.type == "job.succeeded"
    )


def test_a_thousand_forged_or_stale_deliveries_change_nothing(receiver: Receiver, note: Notes) -> None:
    forger = SecretStr("whsec_of_a_forger_7b3e91")
    # The first delivery creates the table.
    genuine = "evt_before_the_forged"
    content = a_delivery(genuine)
    assert httpx.post(receiver.url, content=content, headers=receiver.headers(content), timeout=30).status_code == 204
    memory, tables = megabytes(receiver.airflow, "api-server"), table_sizes(receiver)

    def forged(number: int) -> int:
        content = a_delivery(f"evt_forged_{number}")
        ways: list[Callable[[], dict[str, str]]] = [
            dict,
            lambda: receiver.headers(content, secret=forger),
            lambda: receiver.headers(content, age=400),
            lambda: receiver.headers(content, age=-120),
            lambda: receiver.headers(content + b" "),
            lambda: receiver.headers(content) | {SIGNATURE_HEADER: "v1=00"},
        ]
        sent = ways[number % len(ways)]()
        if number % 50 == 0:
            content = b"x" * 300_000
        return httpx.post(receiver.url, content=content, headers=sent, timeout=30).status_code

    said = receiver.log().count("eceiver")
    with ThreadPoolExecutor(8) as forgers:
        statuses = list(forgers.map(forged, range(1000)))
    assert set(statuses) == {401, 413}
    grown = megabytes(receiver.airflow, "api-server") - memory
    lines = receiver.log().count("eceiver") - said
    note(f"1,000 forged or stale deliveries: {lines} lines of the receiver, {grown:+.1f} MB of memory")
    # Deliveries of earlier tests may still arrive, so only those of this test are counted.
    event_ids = {genuine, *(f"evt_forged_{number}" for number in range(1000))}
    in_events = {extra.get("event_id") for (extra,) in receiver.look_up("SELECT extra FROM asset_event")}
    assert in_events & event_ids == {genuine}
    assert receiver.recorded(event_ids) == {genuine}
    assert table_sizes(receiver) == tables
    assert lines <= 6


def table_sizes(receiver: Receiver) -> dict[str, int]:
    """Return the numbers of rows of tables that no delivery changes."""
    names = ("asset", "connection", "variable")
    return {name: int(receiver.look_up(f'SELECT count(*) FROM "{name}"')[0][0]) for name in names}


def test_a_slow_request_is_rejected(receiver: Receiver) -> None:
    address = httpx.URL(receiver.url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as line:
        signed = "".join(f"{name}: {value}\r\n" for name, value in receiver.headers(b"").items())
        head = f"POST {address.path} HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: 100\r\n{signed}\r\n"
        line.sendall(head.encode() + b"{")
        answer = b""
        while part := line.recv(1024):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_missing_receiver_responds_like_one_without_a_secret(receiver: Receiver) -> None:
    add_connection(receiver.airflow, "system_silent", {"conn_type": "planasonix_webhook", "extra": {"asset": ASSET}})
    content = a_delivery("evt_of_nobody")
    for name in ("system_silent", "system_nobody", "planasonix_default"):
        url = receiver.url.replace(NAME, name)
        answer = httpx.post(url, content=content, headers=receiver.headers(content), timeout=30)
        assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.skipif(AIRFLOW != (3, 0), reason="executors of other versions do not log what a task puts into a variable")
def test_airflow_3_0_stores_no_secret_in_a_variable(receiver: Receiver) -> None:
    before = len(receiver.simulator.workspace.webhooks.all())
    task = TaskRun.start(receiver.airflow, "webhook_in_a_variable").task("subscribe")
    task.wait_for("failed")
    assert "executors of Airflow 3.0 log what a task puts into a variable" in task.log()
    assert len(receiver.simulator.workspace.webhooks.all()) == before


def test_no_log_holds_a_secret(receiver: Receiver) -> None:
    if AIRFLOW != (3, 0):
        kept = json.loads(receiver.airflow.api("GET", "variables/system_webhook_secret")["value"])
        # The REST API masks the secret in the variable.
        assert kept["signing_secret"] == "***"
    logs = [path for path in (receiver.airflow.home / "logs").rglob("*.log") if path.is_file()]
    assert logs
    assert [path for path in logs if receiver.secret.get_secret_value() in path.read_text(errors="replace")] == []
