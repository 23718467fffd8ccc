from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError
from planasonix_provider.get_provider_info import (
    RECEIVER_CONN_FIELDS,
    RECEIVER_UI_FIELD_BEHAVIOUR,
    get_provider_info,
)
from planasonix_provider.hooks.webhook_receiver import PlanasonixReceiverHook, ReceiverConfig
from planasonix_provider.secret_stores import PlanasonixSecretError, secret_store
from tests.hooks.conftest import drawn

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
def kept(tmp_path: Path) -> str:
    """A place where a secret was kept, and another before it."""
    place = f"file:{tmp_path / 'secret'}"
    for secret in (OLDER, SECRET):
        secret_store(place).save(SecretStr(secret), webhook_id="wh_1")
    return place


class TestWhatTheConnectionSays:
    def test_a_receiver_is_a_secret_and_an_asset(self, connect: Connect) -> None:
        receiver = connect().get_receiver()
        assert receiver == ReceiverConfig("orders", (SecretStr(SECRET),), "orders_ready")
        assert SECRET not in repr(receiver)

    def test_there_is_none_where_there_is_no_connection_or_one_of_another_type(self, connect: Connect) -> None:
        assert connect(conn_type="postgres").get_receiver() is None
        assert PlanasonixReceiverHook("nobody").get_receiver() is None

    def test_reading_it_leaves_no_line_in_the_log(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        connect().get_receiver()
        PlanasonixReceiverHook("nobody").get_receiver()
        assert caplog.records == []

    def test_a_backend_that_fails_is_passed_over_and_told_of_where_no_other_knows(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Backend:
            fault: Exception = ConnectionError("down")

            def get_connection(self, conn_id: str) -> None:
                raise self.fault

        others = airflow_compat.secrets_backends()
        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Backend(), *others])
        assert connect().get_receiver() is not None
        with pytest.raises(ConnectionError):
            PlanasonixReceiverHook("nobody").get_receiver()
        Backend.fault = PermissionError("it is not to be read here")
        with pytest.raises(PermissionError):
            connect().get_receiver()

    def test_a_connection_that_only_names_a_receiver_does_not_hide_that_a_secrets_backend_fails(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Backend:
            def get_connection(self, conn_id: str) -> None:
                raise ConnectionError("down")

        others = airflow_compat.secrets_backends()
        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Backend(), *others])
        with pytest.raises(ConnectionError):
            connect(password=None, extra={}).get_receiver()
        assert connect(password=SECRET).get_receiver() is not None

    def test_it_is_read_anew_each_time(self, connect: Connect) -> None:
        hook = connect()
        hook.get_receiver()
        connect(password=OLDER)
        assert secrets(hook.get_receiver()) == [OLDER]

    def test_a_secret_before_it_counts_as_well(self, connect: Connect) -> None:
        extra = {"asset": "orders_ready", "previous_signing_secret": OLDER}
        assert secrets(connect(extra=extra).get_receiver()) == [SECRET, OLDER]

    def test_what_a_keeper_keeps_counts_both_secrets_of_it(self, connect: Connect, kept: str) -> None:
        receiver = connect(password=None, extra={"asset": "orders_ready", "kept_in": f" {kept} "}).get_receiver()
        assert secrets(receiver) == [SECRET, OLDER]

    def test_so_does_what_a_keeper_has_put_into_the_password(self, connect: Connect, kept: str) -> None:
        written = Path(kept.removeprefix("file:")).read_text()
        assert secrets(connect(password=written).get_receiver()) == [SECRET, OLDER]

    def test_a_secret_that_is_in_two_places_is_one(self, connect: Connect, kept: str) -> None:
        receiver = connect(password=f" {OLDER}\n", extra={"asset": "orders_ready", "kept_in": kept}).get_receiver()
        assert secrets(receiver) == [OLDER, SECRET]

    @pytest.mark.parametrize(
        "events", ["job.failed, job.cancelled", '["job.failed", "job.cancelled"]', ["job.failed", " job.cancelled "]]
    )
    def test_events_are_named_in_a_form_a_uri_or_json(self, connect: Connect, events: Any) -> None:
        receiver = connect(extra={"asset": "orders_ready", "events": events}).get_receiver()
        assert receiver is not None
        assert receiver.events == {"job.failed", "job.cancelled"}
        assert [receiver.accepts(event) for event in ("job.failed", "job.succeeded")] == [True, False]

    def test_a_uri_says_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = f"planasonix-webhook://:{SECRET}@/?asset=orders_ready&events=job.failed"
        monkeypatch.setenv("AIRFLOW_CONN_ORDERS", uri)
        expected = ReceiverConfig("orders", (SecretStr(SECRET),), "orders_ready", frozenset({"job.failed"}))
        assert PlanasonixReceiverHook("orders").get_receiver() == expected

    def test_what_an_untouched_form_sends_is_all_events(self, connect: Connect) -> None:
        sent = dict.fromkeys(RECEIVER_CONN_FIELDS, "") | {"asset": "orders_ready"}
        assert connect(extra=sent).get_receiver() == connect().get_receiver()


class TestBadInput:
    @pytest.mark.parametrize("password", [None, "", "  "])
    def test_no_secret(self, connect: Connect, password: str | None, tmp_path: Path) -> None:
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
        ],
    )
    def test_each_field_is_refused_by_name(self, connect: Connect, field: str, value: Any) -> None:
        with pytest.raises(PlanasonixError, match=f"'orders', extra '{field}': got .*, allowed is ") as refused:
            connect(extra={"asset": "orders_ready", field: value}).get_receiver()
        assert OLDER not in str(refused.value)

    @pytest.mark.parametrize("place", [SECRET, [SECRET], f"file:{SECRET}"])
    def test_a_secret_in_the_wrong_field_is_not_shown(self, connect: Connect, place: Any) -> None:
        with pytest.raises(PlanasonixConfigurationError, match="extra 'kept_in': got a ") as refused:
            connect(extra={"asset": "orders_ready", "kept_in": place}).get_receiver()
        assert SECRET not in str(refused.value)

    def test_a_receiver_is_not_pickled(self, connect: Connect) -> None:
        receiver = connect(extra={"asset": "orders_ready"}).get_receiver()
        with pytest.raises(TypeError, match="A ReceiverConfig holds signing secrets, so it is not pickled"):
            pickle.dumps(receiver)

    def test_a_place_that_holds_something_else_is_named(self, connect: Connect, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("something else")
        hook = connect(extra={"asset": "orders_ready", "kept_in": f"file:{tmp_path / 'other'}"})
        with pytest.raises(PlanasonixSecretError, match="connection 'orders', extra 'kept_in': No signing secret can"):
            hook.get_receiver()


class TestConnection:
    @pytest.fixture
    def hook(self, connect: Connect) -> PlanasonixReceiverHook:
        return connect(extra={"asset": "hook_test"})

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 has the receiver")
    def test_airflow_2_has_no_receiver(self, hook: PlanasonixReceiverHook) -> None:
        assert hook.test_connection()[1].startswith("The receiver of webhooks needs Airflow 3")

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_it_says_what_deliveries_would_do(self, hook: PlanasonixReceiverHook, connect: Connect, kept: str) -> None:
        is_good, words = hook.test_connection()
        assert not is_good
        assert words.startswith("No DAG knows the asset 'hook_test'. Write a DAG that is scheduled on it")
        add_asset("hook_test")
        said = "are events of the asset 'hook_test'."
        assert hook.test_connection() == (True, f"Deliveries that are signed with one secret {said}")
        connect(extra={"asset": "hook_test", "kept_in": kept})
        assert hook.test_connection() == (True, f"Deliveries that are signed with any of 2 secrets {said}")
        connect(extra={"asset": "hook_test", "events": "job.failed, job.suceeded"})
        asks = "This version of airflow-provider-planasonix does not know job.suceeded: check the spelling."
        assert hook.test_connection() == (True, f"Deliveries that are signed with one secret {said} {asks}")

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_it_says_what_is_wrong(self, connect: Connect) -> None:
        assert (
            connect(password="")
            .test_connection()[1]
            .startswith("The Airflow connection has no signing secret: put it into")
        )
        assert (
            connect(extra={})
            .test_connection()[1]
            .startswith("The Airflow connection, extra 'asset': got nothing, allowed")
        )
        wrong = connect(conn_type="postgres").test_connection()
        assert wrong == (False, "The Airflow connection is not of the type Planasonix Webhook: choose that type.")

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_airflows_own_button_reaches_it(self, hook: PlanasonixReceiverHook) -> None:
        answer = Connection(conn_id="orders", conn_type="planasonix_webhook").test_connection()
        assert answer == hook.test_connection()


def add_asset(name: str) -> None:
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(AssetModel(name=name, uri=name, group="asset", extra={}))
        session.flush()
        session.add(AssetActive(name=name, uri=name))


class TestForm:
    def test_the_provider_info_is_made_of_the_table(self) -> None:
        types = {described["connection-type"]: described for described in get_provider_info()["connection-types"]}
        described = types[PlanasonixReceiverHook.conn_type]
        assert described["hook-name"] == PlanasonixReceiverHook.hook_name
        assert described["hook-class-name"] == f"{PlanasonixReceiverHook.__module__}.PlanasonixReceiverHook"
        assert described["ui-field-behaviour"] is RECEIVER_UI_FIELD_BEHAVIOUR
        assert described["conn-fields"] is RECEIVER_CONN_FIELDS

    def test_the_standard_fields_are_those_of_the_table(self) -> None:
        behaviour = PlanasonixReceiverHook.get_ui_field_behaviour()
        assert behaviour["relabeling"] == RECEIVER_UI_FIELD_BEHAVIOUR["relabeling"]

    def test_a_secret_is_typed_into_a_field_that_hides_it(self) -> None:
        wtforms = pytest.importorskip("wtforms", reason="this Airflow draws its forms without wtforms")
        kinds = {
            name: widget.field_class for name, widget in PlanasonixReceiverHook.get_connection_form_widgets().items()
        }
        assert kinds == {
            "asset": wtforms.StringField,
            "kept_in": wtforms.StringField,
            "previous_signing_secret": wtforms.PasswordField,
            "events": wtforms.StringField,
        }

    def test_airflow_masks_what_is_secret_and_shows_what_is_not(self) -> None:
        from airflow.providers.common.compat.sdk import redact

        extra = dict.fromkeys(RECEIVER_CONN_FIELDS, "value")
        assert redact(extra) == extra | {"previous_signing_secret": "***"}

    @drawn
    def test_airflow_lists_the_connection_type_with_its_form(self) -> None:
        done = subprocess.run([sys.executable, "-c", ASK_AIRFLOW], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("FORM ")]
        assert json.loads(line.removeprefix("FORM ")) == {
            "hook": ["Planasonix Webhook", "receiver_conn_id", True],
            "fields": {name: field["label"] for name, field in RECEIVER_CONN_FIELDS.items()},
            "password": "Signing secret",
        }


#: Asks the installed Airflow what it shows for the connection type, in the way of its own user interface.
ASK_AIRFLOW = """
import json
from airflow.providers_manager import ProvidersManager

try:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
except ImportError:  # Airflow 2
    password = ProvidersManager().field_behaviours["planasonix_webhook"]["relabeling"]["password"]
    widgets = ProvidersManager().connection_form_widgets
    fields = {w.field_name: w.field.args[0] for n, w in widgets.items() if n.startswith("extra__planasonix_webhook__")}
else:
    meta = next(m for m in HookMetaService.hook_meta_data() if m.connection_type == "planasonix_webhook")
    password = meta.standard_fields.password.title
    fields = {name: field["schema"]["title"] for name, field in meta.extra_fields.items()}
hook = ProvidersManager().hooks["planasonix_webhook"]
hook = [hook.hook_name, hook.connection_id_attribute_name, hook.connection_testable]
print("FORM", json.dumps({"hook": hook, "fields": fields, "password": password}))
"""
