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

from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, ReceiverNames
from planasonix_provider.plugins import receiver
from planasonix_provider.plugins import request_body as reading
from planasonix_provider.plugins.delivery_store import DeliveryStore, PlanasonixDeliveryStoreError
from planasonix_provider.plugins.receiver import make_app
from planasonix_provider.plugins.request_body import BodyReader, RefusedBodyError
from planasonix_provider.secret_stores import secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody
from tests.plugins.conftest import ANOTHER_SECRET, SECRET, Assets, Deliver, body, headers, rows, to
from tests.support import virtual_time
from tests.support.webhook_target import Receiver as Postbox


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log lines of the receiver so far."""
    caplog.set_level(logging.DEBUG)
    return lambda: [r.getMessage() for r in caplog.records if r.name.startswith("planasonix_provider.plugins")]


class TestGoodDeliveries:
    async def test_a_delivery_is_an_event_of_the_asset(self, deliver: Deliver, assets: Assets) -> None:
        answer = await deliver(body("evt_1"))
        assert (answer.status_code, answer.content) == (204, b"")
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

    async def test_a_backfill_is_told_of_as_one(self, deliver: Deliver, assets: Assets) -> None:
        told = body(type="backfill.completed", job_id=None, backfill_id="bf_1", data={"status": "completed", "x": [1]})
        await deliver(told)
        (event,) = assets.events()
        assert (event["event"], event["backfill_id"], event["status"]) == ("backfill.completed", "bf_1", "completed")
        assert not {"job_id", "x"} & set(event)

    async def test_an_event_that_this_version_does_not_know_counts_too(self, deliver: Deliver, assets: Assets) -> None:
        assert (await deliver(body(type="pipeline.paused", job_id=None, data=None))).status_code == 204
        assert [event["event"] for event in assets.events()] == ["pipeline.paused"]

    async def test_a_repeated_delivery_counts_once_and_is_answered_alike(
        self, deliver: Deliver, assets: Assets
    ) -> None:
        told = body()
        assert [(await deliver(told)).status_code for _ in range(3)] == [204] * 3
        assert len(assets.events()) == 1

    async def test_an_event_signed_anew_is_still_the_same(self, deliver: Deliver, assets: Assets) -> None:
        told = body("evt_1")
        await deliver(told)
        await deliver(told, headers=headers(told, at=time.time() - 200))
        await deliver(body("evt_1", data={"status": "other"}))
        assert len(assets.events()) == 1

    async def test_an_asset_may_be_named_by_its_uri(
        self, deliver: Deliver, assets: Assets, connection: Callable[..., None]
    ) -> None:
        connection(extra={"asset": "s3://warehouse/orders"})
        assert (await deliver()).status_code == 204
        assert len(assets.events()) == 1

    async def test_only_the_named_events_count_and_the_others_are_not_sent_again(
        self, deliver: Deliver, assets: Assets, connection: Callable[..., None]
    ) -> None:
        connection(extra={"asset": "orders_ready", "events": "job.failed, job.cancelled"})
        assert (await deliver()).status_code == 204
        assert (await deliver(body(type="job.failed"))).status_code == 204
        assert [event["event"] for event in assets.events()] == ["job.failed"]
        assert rows() == 1

    async def test_two_receivers_of_one_event_feed_an_asset_each(
        self, deliver: Deliver, assets: Assets, connection: Callable[..., None]
    ) -> None:
        connection("failures", extra={"asset": "orders_failed"})
        assets.add("orders_failed")
        told = body()
        assert [(await deliver(told, name=name)).status_code for name in ("orders", "failures")] == [204, 204]
        assert [len(assets.events(name)) for name in ("orders_ready", "orders_failed")] == [1, 1]

    async def test_one_receiver_in_other_letters_is_no_second_one(self, deliver: Deliver, assets: Assets) -> None:
        # Airflow finds a connection of the environment by either name.
        told = body()
        assert [(await deliver(told, name=name)).status_code for name in ("orders", "ORDERS")] == [204, 204]
        assert len(assets.events()) == 1

    async def test_each_event_counts_once_however_many_api_servers_it_comes_to(
        self, assets: Assets, connection: Callable[..., None]
    ) -> None:
        told = [body(f"evt_{number}") for number in range(10)]
        async with to(make_app()) as one, to(make_app()) as another:
            answers = await until_all_are_taken(random.Random(7), [one, another], told * 3)
        assert set(answers) == {204}
        assert sorted(event["event_id"] for event in assets.events()) == sorted(f"evt_{n}" for n in range(10))
        assert rows() == 10


async def until_all_are_taken(chance: random.Random, servers: list[Deliver], told: list[bytes]) -> list[int]:
    """Deliver at once, and again what was not taken, as Planasonix does: SQLite now and then lets nobody in."""
    waiting = [(chance.choice(servers), content) for content in told]
    chance.shuffle(waiting)
    statuses: list[int] = []
    for _ in range(20):
        answers = await asyncio.gather(*(deliver(content) for deliver, content in waiting))
        statuses += [answer.status_code for answer in answers if answer.status_code != 503]
        waiting = [order for order, answer in zip(waiting, answers, strict=True) if answer.status_code == 503]
        if not waiting:
            return statuses
    raise AssertionError(f"{len(waiting)} were never taken")


class TestForgedAndStale:
    @pytest.mark.parametrize("spoil", ["other_secret", "other_body", "none", "no_time", "stale", "ahead", "nonsense"])
    async def test_what_is_not_surely_planasonixs_changes_nothing(
        self, deliver: Deliver, assets: Assets, lines: Callable[[], list[str]], spoil: str
    ) -> None:
        told = body()
        now = time.time()
        sent = {
            "other_secret": headers(told, ANOTHER_SECRET),
            "other_body": headers(body()),
            "none": {},
            "no_time": {SIGNATURE_HEADER: headers(told)[SIGNATURE_HEADER]},
            "stale": headers(told, at=now - 302),
            "ahead": headers(told, at=now + 3600),
            "nonsense": {SIGNATURE_HEADER: "v1=ü".encode("latin-1"), TIMESTAMP_HEADER: "soon"},  # type: ignore[dict-item]
        }[spoil]
        answer = await deliver(told, headers=sent)
        assert (answer.status_code, answer.content) == (401, b"")
        assert assets.events() == []
        assert rows() == 0
        (line,) = lines()
        assert "refused" in line
        assert SECRET not in line
        assert "job_01" not in line

    async def test_a_replay_is_refused_once_it_is_old(self, deliver: Deliver, assets: Assets) -> None:
        told, signed = (content := body()), headers(content)
        assert (await deliver(told, headers=signed)).status_code == 204
        with time_machine.travel(time.time() + 302, tick=True):
            assert (await deliver(told, headers=signed)).status_code == 401
        assert len(assets.events()) == 1

    async def test_a_thousand_of_them_are_one_line_and_no_row(
        self, deliver: Deliver, assets: Assets, lines: Callable[[], list[str]]
    ) -> None:
        answers = [await deliver(headers=headers(b"", ANOTHER_SECRET)) for _ in range(1000)]
        assert {answer.status_code for answer in answers} == {401}
        assert len(lines()) == 1
        assert (assets.events(), rows()) == ([], 0)

    async def test_they_are_one_line_however_the_name_is_spelt(
        self, deliver: Deliver, lines: Callable[[], list[str]]
    ) -> None:
        for name in ("orders", "Orders", "oRDERS", "ORDERS"):
            assert (await deliver(name=name, headers=headers(b"", ANOTHER_SECRET))).status_code == 401
        assert len(lines()) == 1

    async def test_only_so_many_of_them_wait_for_the_secret_to_be_read_again(
        self, assets: Assets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver, "RECHECK_MAX_AGE", -1.0)
        monkeypatch.setattr("planasonix_provider.plugins.receiver_cache.REFRESH_SECONDS", 60.0)
        may_answer = threading.Event()
        may_answer.set()

        class Connections(receiver.AirflowConnections):
            def list_names(self) -> ReceiverNames:
                return ReceiverNames(frozenset({"orders"}))

            def read(self, name: str) -> ReceiverConfig:
                assert may_answer.wait(120)
                return ReceiverConfig(name, (SecretStr(SECRET),), "orders_ready")

        async with to(make_app(Connections())) as deliver:
            assert (await deliver()).status_code == 204
            may_answer.clear()
            forged = headers(b"", ANOTHER_SECRET)
            sent = [asyncio.create_task(deliver(headers=forged)) for _ in range(receiver.MAX_RECHECKS + 20)]
            done, waiting = await asyncio.wait(sent, timeout=3)
            assert [one.result().status_code for one in done] == [401] * 20
            may_answer.set()
            assert {(await one).status_code for one in waiting} == {401}

    async def test_a_body_is_read_by_nobody_before_its_signature_fits(self, deliver: Deliver) -> None:
        told = b"{"
        assert (await deliver(told, headers=headers(told, ANOTHER_SECRET))).status_code == 401
        assert (await deliver(told)).status_code == 400

    @pytest.mark.usefixtures("assets")
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        max_examples=60,
        deadline=None,
    )
    @given(content=st.binary(max_size=300), is_signed=st.booleans())
    def test_any_bytes_at_all_are_refused_and_change_nothing(
        self, connection: Callable[..., None], content: bytes, is_signed: bool
    ) -> None:
        async def send() -> httpx.Response:
            async with to(make_app()) as deliver:
                return await deliver(content, headers=headers(content, SECRET if is_signed else ANOTHER_SECRET))

        answer = asyncio.run(send())
        assert (answer.status_code, answer.content) == (400 if is_signed else 401, b"")
        assert rows() == 0


class TestSize:
    async def test_a_body_that_says_that_it_is_too_large_is_not_read(
        self, assets: Assets, connection: Callable[..., None]
    ) -> None:
        read: list[int] = []

        async def parts() -> AsyncIterator[bytes]:
            read.append(1)
            yield b"x"

        sent = {"Content-Length": str(reading.MAX_BODY_BYTES + 1)}
        answer = await send_parts(parts(), headers=sent)
        assert (answer.status_code, answer.content, answer.headers["connection"]) == (413, b"", "close")

    async def test_a_body_that_does_not_say_it_is_read_no_further_than_it_may_be(
        self, assets: Assets, connection: Callable[..., None]
    ) -> None:
        read: list[int] = []

        async def parts() -> AsyncIterator[bytes]:
            for number in range(1000):
                read.append(number)
                yield b"x" * 64 * 1024

        assert (await send_parts(parts())).status_code == 413

    async def test_a_body_of_the_largest_size_is_read(self, deliver: Deliver, assets: Assets) -> None:
        told = body(data={"status": "succeeded", "more": ""})
        told = told.replace(b'"more": ""', b'"more": "' + b"x" * (reading.MAX_BODY_BYTES - len(told)) + b'"')
        assert len(told) == reading.MAX_BODY_BYTES
        assert (await deliver(told)).status_code == 204
        assert (await deliver(told + b" ")).status_code == 413
        assert len(assets.events()) == 1

    def test_a_slow_body_is_not_waited_for(self) -> None:
        async def slow() -> Any:
            await asyncio.sleep(reading.READ_TIMEOUT / 3 * 2)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def main() -> tuple[RefusedBodyError, float]:
            with pytest.raises(RefusedBodyError) as refusal:
                await BodyReader().read(Request({"type": "http", "headers": []}, slow))
            return refusal.value, asyncio.get_running_loop().time()

        refusal, passed = virtual_time.run(main())
        assert refusal.status == 408
        assert passed == reading.READ_TIMEOUT

    def test_the_slowest_body_makes_room_for_a_newer_one(self) -> None:
        async def never() -> Any:
            await asyncio.sleep(3600)

        async def at_once() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def main() -> tuple[list[bool], bytes]:
            bodies = BodyReader(max_bodies=3)
            slow = [asyncio.create_task(read(bodies, never)) for _ in range(3)]
            await asyncio.sleep(1)
            assert not any(one.done() for one in slow)
            newest = await read(bodies, at_once)
            done, _ = await asyncio.wait(slow, timeout=0.1)
            with pytest.raises(RefusedBodyError) as refusal:
                await slow[0]
            assert refusal.value.status == 408
            for one in slow[1:]:
                one.cancel()
            return [one in done for one in slow], newest

        async def read(bodies: BodyReader, receive: Callable[[], Any]) -> bytes:
            return await bodies.read(Request({"type": "http", "headers": []}, receive))

        assert virtual_time.run(main()) == ([True, False, False], b"{}")

    async def test_a_body_that_breaks_off_is_no_error_of_ours(
        self, assets: Assets, connection: Callable[..., None], lines: Callable[[], list[str]]
    ) -> None:
        async def gone() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        assert (await ask(make_app(), gone))["status"] == 400
        assert lines() == ["A delivery to the webhook receiver was refused: its body broke off."]

    @pytest.mark.parametrize("length", ["-1", "many", "1" * 30, "²"])
    async def test_a_length_that_is_none_is_refused(
        self, assets: Assets, connection: Callable[..., None], length: str
    ) -> None:
        async def gone() -> dict[str, Any]:
            raise AssertionError("it was read")

        assert (await ask(make_app(), gone, [(b"content-length", length.encode("latin-1"))]))["status"] == 400

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
    async def test_no_byte_is_read_for_whoever_does_not_sign_or_for_a_receiver_that_is_not_there(
        self, assets: Assets, connection: Callable[..., None], name: str, sent: dict[str, str] | None, status: int
    ) -> None:
        async def read() -> dict[str, Any]:
            raise AssertionError("it was read")

        sent = headers(b"{}") if sent is None else sent
        given = [(key.lower().encode(), value.encode("latin-1")) for key, value in sent.items()]
        answer = await ask(make_app(), read, name=name, signed=given)
        assert (answer["status"], dict(answer["headers"])[b"connection"]) == (status, b"close")


async def send_parts(parts: AsyncIterator[bytes], **given: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://airflow") as client:
        signed = headers(b"") | given.pop("headers", {})
        return await client.post("/webhook/orders", content=parts, headers=signed, **given)


async def ask(
    app: Any,
    receive: Callable[[], Any],
    sent: list[tuple[bytes, bytes]] | None = None,
    *,
    name: str = "orders",
    signed: list[tuple[bytes, bytes]] | None = None,
) -> Any:
    """Ask as a server does, whose client sends nothing, or goes."""
    answers: list[Any] = []
    if signed is None:
        signed = [(key.lower().encode(), value.encode()) for key, value in headers(b"").items()]

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/webhook/{name}",
        "raw_path": f"/webhook/{name}".encode(),
        "query_string": b"",
        "headers": [*signed, *(sent or [])],
        "root_path": "",
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return answers[0]


class TestReceiversThatAreNotThere:
    @pytest.mark.parametrize("name", ["nobody", "a_database", "silent", "without_asset", "x" * 201, "a%20b", "%00"])
    async def test_they_all_answer_alike(self, deliver: Deliver, connection: Callable[..., None], name: str) -> None:
        connection("a_database", conn_type="postgres")
        connection("silent", password=None)
        connection("without_asset", extra={})
        for sent in (headers(b"{}"), headers(b"{}", ANOTHER_SECRET)):
            answer = await deliver(b"{}", name=name, headers=sent)
            assert (answer.status_code, answer.content) == (503, b"")
            assert set(answer.headers) <= {"content-length", "connection"}

    @pytest.mark.parametrize("name", ["orders", "nobody", "a_database"])
    async def test_what_is_not_signed_is_refused_alike_for_each_name(
        self, deliver: Deliver, connection: Callable[..., None], name: str
    ) -> None:
        connection("a_database", conn_type="postgres")
        answer = await deliver(b"{}", name=name, headers={})
        assert (answer.status_code, answer.content) == (401, b"")

    async def test_the_log_says_what_a_receiver_lacks_once(
        self, deliver: Deliver, connection: Callable[..., None], lines: Callable[[], list[str]]
    ) -> None:
        connection("silent", password=None)
        for _ in range(3):
            await deliver(name="silent")
            await deliver(name="nobody")
        (line,) = lines()
        assert line.startswith("Airflow connection 'silent' has no signing secret: put it into the password, or say")

    async def test_no_other_method_and_no_other_path_tells_anything(self, assets: Assets) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://airflow") as client:
            assert (await client.get("/webhook/orders")).status_code == 405
            for path in ("/", "/webhook", "/webhook/", "/webhook/orders/", "/docs", "/openapi.json", "/redoc"):
                assert (await client.post(path)).status_code == 404, path


class TestRotation:
    async def test_two_secrets_count_while_one_is_rotated(
        self, deliver: Deliver, assets: Assets, connection: Callable[..., None]
    ) -> None:
        extra = {"asset": "orders_ready", "previous_signing_secret": SECRET}
        connection(password=ANOTHER_SECRET, extra=extra)
        for secret in (SECRET, ANOTHER_SECRET):
            told = body()
            assert (await deliver(told, headers=headers(told, secret))).status_code == 204
        told = body()
        assert (await deliver(told, headers=headers(told, "whsec_of_nobody"))).status_code == 401
        assert len(assets.events()) == 2

    async def test_a_new_secret_counts_at_once(
        self, deliver: Deliver, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receiver, "RECHECK_MAX_AGE", 0.0)
        assert (await deliver()).status_code == 204
        connection(password=ANOTHER_SECRET)
        told = body()
        assert (await deliver(told, headers=headers(told, ANOTHER_SECRET))).status_code == 204
        assert (await deliver(told, headers=headers(told, SECRET))).status_code == 401

    async def test_what_the_operator_keeps_in_a_variable_is_read_there_both_secrets_of_it(
        self, deliver: Deliver, assets: Assets, connection: Callable[..., None]
    ) -> None:
        place = "variable:planasonix_webhook_secret"
        connection(password=None, extra={"asset": "orders_ready", "kept_in": place})
        try:
            for secret in (SECRET, ANOTHER_SECRET):
                secret_store(place).save(SecretStr(secret), webhook_id="wh_1")
            for secret in (SECRET, ANOTHER_SECRET):
                told = body()
                assert (await deliver(told, headers=headers(told, secret))).status_code == 204
        finally:
            Variable.delete("planasonix_webhook_secret")
        assert len(assets.events()) == 2


class TestWhatCannotBeRecorded:
    @pytest.mark.parametrize("asset", ["nothing_of_the_kind", "retired"])
    async def test_an_asset_that_no_dag_knows_is_asked_for_again(
        self,
        deliver: Deliver,
        assets: Assets,
        connection: Callable[..., None],
        lines: Callable[[], list[str]],
        asset: str,
    ) -> None:
        assets.add("retired", is_active=False)
        connection(extra={"asset": asset})
        told = body()
        assert [(await deliver(told)).status_code for _ in range(3)] == [503] * 3
        assert rows() == 0
        (line,) = lines()
        assert line.startswith(
            f"Webhook receiver 'orders' could not record a delivery. No DAG knows the asset '{asset}'"
        )
        assets.add(f"{asset}_2", asset)
        assert (await deliver(told)).status_code == 204
        assert len(assets.events(f"{asset}_2")) == 1

    @pytest.mark.parametrize(
        ("spoiled", "complaint"),
        [
            ({"id": None}, "id: Field required"),
            ({"id": "  "}, "id: Value error, must be a text that can be printed"),
            ({"id": "evt\x00"}, "id: Value error, must be a text that can be printed"),
            ({"id": 7}, "id: Input should be a valid string"),
            ({"type": None}, "type: Field required"),
            ({"timestamp": "yesterday"}, "timestamp: Input should be a valid datetime"),
            ({"timestamp": "2025-03-27T14:30:02"}, "timestamp: Input should have timezone info"),
            ({"timestamp": "9999-12-31T23:59:59-05:00"}, "timestamp: Value error, the time is out of range"),
            ({"job_id": ["job_1"]}, "job_id: Input should be a valid string"),
            ({"data": "succeeded"}, "data: Input should be an object"),
        ],
    )
    async def test_what_planasonix_signs_but_nobody_can_read_is_refused_with_a_line(
        self, deliver: Deliver, lines: Callable[[], list[str]], spoiled: dict[str, Any], complaint: str
    ) -> None:
        answer = await deliver(body(**{"type": "job.told_to_nobody", **spoiled}))
        assert (answer.status_code, answer.content) == (400, b"")
        (line,) = lines()
        assert line.startswith(
            f"Webhook receiver 'orders' got a signed delivery that it cannot read, and does not count it: {complaint}"
        )
        assert "told_to_nobody" not in line
        assert rows() == 0

    @pytest.mark.parametrize("told", [b"", b"[]", b"null", b'{"id": "\\ud800"}', b"\xff", b"{" * 5000])
    async def test_neither_is_what_is_no_json_object(
        self, deliver: Deliver, lines: Callable[[], list[str]], told: bytes
    ) -> None:
        assert (await deliver(told)).status_code == 400
        (line,) = lines()
        assert line.endswith("cannot read, and does not count it: it is not a JSON object.")

    async def test_a_database_that_fails_is_told_of_without_the_delivery(
        self, assets: Assets, connection: Callable[..., None], lines: Callable[[], list[str]]
    ) -> None:
        class Broken(DeliveryStore):
            def record(self, *_: Any) -> Any:
                raise faults.pop()

        faults: list[Exception] = [PlanasonixDeliveryStoreError("The disk is full."), RuntimeError(SECRET)]
        async with to(make_app(deliveries=Broken())) as deliver:
            assert [(await deliver()).status_code for _ in range(2)] == [503, 503]
        assert lines() == [
            "Webhook receiver 'orders' could not record a delivery (RuntimeError), and asked Planasonix to send it "
            "again. "
            "If it stays, look at the health of Airflow's database."
        ]

    async def test_the_event_loop_goes_on_while_a_delivery_is_recorded(
        self, assets: Assets, connection: Callable[..., None]
    ) -> None:
        may_go_on = threading.Event()

        class Slow(DeliveryStore):
            def record(self, *arguments: Any) -> Any:
                assert may_go_on.wait(120)
                return super().record(*arguments)

        async with to(make_app(deliveries=Slow())) as deliver:
            recording = asyncio.create_task(deliver())
            # Somebody else's request is answered meanwhile, by the same event loop.
            assert (await deliver(name="nobody")).status_code == 503
            assert not recording.done()
            may_go_on.set()
            assert (await recording).status_code == 204


async def test_a_test_event_of_the_simulator_is_one_like_others(
    assets: Assets, connection: Callable[..., None]
) -> None:
    with Simulator() as simulator, Postbox() as postbox:
        webhooks = simulator.workspace.webhooks
        webhook = webhooks.create(WebhookRequestBody(url=postbox.url, events=["job.failed"], secret="x" * 32))
        webhooks.test(webhook.id)
        (sent,) = postbox.wait(1)
    connection(password="x" * 32)
    async with to(make_app()) as deliver:
        assert (await deliver(sent.body, headers=sent.headers)).status_code == 204
    (event,) = assets.events()
    assert (event["event"], event["status"], event["job_id"]) == ("job.failed", "failed", sent.event["job_id"])
