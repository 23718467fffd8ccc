"""The proxy forwards everything, including failures, unless it must refuse or corrupt it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dev.processes import free_port
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.proxy import HUGE, REFUSALS, Proxy

CONNECTION = "conn_odd"


@pytest.fixture(scope="module")
def _simulator() -> Iterator[Simulator]:
    with Simulator(api_key=API_KEY, connections=[CONNECTION, "conn_plain"], queued_seconds=0, job_seconds=0) as server:
        yield server


@pytest.fixture
def simulator(_simulator: Simulator) -> Simulator:
    _simulator.reset()
    return _simulator


@pytest.fixture
def proxy(simulator: Simulator) -> Iterator[Proxy]:
    proxy = Proxy(free_port(), int(simulator.url.rsplit(":", 1)[1]))
    proxy.open()
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{proxy.url}/api/v1", headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        yield client


def start(client: httpx.Client, connection_id: str = CONNECTION) -> str:
    answer = client.post(f"/connections/{connection_id}/sync", json={"metadata": {"note": "plain"}})
    return str(answer.raise_for_status().json()["data"]["job"]["id"])


def test_it_forwards_everything(client: httpx.Client, simulator: Simulator) -> None:
    job_id = start(client)
    direct = httpx.get(f"{simulator.url}/api/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {API_KEY}"})
    answer = client.get(f"/jobs/{job_id}")
    assert answer.content == direct.content
    assert answer.headers["content-type"] == direct.headers["content-type"]
    assert client.get("/jobs/job_none").status_code == 404
    assert client.get("/jobs/job_none").json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("how", REFUSALS)
def test_a_refusal_has_no_error_of_the_api_and_no_effect(
    how: str, client: httpx.Client, proxy: Proxy, simulator: Simulator
) -> None:
    job_id = start(client)
    proxy.refuse("reads", how, 60)
    answer = client.get(f"/jobs/{job_id}")
    assert answer.status_code == int(how.split()[0])
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()
    start(client)
    proxy.calm()
    proxy.refuse("writes", how, 60)
    assert client.post(f"/connections/{CONNECTION}/sync", json={}).status_code == int(how.split()[0])
    assert client.get(f"/jobs/{job_id}").is_success
    assert len(simulator.jobs()) == 2
    assert proxy.counts == {f"reads refused: {how}": 1, f"writes refused: {how}": 1}


def test_refusals_begin_with_the_first_request_and_end_with_their_period(client: httpx.Client, proxy: Proxy) -> None:
    proxy.refuse("reads", "302", 0.1)
    time.sleep(0.2)
    assert proxy.began("reads") is None
    assert client.get("/jobs").status_code == 302
    assert proxy.began("reads")
    time.sleep(0.2)
    assert client.get("/jobs").is_success


def test_it_forwards_resets_and_truncated_responses(client: httpx.Client, simulator: Simulator) -> None:
    job_id = start(client)
    for kind in ("reset", "cut"):
        simulator.fail(kind)
        with pytest.raises(httpx.TransportError):
            client.get(f"/jobs/{job_id}")
    simulator.fail("html", status=502)
    assert client.get(f"/jobs/{job_id}").status_code == 502
    assert client.get(f"/jobs/{job_id}").is_success


def test_it_responds_with_502_without_a_simulator_and_refuses_once_closed(proxy: Proxy, client: httpx.Client) -> None:
    alone = Proxy(free_port(), free_port())
    alone.open()
    assert httpx.get(f"{alone.url}/api/v1/jobs").status_code == 502
    alone.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{alone.url}/api/v1/jobs")
    alone.open()
    assert httpx.get(f"{alone.url}/api/v1/jobs").status_code == 502
    alone.close()


def test_closing_it_drops_open_connections(proxy: Proxy, client: httpx.Client) -> None:
    assert client.get("/jobs").is_success
    proxy.close()
    with pytest.raises(httpx.TransportError):
        client.get("/jobs")


def _about(client: httpx.Client, job_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return client.get(f"/jobs/{job_id}").json()["data"], client.get(f"/jobs/{job_id}/results").json()["data"]


def test_a_nul_is_in_each_text_about_the_work_of_one_connection(
    client: httpx.Client, proxy: Proxy, simulator: Simulator
) -> None:
    proxy.oddities = {CONNECTION: "nul"}
    simulator.plan(CONNECTION, outcome="failed")
    job, results = _about(client, start(client))
    assert "\0" in job["error"]["message"]
    assert job["metadata"] == {"note": "plain", "note of another tool": "ends in \0"}
    assert [table["name"] for table in results["tables"]] == ["public.orders\0"]
    assert "\0" in results["warnings"][0]["message"]
    assert "\\u0000" not in json.dumps(_about(client, start(client, "conn_plain")))


@pytest.mark.heavy
def test_a_huge_text_is_in_message_and_warning(client: httpx.Client, proxy: Proxy, simulator: Simulator) -> None:
    proxy.oddities = {CONNECTION: "huge"}
    simulator.plan(CONNECTION, outcome="failed")
    job, results = _about(client, start(client))
    assert HUGE in job["error"]["message"]
    assert HUGE in results["warnings"][0]["message"]
    assert results["tables"][0]["name"] == "public.orders"


def test_an_infinite_duration(client: httpx.Client, proxy: Proxy) -> None:
    proxy.oddities = {CONNECTION: "infinite"}
    answer = client.get(f"/jobs/{start(client)}")
    assert '"duration_seconds": Infinity' in answer.text


def test_a_list_with_an_unreadable_row_keeps_the_ids_and_states_of_the_others(
    client: httpx.Client, proxy: Proxy
) -> None:
    ids = [start(client) for _ in range(3)]
    proxy.spoil_lists(60)
    rows = client.get("/jobs").json()["data"]
    assert {row["id"] for row in rows} == {*ids, None}
    assert [row["started_at"] for row in rows if row.get("started_at") == "soon"] == ["soon"]
    assert client.get(f"/jobs/{ids[0]}").json()["data"]["id"] == ids[0]
    assert proxy.counts == {"unreadable row": 1}
