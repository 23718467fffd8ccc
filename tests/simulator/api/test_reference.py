"""The simulator responds to each request of the reference as the reference does, field by field."""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.clock_and_ids import random_id
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.webhooks import webhook_sender
from tests.simulator.conftest import Clock
from tests.support import api_reference
from tests.support.api_reference import Example
from tests.support.example_calls import route_of
from tests.support.webhook_target import until

ANSWERS = {route_of(example): example for example in api_reference.examples() if example.status}
BODIES = {route_of(example): example.body for example in api_reference.examples() if not example.status}

CONNECTION, JOB, BACKFILL, WEBHOOK = (
    "conn_01jq8k2m3n4p5q6r7s8t9u0v1", "job_01jq8syncabc", "bf_01jq8bfill01", "wh_01jq8hook02"
)  # fmt: skip
IDS = {"connectionId": CONNECTION, "jobId": JOB, "backfillId": BACKFILL, "id": WEBHOOK}
#: Values that a server makes up; the reference shows only their format.
MADE_UP = {
    "cursor": r"[\w-]{16,}=*",
    "checksum": r"sha256:[0-9a-f]{64}",
    "signing_secret": r"whsec_\w{16,}",
}


class Stage:
    """A simulator with given ids, times and responses of webhook receivers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ids: dict[str, deque[str]] = {}
        self.receiver: deque[int | Exception] = deque()
        # The reference shows no metadata.
        self.simulator = Simulator(clock=self.clock, ids=self._id, show_metadata=False)

    def _id(self, prefix: str) -> str:
        return self.ids[prefix].popleft() if self.ids.get(prefix) else random_id(prefix)

    def clear(self) -> None:
        self.simulator.reset()
        self.ids.clear()
        self.receiver.clear()

    def at(self, time: str) -> None:
        """Set the clock."""
        self.clock.now = datetime.fromisoformat(time)

    def set_next_ids(self, *ids: str) -> None:
        """Set the ids of the next objects."""
        for one in ids:
            self.ids.setdefault(one.partition("_")[0], deque()).append(one)

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request of the reference."""
        url = self.simulator.url + "/api/v1" + re.sub(r"\{(\w+)\}", lambda found: IDS[found[1]], path)
        headers = {"Authorization": f"Bearer {self.simulator.api_key}"}
        return httpx.request(method, url, json=body, headers=headers, timeout=60)

    def ask_as(self, name: str) -> httpx.Response:
        """Send the request whose response is an example."""
        example = ANSWERS[name]
        return self.ask(example.method, example.path, BODIES.get(name))

    def deliver(self, event: str, status: str) -> None:
        """Send an event to a webhook, and wait for the status of the delivery."""
        body = {"event": event}
        self.ask("POST", "/webhooks/{id}/test", body)
        until(lambda: self.simulator.deliveries()[0].status == status)

    # The state before each example.

    def before_trigger_sync(self) -> None:
        self.at("2025-03-27T14:22:10Z")
        self.set_next_ids(JOB)

    def before_trigger_backfill(self) -> None:
        self.at("2025-03-27T14:25:00Z")
        self.set_next_ids(BACKFILL)
        # 37 % of all rows are the rows of the example when the two jobs have run for 224 of 600 s.
        tables = {"public.orders": 4_953_216, "public.order_items": 0}
        self.simulator.plan_backfill(CONNECTION, jobs=2, queued_seconds=0, job_seconds=600, tables=tables)

    def before_get_backfill(self) -> None:
        self.set_next_ids("job_01jq8chunk01", "job_01jq8chunk02")
        self.before_trigger_backfill()
        self.ask_as("trigger_backfill")
        self.at("2025-03-27T14:28:44Z")

    def before_list_backfills(self) -> None:
        # The example shows the first item of a full page with a cursor, so there are more backfills than fit on a page.
        self.at("2025-03-27T14:24:00Z")
        for _ in range(50):
            self.simulator.workspace.start_backfill(CONNECTION, BackfillRequestBody(**BODIES["trigger_backfill"]))
        self.before_get_backfill()

    def before_list_jobs(self) -> None:
        self.before_trigger_sync()
        # When the job has run for 448.025 of 452.1 s, all rows are extracted, and some are not loaded yet.
        tables = {"public.orders": 45_210}
        self.simulator.plan(CONNECTION, queued_seconds=2, running_seconds=452.1, tables=tables)
        self.ask_as("trigger_sync")
        self.at("2025-03-27T14:29:40.025Z")

    before_get_job = before_list_jobs

    def before_cancel_job(self) -> None:
        self.before_trigger_sync()
        self.simulator.plan(CONNECTION, running_seconds=3600)
        self.ask_as("trigger_sync")
        self.at("2025-03-27T14:30:00Z")

    def before_get_job_results(self) -> None:
        self.before_trigger_sync()
        warnings = ANSWERS["get_job_results"].body["data"]["warnings"]
        self.simulator.plan(CONNECTION, tables={"public.orders": 44_802}, warnings=warnings)
        self.ask_as("trigger_sync")
        self.at("2025-03-27T15:00:00Z")

    def before_list_webhooks(self) -> None:
        self.at("2025-03-20T09:00:00Z")
        self.set_next_ids("wh_01jq8hook01")
        (webhook,) = ANSWERS["list_webhooks"].body["data"]
        self.simulator.subscribe(webhook["url"], webhook["events"])

    def before_create_webhook(self) -> None:
        self.at("2025-03-27T15:00:00Z")
        self.set_next_ids(WEBHOOK)

    def before_get_webhook(self) -> None:
        self.before_create_webhook()
        self.ask_as("create_webhook")
        # In the example, the last delivery is older than the webhook.
        self.at("2025-03-27T14:55:01Z")
        self.receiver.append(200)
        self.deliver("job.succeeded", "delivered")

    def before_update_webhook(self) -> None:
        self.before_create_webhook()
        self.ask_as("create_webhook")
        self.at("2025-03-27T15:05:00Z")

    def before_delete_webhook(self) -> None:
        self.before_update_webhook()

    def before_rotate_webhook_secret(self) -> None:
        self.before_update_webhook()
        self.at("2025-03-27T15:10:00Z")

    def before_test_webhook(self) -> None:
        self.before_update_webhook()
        self.set_next_ids("whd_01jq8test01")
        self.receiver.append(200)

    def before_list_webhook_deliveries(self) -> None:
        self.before_create_webhook()
        self.ask_as("create_webhook")
        self.at("2025-03-27T14:55:01Z")
        self.set_next_ids("whd_01jq8del002", "whd_01jq8del001")
        self.simulator.workspace.configure(webhook_attempts=3, speed=1000)
        reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        self.receiver.extend([503, reset, reset, 200])
        self.deliver("job.failed", "failed")
        self.deliver("job.succeeded", "delivered")

    def before_get_openapi(self) -> None:
        """No preparation is needed."""


@pytest.fixture(scope="module")
def module_stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.simulator:
        yield stage


@pytest.fixture
def stage(module_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    module_stage.clear()

    class ScriptedConnection(webhook_sender.RestrictedHTTPConnection):
        """A connection to a receiver that returns the next scripted status, or raises the next scripted error."""

        def connect(self) -> None:
            pass

        def request(self, *_: Any, **__: Any) -> None:
            pass

        def getresponse(self) -> Any:
            answer = module_stage.receiver.popleft()
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(status=answer)

    monkeypatch.setattr(webhook_sender, "RestrictedHTTPConnection", ScriptedConnection)
    return module_stage


def is_alike(field: str, theirs: Any, ours: Any) -> bool:
    """Return whether a value and its type equal the example's. A generated value needs only the same format."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return set(theirs) == set(ours) and all(is_alike(name, theirs[name], ours[name]) for name in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(is_alike(field, *pair) for pair in zip(theirs, ours, strict=True))
    if field in MADE_UP and theirs is not None:
        assert re.fullmatch(MADE_UP[field], theirs)
        return isinstance(ours, str) and bool(re.fullmatch(MADE_UP[field], ours))
    return type(theirs) is type(ours) and theirs == ours


def fields(value: Any) -> Any:
    """Return the names of all fields, those of nested values included, and the types of their values."""
    if isinstance(value, dict):
        return {name: fields(inner) for name, inner in value.items()}
    return type(value)


def test_every_example_of_the_reference_is_tested() -> None:
    assert len(ANSWERS) == len([example for example in api_reference.examples() if example.status])
    before = {name.removeprefix("before_") for name in vars(Stage) if name.startswith("before_")}
    assert before == {*ANSWERS, "delete_webhook", "get_openapi"}, "examples, and the two routes without JSON"


@pytest.mark.parametrize("example", ANSWERS.values(), ids=str)
def test_response_is_the_example_of_the_reference(stage: Stage, example: Example) -> None:
    getattr(stage, f"before_{route_of(example)}")()
    response = stage.ask_as(route_of(example))
    assert (response.status_code, response.headers["content-type"]) == (example.status, "application/json")
    answer = response.json()
    if example.body.get("meta", {}).get("page", {}).get("cursor"):
        shown = len(example.body["data"])
        assert len(answer["data"]) == example.body["meta"]["page"]["limit"]
        assert all(fields(more) == fields(example.body["data"][0]) for more in answer["data"][shown:])
        del answer["data"][shown:]
    assert is_alike("", example.body, answer), (example.body, answer)


def test_delete_has_no_body(stage: Stage) -> None:
    stage.before_delete_webhook()
    response = stage.ask("DELETE", "/webhooks/{id}")
    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers


def test_the_document_is_served_unchanged(stage: Stage) -> None:
    stage.before_get_openapi()
    response = stage.ask("GET", "/openapi.yaml")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/yaml")
    assert response.content == (Path(__file__).parents[3] / "docs" / "openapi.yaml").read_bytes()
