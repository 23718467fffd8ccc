"""A sync through everything that can go wrong at once, against a server that shares no code with the simulator."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from tests.conftest import API_KEY
from tests.driving import Run, drive
from tests.reference_server import ReferenceServer, fourteen_faults


@pytest.mark.parametrize("seed", [1, 2])
def test_two_tasks_come_through_fourteen_faults_with_one_job_each(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ("status", 503, {"Retry-After": "1"})
    # The looks never see the job over before the faults are used up.
    with ReferenceServer(
        api_key=API_KEY, queued_seconds=0, running_seconds=2, read_faults=fourteen_faults(seed), start_faults=[refusal]
    ) as server:
        connection = {"conn_type": "planasonix", "host": server.url, "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))

        def sync(deferrable: bool) -> Run:
            return drive(
                lambda: PlanasonixSyncOperator(
                    task_id="load",
                    connection_id=f"conn_{'deferred' if deferrable else 'worker'}",
                    poll_interval=0.1,
                    deferrable=deferrable,
                )
            )

        with ThreadPoolExecutor(2) as threads:
            runs = list(threads.map(sync, [False, True]))
        assert server.faults_left == (0, 0)
        jobs = server.jobs.values()
    assert [run.error for run in runs] == [None, None]
    assert sorted(job["connection_id"] for job in jobs) == ["conn_deferred", "conn_worker"]
    assert {run.result["status"] for run in runs} == {"succeeded"}
    assert all(run.result["tables_total"] for run in runs)
    assert API_KEY not in "".join(run.said for run in runs)
