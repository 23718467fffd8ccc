from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest
from playwright.sync_api import expect

from dev.local_airflow import LocalAirflow
from dev.processes import free_port
from planasonix_provider.get_provider_info import (
    CONN_FIELDS,
    RECEIVER_CONN_FIELDS,
    RECEIVER_UI_FIELD_BEHAVIOUR,
)
from tests.browser.connection_form import ConnectionForm
from tests.browser.task_history import database_of
from tests.browser.ui import UI
from tests.conftest import API_KEY

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def deletes_its_connections(airflow: LocalAirflow) -> Iterator[None]:
    """Delete the connections that a test saves, so that other tests do not list them. The button Test saves, too."""
    with psycopg2.connect(database_of(airflow)) as database, database.cursor() as cursor:
        cursor.execute("SELECT conn_id FROM connection")
        kept = [conn_id for (conn_id,) in cursor.fetchall()]
    yield
    with psycopg2.connect(database_of(airflow)) as database, database.cursor() as cursor:
        cursor.execute("DELETE FROM connection WHERE conn_id <> ALL(%s)", [kept])


@pytest.fixture(autouse=True)
def _has_fields(ui: UI) -> None:
    if ui.version.startswith("3.0."):
        pytest.skip("without flask_appbuilder, Airflow 3.0 has a plain form for each connection type")


def fields_of(form: ConnectionForm) -> tuple[list[str], list[str]]:
    """Return the labels and help texts of all fields, including those of the extra."""
    labels, helps = form.labels(), form.helps()
    cut_off = form.truncated_placeholders()
    form.show_extra()
    labels += [label for label in form.labels() if label not in labels]
    helps += [text for text in form.helps() if text not in helps]
    assert cut_off + form.truncated_placeholders() == []
    return labels, helps


def port_for_test(ui: UI) -> list[str]:
    """Return the label of the port on versions whose button Test needs a port."""
    return ["Port (443; Test needs one)"] if ui.version in ("3.3.1", "3.3.2") else []


def test_the_form_shows_only_relevant_fields(ui: UI) -> None:
    form = ui.form
    form.new("planasonix_default", "Planasonix")
    ui.picture("form")
    ui.picture_of_the_docs("connection-form", {"x": 192, "y": 64, "width": 896, "height": 770})
    assert form.placeholders("host", "password", "port") == {
        "host": "https://api.planasonix.com",
        "password": "plnx_live_…",
        "port": "443",
    }
    labels, helps = fields_of(form)
    ui.picture("form-extra")
    assert [labels[0].lower(), *labels[1:]] == [
        *("connection id", "Connection Type", "Description"),
        *("Host (optional)", "API key", *(port_for_test(ui) or ["Port (optional)"])),
        *("Organization ID", "Web app", "Timeout (s)", "Verify TLS", "Allow plain http"),
    ]
    assert helps[1:] == [field["description"] for field in CONN_FIELDS.values()]


def test_the_receiver_form_shows_only_relevant_fields(ui: UI) -> None:
    form = ui.form
    form.new("planasonix_orders", "Planasonix Webhook")
    ui.picture("receiver")
    assert form.placeholders("password") == {"password": RECEIVER_UI_FIELD_BEHAVIOUR["placeholders"]["password"]}
    labels, helps = fields_of(form)
    ui.picture("receiver-extra")
    assert [labels[0].lower(), *labels[1:]] == [
        *("connection id", "Connection Type", "Description", "Signing secret", *port_for_test(ui)),
        *("Asset", "Secret kept in", "Previous signing secret", "Events"),
        *("Partition by", "Partition time zone", "Partition key format"),
    ]
    assert helps[1:] == [field["description"] for field in RECEIVER_CONN_FIELDS.values()]
    # Airflow 3.1 and 3.2 show this field as plain text.
    is_hidden = form.field("previous_signing_secret").get_attribute("type") == "password"
    assert is_hidden is not ui.version.startswith(("3.1.", "3.2."))


def test_the_receiver_form_does_not_show_a_saved_secret(ui: UI) -> None:
    form = ui.form
    form.new("planasonix_orders", "Planasonix Webhook")
    new, old = "whsec_new_9f8e7d6c5b4a", "whsec_old_1a2b3c4d5e6f"
    form.fill(password=new)
    form.show_extra()
    form.fill(asset="orders_ready", previous_signing_secret=old)
    form.save()
    form.open("planasonix_orders")
    shown = form.field("password").input_value()
    assert shown == ("" if ui.is_airflow_2 else "***")
    form.show_extra()
    expect(form.field("asset")).to_have_value("orders_ready")
    ui.picture("receiver-again")
    shown += form.field("previous_signing_secret").input_value() + ui.page.content()
    assert new not in shown
    assert old not in shown


def address(ui: UI) -> dict[str, str]:
    """Return the simulator's address as fields of the form."""
    url = urlsplit(ui.planasonix.url)
    return {"host": f"{url.scheme}://{url.hostname}", "port": str(url.port)}


def success_result(ui: UI) -> tuple[bool | None, str]:
    """Return the result of a successful connection test."""
    return None if ui.is_airflow_2 else True, f"Connected to {ui.planasonix.url}. The API key may read jobs."


def test_the_test_button_accepts_a_valid_key(ui: UI) -> None:
    ui.form.new("good", "Planasonix")
    ui.form.fill(**address(ui), password=API_KEY)
    said = ui.form.test("good")
    ui.picture("tested-good")
    assert said == success_result(ui)


def test_the_test_button_rejects_an_invalid_key(ui: UI) -> None:
    ui.form.new("bad_key", "Planasonix")
    ui.form.fill(**address(ui), password="plnx_test_mistyped")
    works, message = ui.form.test("bad_key")
    ui.picture("tested-bad-key")
    assert works is (None if ui.is_airflow_2 else False)
    assert "401" in message
    assert "The API key of the Airflow connection, which is its password, is missing" in message
    assert "plnx_test_mistyped" not in message


def test_the_test_button_reports_a_wrong_host(ui: UI) -> None:
    port = free_port()
    ui.form.new("wrong_host", "Planasonix")
    ui.form.fill(host="http://127.0.0.1", port=str(port), password=API_KEY)
    works, message = ui.form.test("wrong_host")
    ui.picture("tested-wrong-host")
    assert works is (None if ui.is_airflow_2 else False)
    assert f"connection refused at http://127.0.0.1:{port}" in message
    assert "Check the host and port" in message


def test_the_form_without_a_port_behaves_as_documented(ui: UI) -> None:
    """Airflow 3.3.1 and 3.3.2 reject the test of a connection without a port."""
    ui.form.new("no_port", "Planasonix")
    ui.form.fill(host=ui.planasonix.url, password=API_KEY)
    said = ui.form.test("no_port")
    if ui.version == "3.3.2":
        assert said == (False, "Bad Request")
    else:
        assert said == success_result(ui)


def test_saved_fields_are_shown_except_the_key(ui: UI) -> None:
    form = ui.form
    form.new("kept", "Planasonix")
    form.fill(**address(ui), password=API_KEY)
    form.show_extra()
    form.fill(organization_id="org_1", timeout="20")
    form.save()
    form.open("kept")
    ui.picture("form-again")
    assert {name: form.field(name).input_value() for name in ("host", "port")} == address(ui)
    # Airflow 2 leaves the field empty, and keeps the stored key if it stays empty.
    assert form.field("password").input_value() == ("" if ui.is_airflow_2 else "***")
    assert form.field("password").get_attribute("type") == "password"
    assert API_KEY not in ui.page.content()
    form.show_extra()
    assert {name: form.field(name).input_value() for name in ("organization_id", "timeout")} == {
        "organization_id": "org_1",
        "timeout": "20",
    }


def test_saving_without_a_new_key_keeps_the_key(ui: UI) -> None:
    ui.form.new("untouched", "Planasonix")
    ui.form.fill(**address(ui), password=API_KEY)
    ui.form.save()
    ui.form.open("untouched")
    ui.form.fill(description="Orders")
    ui.form.save()
    assert ui.stored_connection("untouched")["password"] == API_KEY
