from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat
from planasonix_provider.airflow_compat import NO_PARTITIONS_WARNING, has_partitions
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError
from planasonix_provider.get_provider_info import RECEIVER_CONN_FIELDS
from planasonix_provider.hooks.webhook_receiver import PlanasonixReceiverHook, ReceiverConfig
from planasonix_provider.secret_stores import PlanasonixSecretError, secret_store

SECRET = "whsec_4b1d7a90c2"
OLDER = "whsec_e83f05d6b7"

Connect = Callable[..., PlanasonixReceiverHook]


@pytest.fixture
def connect(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Connect:
    def make(**fields: Any) -> PlanasonixReceiverHook:
        value = {"conn_type": "planasonix_webhook", "password": SECRET, "extra": {"asset": "orders_ready"}} | fields
        monkeypatch.setenv("AIRFLOW_CONN_ORDERS", json.dumps(value))
        return PlanasonixReceiverHook("orders")

    return make


def secrets(receiver: ReceiverConfig | None) -> list[str]:
    assert receiver is not None
    return [secret.get_secret_value() for secret in receiver.secrets]


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A destination with a current and a previous secret."""
    to = f"file:{tmp_path / 'secret'}"
    for secret in (OLDER, SECRET):
        secret_store(to).save(SecretStr(secret), webhook_id="wh_1")
    return to


class FailingBackend:
    error: Exception = ConnectionError("down")

    def get_connection(self, conn_id: str) -> None:
        raise self.error


@pytest.fixture
def failing_backend(monkeypatch: pytest.MonkeyPatch) -> type[FailingBackend]:
    """A secrets backend that fails, which Airflow reads before all others."""
    monkeypatch.setattr(FailingBackend, "error", FailingBackend.error)
    others = airflow_compat.secrets_backends()
    monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [FailingBackend(), *others])
    return FailingBackend


class TestGetReceiver:
    def test_needs_a_secret_and_an_asset(self, connect: Connect) -> None:
        receiver = connect().get_receiver()
        assert receiver == ReceiverConfig("orders", (SecretStr(SECRET),), "orders_ready")
        assert SECRET not in repr(receiver)

    def test_returns_none_without_a_connection_of_its_type(self, connect: Connect) -> None:
        assert connect(conn_type="postgres").get_receiver() is None
        assert PlanasonixReceiverHook("nobody").get_receiver() is None

    def test_logs_nothing(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        connect().get_receiver()
        PlanasonixReceiverHook("nobody").get_receiver()
        assert caplog.records == []

    def test_skips_a_failing_backend_and_raises_its_error_if_no_other_has_the_receiver(
        self, connect: Connect, failing_backend: type[FailingBackend]
    ) -> None:
        assert connect().get_receiver() is not None
        with pytest.raises(ConnectionError):
            PlanasonixReceiverHook("nobody").get_receiver()
        failing_backend.error = PermissionError("access denied")
        with pytest.raises(PermissionError):
            connect().get_receiver()

    def test_raises_the_error_of_a_backend_that_may_have_the_missing_fields(
        self, connect: Connect, failing_backend: type[FailingBackend]
    ) -> None:
        with pytest.raises(ConnectionError):
            connect(password=None, extra={}).get_receiver()
        assert connect(password=SECRET).get_receiver() is not None

    def test_reads_the_connection_at_each_call(self, connect: Connect) -> None:
        hook = connect()
        hook.get_receiver()
        connect(password=OLDER)
        assert secrets(hook.get_receiver()) == [OLDER]

    def test_returns_the_previous_secret_too(self, connect: Connect) -> None:
        extra = {"asset": "orders_ready", "previous_signing_secret": OLDER}
        assert secrets(connect(extra=extra).get_receiver()) == [SECRET, OLDER]

    def test_returns_both_secrets_of_a_secret_store(self, connect: Connect, stored: str) -> None:
        receiver = connect(password=None, extra={"asset": "orders_ready", "kept_in": f" {stored} "}).get_receiver()
        assert secrets(receiver) == [SECRET, OLDER]

    def test_returns_both_secrets_that_a_store_wrote_into_the_password(self, connect: Connect, stored: str) -> None:
        written = Path(stored.removeprefix("file:")).read_text()
        assert secrets(connect(password=written).get_receiver()) == [SECRET, OLDER]

    def test_returns_a_secret_once(self, connect: Connect, stored: str) -> None:
        receiver = connect(password=f" {OLDER}\n", extra={"asset": "orders_ready", "kept_in": stored}).get_receiver()
        assert secrets(receiver) == [OLDER, SECRET]

    @pytest.mark.parametrize(
        "events", ["job.failed, job.cancelled", '["job.failed", "job.cancelled"]', ["job.failed", " job.cancelled "]]
    )
    def test_parses_events_from_a_form_a_uri_or_json(self, connect: Connect, events: Any) -> None:
        receiver = connect(extra={"asset": "orders_ready", "events": events}).get_receiver()
        assert receiver is not None
        assert receiver.events == {"job.failed", "job.cancelled"}
        assert [receiver.accepts(event) for event in ("job.failed", "job.succeeded")] == [True, False]

    def test_parses_a_uri(self, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = f"planasonix-webhook://:{SECRET}@/?asset=orders_ready&events=job.failed"
        monkeypatch.setenv("AIRFLOW_CONN_ORDERS", uri)
        expected = ReceiverConfig("orders", (SecretStr(SECRET),), "orders_ready", frozenset({"job.failed"}))
        assert PlanasonixReceiverHook("orders").get_receiver() == expected

    @pytest.mark.parametrize(
        ("fields", "key"),
        [
            ({"partition_by": " day "}, "2025-03-27T00:00:00"),
            ({"partition_by": "day", "partition_timezone": "Asia/Tokyo"}, "2025-03-28T00:00:00"),
            ({"partition_by": "month", "partition_key_format": "%Y-%m"}, "2025-03"),
            ({"partition_by": "year", "partition_key_format": "%y"}, "25"),
            ({"partition_by": "quarter", "partition_key_format": "%yQ{quarter}"}, "25Q1"),
            ({"partition_by": "hour", "partition_key_format": "%Y-%m-%dT%H"}, "2025-03-27T15"),
            ({"partition_timezone": "Asia/Tokyo"}, None),
        ],
    )
    def test_parses_partitions(self, connect: Connect, fields: dict[str, str], key: str | None) -> None:
        receiver = connect(extra={"asset": "orders_ready", **fields}).get_receiver()
        assert receiver is not None
        assert receiver.partition_key(datetime(2025, 3, 27, 15, 30, tzinfo=UTC)) == key

    def test_accepts_all_events_of_an_empty_form(self, connect: Connect) -> None:
        sent = dict.fromkeys(RECEIVER_CONN_FIELDS, "") | {"asset": "orders_ready"}
        assert connect(extra=sent).get_receiver() == connect().get_receiver()


class TestInvalidFields:
    @pytest.mark.parametrize("password", [None, "", "  "])
    def test_a_secret_is_required(self, connect: Connect, password: str | None, tmp_path: Path) -> None:
        for extra in ({"asset": "orders_ready"}, {"asset": "orders_ready", "kept_in": f"file:{tmp_path / 'none'}"}):
            with pytest.raises(PlanasonixConfigurationError, match="connection 'orders' has no signing secret: put it"):
                connect(password=password, extra=extra).get_receiver()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("asset", None),
            ("asset", " "),
            ("asset", ["orders_ready"]),
            ("events", " , "),
            ("events", "[]"),
            ("events", "[job.failed"),
            ("events", {"job.failed": True}),
            ("events", ["job.failed", 7]),
            ("kept_in", "planasonix_webhook_secret"),
            ("kept_in", ["variable:x"]),
            ("kept_in", "file:relative"),
            ("previous_signing_secret", [OLDER]),
            ("partition_by", "decade"),
            ("partition_by", ["day"]),
            ("partition_timezone", "Mars/Base"),
            ("partition_timezone", 1),
            ("partition_key_format", "day"),
            ("partition_key_format", "%Y\0"),
        ],
    )
    def test_an_error_names_the_field(self, connect: Connect, field: str, value: Any) -> None:
        with pytest.raises(PlanasonixError, match=f"'orders', extra '{field}': got .*, allowed is ") as refused:
            connect(extra={"asset": "orders_ready", field: value}).get_receiver()
        assert OLDER not in str(refused.value)

    @pytest.mark.parametrize(
        ("every", "key_format"),
        [
            ("day", "x" * 260 + "%Y-%m-%d"),
            ("day", "%Y-%m-%d%n"),
            ("day", "%n"),
            ("day", "%H"),
            ("day", "%d"),
            ("day", "%j"),
            ("hour", "%Y-%m-%d"),
            ("hour", "%dT%H"),
            ("week", "W%V"),
            ("month", "%m"),
            ("quarter", "Q{quarter} %%"),
        ],
    )
    def test_each_partition_needs_its_own_key(self, connect: Connect, every: str, key_format: str) -> None:
        extra = {"asset": "orders_ready", "partition_by": every, "partition_key_format": key_format}
        allowed = f"allowed is a format whose keys differ, with at most 250 printable characters each, for .* {every}"
        with pytest.raises(PlanasonixConfigurationError, match=f"'partition_key_format': got .*, {allowed}"):
            connect(extra=extra).get_receiver()

    def test_an_error_shows_a_value_that_looks_like_part_of_the_message(self, connect: Connect) -> None:
        with pytest.raises(PlanasonixConfigurationError) as refused:
            connect(extra={"asset": "orders_ready", "partition_by": "what allowed is foo"}).get_receiver()
        assert refused.value.message == (
            "Airflow connection 'orders', extra 'partition_by': got 'what allowed is foo', allowed is hour, day, week, "
            "month, quarter, year."
        )

    @pytest.mark.parametrize("to", [SECRET, [SECRET], f"file:{SECRET}"])
    def test_a_secret_in_the_wrong_field_is_not_shown(self, connect: Connect, to: Any) -> None:
        with pytest.raises(PlanasonixConfigurationError, match="extra 'kept_in': got a ") as refused:
            connect(extra={"asset": "orders_ready", "kept_in": to}).get_receiver()
        assert SECRET not in str(refused.value)

    def test_a_receiver_is_not_pickled(self, connect: Connect) -> None:
        receiver = connect(extra={"asset": "orders_ready"}).get_receiver()
        with pytest.raises(TypeError, match="A ReceiverConfig holds signing secrets, so it is not pickled"):
            pickle.dumps(receiver)

    def test_a_secret_store_with_another_content_is_named(self, connect: Connect, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("something else")
        hook = connect(extra={"asset": "orders_ready", "kept_in": f"file:{tmp_path / 'other'}"})
        with pytest.raises(PlanasonixSecretError, match="connection 'orders', extra 'kept_in': No signing secret can"):
            hook.get_receiver()


class TestTestConnection:
    @pytest.fixture
    def hook(self, connect: Connect) -> PlanasonixReceiverHook:
        return connect(extra={"asset": "hook_test"})

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 has the receiver")
    def test_airflow_2_has_no_receiver(self, hook: PlanasonixReceiverHook) -> None:
        assert hook.test_connection()[1].startswith("The receiver of webhooks needs Airflow 3")

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_it_describes_the_receiver(self, hook: PlanasonixReceiverHook, connect: Connect, stored: str) -> None:
        works, message = hook.test_connection()
        assert not works
        assert message.startswith("No DAG knows the asset 'hook_test'. Write a DAG that is scheduled on it")
        add_asset("hook_test")
        end = "are events of the asset 'hook_test'."
        assert hook.test_connection() == (True, f"Deliveries that are signed with one secret {end}")
        connect(extra={"asset": "hook_test", "kept_in": stored})
        assert hook.test_connection() == (True, f"Deliveries that are signed with any of 2 secrets {end}")
        connect(extra={"asset": "hook_test", "partition_by": "year", "partition_key_format": "y%Y"})
        keys = "Events of ended jobs have the partition key of the year in which the job has ended, such as y20"
        assert (keys if has_partitions() else NO_PARTITIONS_WARNING) in hook.test_connection()[1]
        connect(extra={"asset": "hook_test", "events": "job.failed, job.suceeded"})
        hint = "This version of airflow-provider-planasonix does not know job.suceeded: check the spelling."
        assert hook.test_connection() == (True, f"Deliveries that are signed with one secret {end} {hint}")

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"password": ""}, "The Airflow connection has no signing secret: put it into"),
            ({"extra": {}}, "The Airflow connection, extra 'asset': got nothing, allowed"),
            (
                {"extra": {"asset": "orders_ready", "partition_by": "day", "partition_key_format": "%n"}},
                "The Airflow connection, extra 'partition_key_format': got '%n', allowed is a format whose keys differ",
            ),
            (
                {"conn_type": "postgres"},
                "The Airflow connection is not of the type Planasonix Webhook: choose that type.",
            ),
        ],
    )
    def test_it_describes_the_problem(self, connect: Connect, fields: dict[str, Any], message: str) -> None:
        works, shown = connect(**fields).test_connection()
        assert not works
        assert shown.startswith(message)

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_airflow_calls_it(self, hook: PlanasonixReceiverHook) -> None:
        result = Connection(conn_id="orders", conn_type="planasonix_webhook").test_connection()
        assert result == hook.test_connection()


def add_asset(name: str) -> None:
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(AssetModel(name=name, uri=name, group="asset", extra={}))
        session.flush()
        session.add(AssetActive(name=name, uri=name))
