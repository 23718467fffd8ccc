"""A task whose API returns the examples of the API reference, in the order of a job's states."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from tests.conftest import API_KEY
from tests.support import api_reference
from tests.support.example_calls import route_of
from tests.support.raw_server import RawServer, ReceivedRequest, response
from tests.support.task_runs import drive

BODIES: dict[str, Any] = {route_of(one): one.body for one in api_reference.examples() if one.status}
JOB_ID = BODIES["trigger_sync"]["data"]["job"]["id"]


@pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])
def test_a_task_reads_a_job_that_is_queued_then_runs_then_succeeds(
    monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    states = ["succeeded", "running", "queued"]

    def react(request: ReceivedRequest) -> bytes:
        path = request.path.split("?")[0].removeprefix("/api/v1")
        if request.method == "POST":
            return response(202, BODIES["trigger_sync"])
        if path == f"/jobs/{JOB_ID}":
            ended = {"finished_at": "2025-03-27T14:25:15Z", "duration_seconds": 183} if len(states) == 1 else {}
            return response(200, {"data": {**BODIES["get_job"]["data"], "status": states.pop(), **ended}})
        if path == f"/jobs/{JOB_ID}/results":
            return response(200, BODIES["get_job_results"])
        return response(200, {"data": [], "meta": {"page": {"limit": 50, "cursor": None}}})

    with RawServer().respond_with(react) as server:
        connection = {"conn_type": "planasonix", "host": server.url, "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))
        run = drive(
            lambda: PlanasonixSyncOperator(
                task_id="load", connection_id="conn_1", poll_interval=0.02, deferrable=deferrable
            )
        )
    assert run.error is None
    assert states == []
    assert (run.result["job_id"], run.result["status"]) == (JOB_ID, "succeeded")
    assert run.result["tables_total"] == len(BODIES["get_job_results"]["data"]["tables"])
