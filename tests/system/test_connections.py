from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dev.certificates import tls_context
from dev.local_airflow import LocalAirflow
from dev.processes import free_port
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.raw_server import RawServer, response
from tests.system.conftest import Notes


def press_test(airflow: LocalAirflow, note: Notes, **fields: Any) -> tuple[bool, str]:
    """Test a connection, as the button "Test" in the form does. Return whether it works, and the message."""
    body = {"connection_id": "tried", "conn_type": "planasonix", "password": API_KEY, **fields}
    answer = airflow.api("POST", "connections/test", body)
    assert API_KEY not in answer["message"]
    note(answer["message"])
    return answer["status"], answer["message"]


def test_a_valid_connection(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    works, message = press_test(airflow, note, host=simulator.url)
    assert works
    assert message == f"Connected to {simulator.url}. The API key may read jobs."


def test_a_host_with_the_prefix_of_the_routes(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    assert press_test(airflow, note, host=f"{simulator.url}/api/v1")[0]


def test_an_unknown_host(airflow: LocalAirflow, note: Notes) -> None:
    works, message = press_test(airflow, note, host="https://api.planasonix.invalid")
    assert not works
    assert "no such host at https://api.planasonix.invalid" in message
    assert "Check the host" in message


def test_a_port_without_a_server(airflow: LocalAirflow, note: Notes) -> None:
    port = free_port()
    works, message = press_test(airflow, note, host=f"http://127.0.0.1:{port}")
    assert not works
    assert f"connection refused at http://127.0.0.1:{port}" in message
    assert "Check the host and port" in message


def test_an_untrusted_certificate(airflow: LocalAirflow, note: Notes, tmp_path: Path) -> None:
    context, certificate = tls_context(tmp_path)
    with RawServer(context).respond_with(response(200, {"data": [], "meta": {"page": {"cursor": None}}})) as server:
        works, message = press_test(airflow, note, host=server.url)
        assert not works
        assert "no trusted TLS connection" in message
        assert '"verify" in its extra may name your own CA bundle' in message
        assert press_test(airflow, note, host=server.url, extra=f'{{"verify": "{certificate}"}}')[0]


def test_https_on_a_port_with_plain_http(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    works, message = press_test(airflow, note, host=simulator.url.replace("http:", "https:"))
    assert not works
    assert "Check the host of the Airflow connection, its scheme and its port." in message


@pytest.mark.parametrize("status", [200, 502])
def test_an_html_page_of_a_proxy(status: int, airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    simulator.fail("html", status=status)
    works, message = press_test(airflow, note, host=simulator.url)
    assert not works
    assert "HTML page" in message
    assert "proxy" in message


def test_an_invalid_key(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    works, message = press_test(airflow, note, host=simulator.url, password="plnx_test_mistyped")
    assert not works
    assert "401" in message
    assert "The API key of the Airflow connection, which is its password, is missing" in message
    assert "plnx_test_mistyped" not in message


def test_a_key_without_the_scope_to_read_jobs(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    key = simulator.workspace.keys.add("plnx_test_may_only_write", scopes=["jobs:write"]).value
    works, message = press_test(airflow, note, host=simulator.url, password=key)
    assert not works
    assert "403" in message
    assert "lacks the scope" in message
    assert key not in message


def test_a_path_without_the_api(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    works, message = press_test(airflow, note, host=f"{simulator.url}/gateway")
    assert not works
    assert f"{simulator.url}/gateway answers, but has no Orchestration API at /api/v1" in message


def test_no_key(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    works, message = press_test(airflow, note, host=simulator.url, password="")
    assert not works
    assert "has no API key" in message


def test_the_rest_api_masks_the_key(airflow: LocalAirflow) -> None:
    one = airflow.api("GET", "connections/planasonix_default")
    connections = airflow.api("GET", "connections?limit=100")["connections"]
    (listed,) = (each for each in connections if each["connection_id"] == "planasonix_default")
    for shown in (one, listed):
        # The REST API of Airflow 2.11 has no field for the password.
        assert shown.get("password", "***") == "***"
        assert API_KEY not in str(shown)
