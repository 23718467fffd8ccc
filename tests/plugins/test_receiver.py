from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import time_machine
from airflow.models.variable import Variable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.requests import Request

from planasonix_provider import metrics
from planasonix_provider.airflow_compat import NO_PARTITIONS_WARNING, has_partitions
from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, ReceiverNames
from planasonix_provider.plugins import receiver, request_body
from planasonix_provider.plugins.delivery_store import DeliveryStore, PlanasonixDeliveryStoreError
from planasonix_provider.plugins.receiver import make_app
from planasonix_provider.plugins.request_body import BodyReader, RefusedBodyError
from planasonix_provider.secret_stores import secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody
from planasonix_provider.testing.travelled_clock import TravelledClock
from tests.plugins.conftest import ANOTHER_SECRET, SECRET, Assets, Deliver, body, headers, rows, to
from tests.support.statsd import StatsdServer
from tests.support.webhook_target import Receiver as WebhookTarget

Connect = Callable[..., None]
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Returns the receiver's log lines so far."""
    caplog.set_level(logging.DEBUG)
    return lambda: [r.getMessage() for r in caplog.records if r.name.startswith("planasonix_provider.plugins")]


class TestGoodDeliveries:
    async def test_a_delivery_becomes_an_event_of_the_asset(self, deliver: Deliver, assets: Assets) -> None:
        response = await deliver(body("evt_1"))
        assert (response.status_code, response.content) == (204, b"")
        assert assets.events() == [
            {
                "event": "job.succeeded",
                "event_id": "evt_1",
                "timestamp": "2025-03-27T14:30:02Z",
                "receiver": "orders",
                "job_id": "job_01jq8k3m9f0a1b2c3d4e5f6g7h",
                "status": "succeeded",
            }
        ]

    async def test_an_event_may_be_of_a_backfill_or_of_an_unknown_type(self, deliver: Deliver, assets: Assets) -> None:
        backfill = {"backfill_id": "bf_1", "data": {"status": "completed", "x": [1]}}
        for fields in ({"type": "backfill.completed", **backfill}, {"type": "pipeline.paused", "data": None}):
            assert (await deliver(body(job_id=None, **fields))).status_code == 204
        completed, paused = assets.events()
        assert [completed[name] for name in ("event", "backfill_id", "status")] == [
            "backfill.completed",
            "bf_1",
            "completed",
        ]
        assert not {"job_id", "x"} & set(completed)
        assert paused["event"] == "pipeline.paused"

    async def test_a_repeated_event_is_recorded_once(self, deliver: Deliver, assets: Assets) -> None:
        content = body("evt_1")
        for sent in (
            {"content": content},
            {"content": content},
            {"content": content, "headers": headers(content, at=time.time() - 200)},
            {"content": body("evt_1", data={"status": "other"})},
            # Airflow finds a connection of the environment by its name in any case.
            {"content": content, "name": "ORDERS"},
        ):
            assert (await deliver(**sent)).status_code == 204
        assert len(assets.events()) == 1

    async def test_an_asset_may_be_named_by_its_uri(
        self, deliver: Deliver, assets: Assets, connection: Connect
    ) -> None:
        connection(extra={"asset": "s3://warehouse/orders"})
        assert (await deliver()).status_code == 204
        assert len(assets.events()) == 1

    async def test_only_the_named_events_are_recorded(
        self, deliver: Deliver, assets: Assets, connection: Connect
    ) -> None:
        connection(extra={"asset": "orders_ready", "events": "job.failed, job.cancelled"})
        # 204, so that Planasonix does not send the ignored event again.
        assert (await deliver()).status_code == 204
        assert (await deliver(body(type="job.failed"))).status_code == 204
        assert [event["event"] for event in assets.events()] == ["job.failed"]
        assert rows() == 1

    async def test_two_receivers_record_the_same_event_for_their_assets(
        self, deliver: Deliver, assets: Assets, connection: Connect
    ) -> None:
        connection("failures", extra={"asset": "orders_failed"})
        assets.add("orders_failed")
        content = body()
        assert [(await deliver(content, name=name)).status_code for name in ("orders", "failures")] == [204, 204]
        assert [len(assets.events(name)) for name in ("orders_ready", "orders_failed")] == [1, 1]

    async def test_each_event_is_recorded_once_by_several_api_servers(
        self, assets: Assets, connection: Connect
    ) -> None:
        contents = [body(f"evt_{number}") for number in range(10)]
        async with to(make_app()) as one, to(make_app()) as another:
            statuses = await deliver_until_accepted(random.Random(7), [one, another], contents * 3)
        assert set(statuses) == {204}
        assert sorted(event["event_id"] for event in assets.events()) == sorted(f"evt_{n}" for n in range(10))
        assert rows() == 10

    async def test_a_delivery_of_the_simulator_is_accepted(self, assets: Assets, connection: Connect) -> None:
        with Simulator() as simulator, WebhookTarget() as target:
            webhooks = simulator.workspace.webhooks
            webhook = webhooks.create(WebhookRequestBody(url=target.url, events=["job.failed"], secret="x" * 32))
            webhooks.test(webhook.id)
            (sent,) = target.wait(1)
        connection(password="x" * 32)
        async with to(make_app()) as deliver:
            assert (await deliver(sent.body, headers=sent.headers)).status_code == 204
        (event,) = assets.events()
        assert (event["event"], event["status"], event["job_id"]) == ("job.failed", "failed", sent.event["job_id"])


class TestPartitions:
    """With ``partition_by``, the event of a job has the key of the partition in which the job has ended."""

    @pytest.mark.parametrize(
        ("fields", "key"),
        [
            ({"partition_by": "day"}, "2025-03-27T00:00:00"),
            ({"partition_by": "hour", "partition_timezone": "America/New_York"}, "2025-03-27T10:00:00"),
            ({"partition_by": "week", "partition_key_format": "%G-W%V"}, "2025-W13"),
            ({}, None),
        ],
        ids=["day", "hour in a zone", "week in a format", "no partitions"],
    )
    async def test_the_event_of_a_job_has_the_key(
        self, deliver: Deliver, assets: Assets, connection: Connect, lines: Lines, fields: dict[str, str], key: str
    ) -> None:
        connection(extra={"asset": "orders_ready", **fields})
        for _ in range(2):
            assert (await deliver(body())).status_code == 204
        assert [found for _, found in assets.events_with_keys()] == [key if has_partitions() else None] * 2
        no_effect = f"Webhook receiver 'orders': {NO_PARTITIONS_WARNING}"
        assert lines() == ([] if has_partitions() or not fields else [no_effect])

    @pytest.mark.skipif(not has_partitions(), reason="Airflow 3.3 has the first asset partitions")
    @pytest.mark.parametrize(
        "fields",
        [
            {"type": "backfill.completed", "job_id": None, "backfill_id": "bf_1"},
            {"type": "job.queued"},
            {"type": "pipeline.paused"},
            {"type": "job.succeeded", "job_id": None},
        ],
        ids=lambda fields: fields["type"],
    )
    async def test_an_event_that_is_not_the_end_of_a_job_has_no_key(
        self, deliver: Deliver, assets: Assets, connection: Connect, lines: Lines, fields: dict[str, str | None]
    ) -> None:
        connection(extra={"asset": "orders_ready", "partition_by": "day"})
        for _ in range(2):
            assert (await deliver(body(**fields))).status_code == 204
        assert [key for _, key in assets.events_with_keys()] == [None] * 2
        (line,) = lines()
        assert line.startswith(
            "Webhook receiver 'orders' got an event that is not the end of a job. Its asset event has no partition key"
        )

    @pytest.mark.skipif(not has_partitions(), reason="Airflow 3.3 has the first asset partitions")
    @pytest.mark.parametrize("ending", ["succeeded", "failed", "cancelled"])
    async def test_each_end_of_a_job_has_a_key(
        self, deliver: Deliver, assets: Assets, connection: Connect, ending: str
    ) -> None:
        connection(extra={"asset": "orders_ready", "partition_by": "day"})
        assert (await deliver(body(type=f"job.{ending}"))).status_code == 204
        assert [key for _, key in assets.events_with_keys()] == ["2025-03-27T00:00:00"]


async def deliver_until_accepted(chance: random.Random, servers: list[Deliver], contents: list[bytes]) -> list[int]:
    """Deliver concurrently, and repeat each 503, as Planasonix does: SQLite is sometimes locked."""
    waiting = [(chance.choice(servers), content) for content in contents]
    chance.shuffle(waiting)
    statuses: list[int] = []
    for _ in range(20):
        responses = await asyncio.gather(*(deliver(content) for deliver, content in waiting))
        statuses += [response.status_code for response in responses if response.status_code != 503]
        pairs = zip(waiting, responses, strict=True)
        waiting = [delivery for delivery, response in pairs if response.status_code == 503]
        if not waiting:
            return statuses
    raise AssertionError(f"{len(waiting)} were never accepted")


class TestForgedAndStale:
    @pytest.mark.parametrize("flaw", ["other_secret", "other_body", "none", "no_time", "stale", "ahead", "nonsense"])
    async def test_a_wrong_signature_is_refused(
        self, deliver: Deliver, assets: Assets, lines: Lines, flaw: str
    ) -> None:
        content = body()
        now = time.time()
        sent = {
            "other_secret": headers(content, ANOTHER_SECRET),
            "other_body": headers(body()),
            "none": {},
            "no_time": {SIGNATURE_HEADER: headers(content)[SIGNATURE_HEADER]},
            "stale": headers(content, at=now - 302),
            "ahead": headers(content, at=now + 3600),
            "nonsense": {SIGNATURE_HEADER: "v1=ü".encode("latin-1"), TIMESTAMP_HEADER: "soon"},  # type: ignore[dict-item]
        }[flaw]
        response = await deliver(content, headers=sent)
        assert (response.status_code, response.content) == (401, b"")
        assert (assets.events(), rows()) == ([], 0)
        (line,) = lines()
        assert "refused" in line
        assert SECRET not in line
        assert "job_01" not in line

    async def test_an_old_replay_is_refused(self, deliver: Deliver, assets: Assets) -> None:
        content = body()
        signed = headers(content)
        assert (await deliver(content, headers=signed)).status_code == 204
        with time_machine.travel(time.time() + 302, tick=True):
            assert (await deliver(content, headers=signed)).status_code == 401
        assert len(assets.events()) == 1

    async def test_a_thousand_forged_deliveries_are_one_line_and_no_row(
        self, deliver: Deliver, assets: Assets, lines: Lines
    ) -> None:
        # Other spellings of the name cause no more lines.
        names = ["orders", "Orders", "oRDERS", "ORDERS"] * 250
        responses = [await deliver(name=name, headers=headers(b"", ANOTHER_SECRET)) for name in names]
        assert {response.status_code for response in responses} == {401}
        assert len(lines()) == 1
        assert (assets.events(), rows()) == ([], 0)

    @pytest.mark.slow("sends hundreds of requests")
    async def test_a_limited_number_waits_for_the_secret_to_be_read_again(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver, "RECHECK_MAX_AGE_SECONDS", -1.0)
        monkeypatch.setattr("planasonix_provider.plugins.receiver_cache.REFRESH_SECONDS", 60.0)
        may_respond = threading.Event()
        may_respond.set()

        class Connections(receiver.AirflowConnections):
            def list_names(self) -> ReceiverNames:
                return ReceiverNames(frozenset({"orders"}))

            def read(self, name: str) -> ReceiverConfig:
                assert may_respond.wait(120)
                return ReceiverConfig(name, (SecretStr(SECRET),), "orders_ready")

        async with to(make_app(Connections())) as deliver:
            assert (await deliver()).status_code == 204
            may_respond.clear()
            forged = headers(b"", ANOTHER_SECRET)
            sent = [asyncio.create_task(deliver(headers=forged)) for _ in range(receiver.MAX_RECHECKS + 20)]
            done, waiting = await asyncio.wait(sent, timeout=3)
            assert [one.result().status_code for one in done] == [401] * 20
            may_respond.set()
            assert {(await one).status_code for one in waiting} == {401}

    async def test_a_body_is_parsed_after_its_signature_was_verified(self, deliver: Deliver) -> None:
        assert (await deliver(b"{", headers=headers(b"{", ANOTHER_SECRET))).status_code == 401
        assert (await deliver(b"{")).status_code == 400

    @pytest.mark.slow("sends hundreds of requests")
    @pytest.mark.usefixtures("assets")
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        max_examples=60,
        deadline=None,
    )
    @given(content=st.binary(max_size=300), is_signed=st.booleans())
    def test_random_bytes_are_refused(self, connection: Connect, content: bytes, is_signed: bool) -> None:
        async def send() -> httpx.Response:
            async with to(make_app()) as deliver:
                return await deliver(content, headers=headers(content, SECRET if is_signed else ANOTHER_SECRET))

        response = asyncio.run(send())
        assert (response.status_code, response.content) == (400 if is_signed else 401, b"")
        assert rows() == 0


@pytest.mark.usefixtures("assets", "connection")
class TestBodies:
    async def test_a_body_with_a_too_large_content_length_is_not_read(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"x"

        response = await send_parts(parts(), {"Content-Length": str(request_body.MAX_BODY_BYTES + 1)})
        assert (response.status_code, response.content, response.headers["connection"]) == (413, b"", "close")

    async def test_a_body_without_a_length_is_read_up_to_the_limit(self) -> None:
        read: list[int] = []

        async def parts() -> AsyncIterator[bytes]:
            for number in range(1000):
                read.append(number)
                yield b"x" * 64 * 1024

        assert (await send_parts(parts())).status_code == 413
        assert len(read) <= 2

    async def test_a_body_of_the_maximum_size_is_accepted(self, deliver: Deliver, assets: Assets) -> None:
        content = body(data={"status": "succeeded", "more": ""})
        padding = b"x" * (request_body.MAX_BODY_BYTES - len(content))
        content = content.replace(b'"more": ""', b'"more": "' + padding + b'"')
        assert len(content) == request_body.MAX_BODY_BYTES
        assert (await deliver(content)).status_code == 204
        assert (await deliver(content + b" ")).status_code == 413
        assert len(assets.events()) == 1

    def test_a_slow_body_times_out(self) -> None:
        async def slow() -> Any:
            await asyncio.sleep(request_body.READ_TIMEOUT_SECONDS / 3 * 2)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def main() -> tuple[RefusedBodyError, float]:
            with pytest.raises(RefusedBodyError) as refusal:
                await read_with(BodyReader(), slow)
            return refusal.value, asyncio.get_running_loop().time()

        refusal, passed = TravelledClock().run(main())
        assert refusal.status == 408
        assert passed == request_body.READ_TIMEOUT_SECONDS

    def test_the_oldest_body_is_refused_if_there_are_too_many(self) -> None:
        async def never() -> Any:
            await asyncio.sleep(3600)

        async def at_once() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def main() -> tuple[list[bool], bytes]:
            bodies = BodyReader(max_bodies=3)
            slow = [asyncio.create_task(read_with(bodies, never)) for _ in range(3)]
            await asyncio.sleep(1)
            assert not any(one.done() for one in slow)
            newest = await read_with(bodies, at_once)
            done, _ = await asyncio.wait(slow, timeout=0.1)
            with pytest.raises(RefusedBodyError) as refusal:
                await slow[0]
            assert refusal.value.status == 408
            for one in slow[1:]:
                one.cancel()
            return [one in done for one in slow], newest

        assert TravelledClock().run(main()) == ([True, False, False], b"{}")

    async def test_a_client_that_disconnects_is_logged(self, lines: Lines) -> None:
        async def disconnect() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        assert (await call_app(disconnect))["status"] == 400
        assert lines() == ["A delivery to the webhook receiver was refused: its body broke off."]

    @pytest.mark.parametrize("length", ["-1", "many", "1" * 30, "²"])
    async def test_an_invalid_content_length_is_refused(self, length: str) -> None:
        signed = headers(b"") | {"Content-Length": length}
        assert (await call_app(never_read, sent=signed))["status"] == 400

    @pytest.mark.parametrize(
        ("name", "sent", "status"),
        [
            ("orders", {}, 401),
            ("orders", {TIMESTAMP_HEADER: "1", SIGNATURE_HEADER: "v1=" + "0" * 64}, 401),
            ("orders", {**headers(b"{}"), SIGNATURE_HEADER: "v1=0000"}, 401),
            ("orders", {**headers(b"{}"), SIGNATURE_HEADER: "v1=" + "0" * 63 + "ä"}, 401),
            ("nobody", None, 503),
        ],
    )
    async def test_no_byte_is_read_without_a_signature_or_a_receiver(
        self, name: str, sent: dict[str, str] | None, status: int
    ) -> None:
        response = await call_app(never_read, name=name, sent=headers(b"{}") if sent is None else sent)
        assert (response["status"], dict(response["headers"])[b"connection"]) == (status, b"close")


async def never_read() -> dict[str, Any]:
    raise AssertionError("the body was read")


async def read_with(bodies: BodyReader, receive: Callable[[], Any]) -> bytes:
    return await bodies.read(Request({"type": "http", "headers": []}, receive))


async def send_parts(parts: AsyncIterator[bytes], sent: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://airflow") as client:
        return await client.post("/webhook/orders", content=parts, headers=headers(b"") | (sent or {}))


async def call_app(
    receive: Callable[[], Any], *, name: str = "orders", sent: dict[str, str] | None = None
) -> dict[str, Any]:
    """Call the app as a server does; return the start of its response."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    given = headers(b"") if sent is None else sent
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/webhook/{name}",
        "raw_path": f"/webhook/{name}".encode(),
        "query_string": b"",
        "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in given.items()],
        "root_path": "",
        "http_version": "1.1",
    }
    await make_app()(scope, receive, send)
    return messages[0]


class TestUnknownReceivers:
    @pytest.mark.parametrize("name", ["nobody", "a_database", "silent", "without_asset", "x" * 201, "a%20b", "%00"])
    async def test_all_get_the_same_response(self, deliver: Deliver, connection: Connect, name: str) -> None:
        connection("a_database", conn_type="postgres")
        connection("silent", password=None)
        connection("without_asset", extra={})
        for sent in (headers(b"{}"), headers(b"{}", ANOTHER_SECRET)):
            response = await deliver(b"{}", name=name, headers=sent)
            assert (response.status_code, response.content) == (503, b"")
            assert set(response.headers) <= {"content-length", "connection"}

    @pytest.mark.parametrize("name", ["orders", "nobody", "a_database"])
    async def test_without_a_signature_all_names_get_the_same_response(
        self, deliver: Deliver, connection: Connect, name: str
    ) -> None:
        connection("a_database", conn_type="postgres")
        response = await deliver(b"{}", name=name, headers={})
        assert (response.status_code, response.content) == (401, b"")

    async def test_a_misconfigured_receiver_is_logged_once(
        self, deliver: Deliver, connection: Connect, lines: Lines
    ) -> None:
        connection("silent", password=None)
        for _ in range(3):
            await deliver(name="silent")
            await deliver(name="nobody")
        (line,) = lines()
        assert line.startswith("Airflow connection 'silent' has no signing secret: put it into the password, or say")

    async def test_other_methods_and_paths_do_not_exist(self, assets: Assets) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://airflow") as client:
            assert (await client.get("/webhook/orders")).status_code == 405
            for path in ("/", "/webhook", "/webhook/", "/webhook/orders/", "/docs", "/openapi.json", "/redoc"):
                assert (await client.post(path)).status_code == 404, path


class TestRotation:
    @staticmethod
    async def deliver_signed(deliver: Deliver, *secrets: str) -> list[int]:
        """Deliver one new event signed with each of the secrets; return the statuses."""
        contents = [(body(), secret) for secret in secrets]
        return [(await deliver(content, headers=headers(content, secret))).status_code for content, secret in contents]

    async def test_the_previous_secret_is_accepted_too(
        self, deliver: Deliver, assets: Assets, connection: Connect
    ) -> None:
        connection(password=ANOTHER_SECRET, extra={"asset": "orders_ready", "previous_signing_secret": SECRET})
        assert await self.deliver_signed(deliver, SECRET, ANOTHER_SECRET, "whsec_unknown") == [204, 204, 401]
        assert len(assets.events()) == 2

    async def test_a_new_secret_is_accepted_at_once(
        self, deliver: Deliver, connection: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver, "RECHECK_MAX_AGE_SECONDS", 0.0)
        assert (await deliver()).status_code == 204
        connection(password=ANOTHER_SECRET)
        assert await self.deliver_signed(deliver, ANOTHER_SECRET, SECRET) == [204, 401]

    async def test_both_secrets_of_a_secret_store_are_accepted(
        self, deliver: Deliver, assets: Assets, connection: Connect
    ) -> None:
        to = "variable:planasonix_webhook_secret"
        connection(password=None, extra={"asset": "orders_ready", "kept_in": to})
        try:
            for secret in (SECRET, ANOTHER_SECRET):
                secret_store(to).save(SecretStr(secret), webhook_id="wh_1")
            assert await self.deliver_signed(deliver, SECRET, ANOTHER_SECRET) == [204, 204]
        finally:
            Variable.delete("planasonix_webhook_secret")
        assert len(assets.events()) == 2


class TestDeliveriesThatCannotBeRecorded:
    @pytest.mark.parametrize("asset", ["nothing_of_the_kind", "retired"])
    async def test_an_unknown_asset_requests_another_delivery(
        self, deliver: Deliver, assets: Assets, connection: Connect, lines: Lines, asset: str
    ) -> None:
        assets.add("retired", is_active=False)
        connection(extra={"asset": asset})
        content = body()
        assert [(await deliver(content)).status_code for _ in range(3)] == [503] * 3
        assert rows() == 0
        (line,) = lines()
        assert line.startswith(
            f"Webhook receiver 'orders' could not record a delivery. No DAG knows the asset '{asset}'"
        )
        assets.add(f"{asset}_2", asset)
        assert (await deliver(content)).status_code == 204
        assert len(assets.events(f"{asset}_2")) == 1

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ({"id": None}, "id: Field required"),
            ({"id": "  "}, "id: Value error, must be a text that can be printed"),
            ({"id": "evt\x00"}, "id: Value error, must be a text that can be printed"),
            ({"id": 7}, "id: Input should be a valid string"),
            ({"type": None}, "type: Field required"),
            ({"timestamp": "yesterday"}, "timestamp: Input should be a valid datetime"),
            ({"timestamp": "2025-03-27T14:30:02"}, "timestamp: Input should have timezone info"),
            ({"timestamp": "9999-12-31T23:59:59-05:00"}, "timestamp: Value error, the time is out of range"),
            ({"timestamp": "9000-12-31T23:59:59Z"}, "timestamp: Value error, the time is out of range"),
            ({"timestamp": "0999-12-31T23:59:59Z"}, "timestamp: Value error, the time is out of range"),
            ({"job_id": ["job_1"]}, "job_id: Input should be a valid string"),
            ({"data": "succeeded"}, "data: Input should be an object"),
            *(
                (content, "it is not a JSON object.")
                for content in (b"", b"[]", b"null", b'{"id": "\\ud800"}', b"\xff", b"{" * 5000)
            ),
        ],
    )
    async def test_an_invalid_body_is_logged_without_its_values(
        self, deliver: Deliver, lines: Lines, content: dict[str, Any] | bytes, problem: str
    ) -> None:
        is_object = isinstance(content, dict)
        response = await deliver(body(**{"type": "job.never_shown", **content}) if is_object else content)
        assert (response.status_code, response.content) == (400, b"")
        (line,) = lines()
        assert line.startswith(
            f"Webhook receiver 'orders' got a signed delivery that it cannot read, and does not count it: {problem}"
        )
        assert is_object or line.endswith(problem)
        assert "never_shown" not in line
        assert rows() == 0

    async def test_a_database_error_is_logged_without_the_delivery(
        self, assets: Assets, connection: Connect, lines: Lines
    ) -> None:
        class Broken(DeliveryStore):
            def record(self, *_: Any) -> Any:
                raise faults.pop()

        faults: list[Exception] = [PlanasonixDeliveryStoreError("The disk is full."), RuntimeError(SECRET)]
        async with to(make_app(deliveries=Broken())) as deliver:
            assert [(await deliver()).status_code for _ in range(2)] == [503, 503]
        assert lines() == [
            "Webhook receiver 'orders' could not record a delivery (RuntimeError), and asked Planasonix to send it "
            "again. If it stays, look at the health of Airflow's database."
        ]

    async def test_recording_does_not_block_the_event_loop(self, assets: Assets, connection: Connect) -> None:
        may_continue = threading.Event()

        class Slow(DeliveryStore):
            def record(self, *arguments: Any) -> Any:
                assert may_continue.wait(120)
                return super().record(*arguments)

        async with to(make_app(deliveries=Slow())) as deliver:
            recording = asyncio.create_task(deliver())
            assert (await deliver(name="nobody")).status_code == 503
            assert not recording.done()
            may_continue.set()
            assert (await recording).status_code == 204


class TestMetrics:
    """Each delivery is counted once, with its outcome. Unknown names cause no time series."""

    @staticmethod
    def counted(statsd: StatsdServer) -> list[tuple[str, ...]]:
        return [(tags["receiver"], tags["outcome"], tags["reason"]) for tags in statsd.tags(metrics.WEBHOOK_DELIVERY)]

    async def test_accepted_repeated_and_ignored(
        self, deliver: Deliver, assets: Assets, connection: Connect, statsd: StatsdServer
    ) -> None:
        connection(extra={"asset": "orders_ready", "events": "job.succeeded"})
        for content in (body("evt_1"), body("evt_1"), body(type="job.failed")):
            await deliver(content)
        assert self.counted(statsd) == [("orders", outcome, "none") for outcome in ("accepted", "repeated", "ignored")]

    async def test_refused_with_the_reason(
        self, deliver: Deliver, statsd: StatsdServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await deliver(headers={})
        for name in ("nobody_1", "nobody_2"):
            await deliver(name=name)
        await deliver(b"x" * (request_body.MAX_BODY_BYTES + 1))
        await deliver(headers=headers(b"", ANOTHER_SECRET))
        await deliver(b"{}")
        assert self.counted(statsd) == [
            ("none", "refused", "headers"),
            ("none", "refused", "receiver"),
            ("none", "refused", "receiver"),
            ("orders", "refused", "body"),
            ("orders", "refused", "signature"),
            ("orders", "refused", "content"),
        ]

    async def test_failed_with_the_reason(
        self, deliver: Deliver, assets: Assets, statsd: StatsdServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assets.forget()
        await deliver()
        monkeypatch.setattr(receiver, "MAX_WAITING", 0)
        await deliver()
        assert self.counted(statsd) == [("orders", "failed", "asset"), ("orders", "failed", "queue")]
