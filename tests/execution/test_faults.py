"""A sync through everything that can go wrong at once, against a server that shares no code with the simulator."""

from __future__ import annotations

import json

import pytest

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from tests.conftest import API_KEY
from tests.support.reference_server import ReferenceServer, fourteen_faults
from tests.support.task_runs import drive


@pytest.mark.parametrize(("deferrable", "seed"), [(False, 1), (True, 2)], ids=["on a worker", "deferred"])
def test_a_task_comes_through_fourteen_faults_with_one_job(
    deferrable: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = ("status", 503, {"Retry-After": "0"})
    # How long a Retry-After is obeyed is tested where it is decided.
    faults = [("status", 429, {"Retry-After": "0"}) if 429 in fault else fault for fault in fourteen_faults(seed)]
    with ReferenceServer(
        api_key=API_KEY, queued_seconds=0, looks=2, read_faults=faults, start_faults=[refusal]
    ) as server:
        connection = {"conn_type": "planasonix", "host": server.url, "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))
        run = drive(
            lambda: PlanasonixSyncOperator(
                task_id="load", connection_id="conn_1", poll_interval=0.02, deferrable=deferrable
            )
        )
        jobs = list(server.jobs.values())
    assert run.error is None
    assert server.faults_left == (0, 0)
    assert [job["status"] for job in jobs] == ["succeeded"]
    assert run.result["job_id"] == jobs[0]["id"]
    assert run.result["tables_total"] > 0
    assert API_KEY not in run.said
