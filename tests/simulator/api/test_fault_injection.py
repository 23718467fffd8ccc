from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection

import httpx
import pytest

from tests.support.webhook_target import until

SYNC = "/connections/conn_demo_01/sync"


@pytest.fixture(autouse=True)
def no_error_of_the_server(client, caplog) -> Iterator[None]:
    yield
    # The server handles requests one after the other, so it has logged all errors before this response.
    client.get("/jobs")
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


def test_status(client, simulator):
    simulator.fail("status", status=503, headers={"Retry-After": "7"})
    simulator.fail("status", status=599)
    response = client.get("/jobs")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["error"]["code"] == "service_unavailable"
    assert client.get("/jobs").json()["error"]["code"] == "unknown_error", "599 has no name"


def test_reset(client, simulator):
    simulator.fail("reset")
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        client.get("/jobs")
    assert simulator.requests[-1].status is None


def test_cut_sends_half_of_the_response(client, simulator):
    whole = client.get("/jobs").content
    simulator.fail("cut", when="after")
    with client.stream("GET", "/jobs") as response:
        assert int(response.headers["content-length"]) == len(whole)
        chunks = response.iter_raw()
        assert next(chunks) == whole[: len(whole) // 2]
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            next(chunks)


def test_html(client, simulator):
    simulator.fail("html")
    simulator.fail("html", status=200)
    bad, good = client.get("/jobs"), client.get("/jobs")
    assert (bad.status_code, good.status_code) == (502, 200)
    assert bad.headers["content-type"].startswith("text/html")
    assert "<h1>502 Bad Gateway</h1>" in bad.text


def test_odd_changes_fields_and_adds_an_item_to_lists(client, simulator):
    job_id = client.post(SYNC).json()["data"]["job"]["id"]
    for route in ("get_job", "list_jobs", "get_openapi"):
        simulator.fail("odd", route=route, fields={"type": "a\0\ud800", "duration_seconds": float("inf")})
    answer = client.get(f"/jobs/{job_id}")
    assert rb'"type": "a\u0000\ud800"' in answer.content
    assert b'"duration_seconds": Infinity' in answer.content
    assert answer.json()["data"]["id"] == job_id
    assert [row.get("id") for row in client.get("/jobs").json()["data"]] == [None, job_id]
    assert "openapi" in client.get("/openapi.yaml").text
    assert client.get(f"/jobs/{job_id}").json()["data"]["type"] == "connection_sync"


def test_odd_does_not_change_errors(client, simulator):
    simulator.fail("odd", fields={"type": "odd"})
    assert client.get("/jobs/job_unknown").json()["error"]["code"] == "not_found"


def test_empty(client, simulator):
    simulator.fail("empty")
    response = client.get("/jobs")
    assert (response.status_code, response.content) == (200, b"")


def test_hang_responds_late(client, simulator):
    simulator.fail("hang", seconds=0.05)
    begin = time.monotonic()
    assert client.get("/jobs").status_code == 200
    assert time.monotonic() - begin >= 0.05


@pytest.mark.parametrize("kind", ["status", "reset", "cut", "html", "empty"])
@pytest.mark.parametrize(("when", "jobs"), [("before", 0), ("after", 1)])
def test_request_has_its_effect_only_with_after(client, simulator, kind, when, jobs):
    simulator.fail(kind, route="trigger_sync", when=when)
    with suppress(httpx.TransportError):
        assert client.post(SYNC).status_code != 202
    assert len(simulator.jobs()) == jobs


@pytest.mark.parametrize(("when", "at_once"), [("before", 0), ("after", 1)])
def test_hang_has_its_effect_after_the_client_disconnects(client, simulator, hanging, when, at_once):
    simulator.fail("hang", when=when)
    caller = HTTPConnection(client.base_url.netloc.decode())
    caller.request("POST", f"/api/v1{SYNC}", '{"metadata": {"a": 1}}', dict(client.headers))
    hanging.begins()
    caller.close()
    assert len(simulator.jobs()) == at_once
    hanging.ends()
    until(simulator.jobs)
    assert [job.metadata for job in simulator.jobs()] == [{"a": 1}]


def test_hang_that_outlives_its_client_and_a_reset_logs_no_error(client, simulator, hanging):
    simulator.fail("hang")
    caller = HTTPConnection(client.base_url.netloc.decode())
    caller.request("GET", "/api/v1/jobs", headers=dict(client.headers))
    hanging.begins()
    caller.close()
    # The server notices the end of the connection before this response.
    client.get("/jobs")
    request = simulator.requests[0]
    simulator.reset()
    hanging.ends()
    until(lambda: request.status is not None)
    # The server has logged any error before this response, too.
    client.get("/jobs")


def test_cancel_can_take_effect_without_a_response(client, simulator):
    job_id = client.post(SYNC).json()["data"]["job"]["id"]
    simulator.fail("reset", route="cancel_job", when="after")
    with pytest.raises(httpx.ReadError):
        client.post(f"/jobs/{job_id}/cancel")
    assert simulator.job(job_id).status == "cancelling"


def test_other_connections_stay_open(client, simulator, hanging):
    simulator.fail("hang", route="list_jobs")
    slow = threading.Thread(target=client.get, args=("/jobs",))
    slow.start()
    hanging.begins()
    simulator.fail("reset")
    with pytest.raises(httpx.ReadError):
        client.get("/jobs/x")
    hanging.ends()
    slow.join()
    assert [request.status for request in simulator.requests] == [200, None]
