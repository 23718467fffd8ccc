from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.conftest import Notes
from tests.system.runs import TaskRun, eventually


@pytest.mark.timeout(1200)
def test_forty_workers_keep_to_120_requests_a_minute(tmp_path_factory: pytest.TempPathFactory, note: Notes) -> None:
    settings = {"AIRFLOW__CORE__PARALLELISM": "40", "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "40"}
    home, dags = tmp_path_factory.mktemp("forty"), Path(__file__).parent / "dags"
    connections = [f"conn_demo_{number:02}" for number in range(1, 41)]
    simulator = Simulator(api_key=API_KEY, job_seconds=90, connections=connections, rate_limit=120)
    with simulator as planasonix, LocalAirflow(home, dags=dags, env=settings) as airflow:
        add_connection(airflow, "planasonix_default", planasonix.airflow_connection())
        eventually(lambda: any(dag["dag_id"] == "forty_syncs" for dag in airflow.api("GET", "dags")["dags"]), "the DAG")
        run = TaskRun.start(airflow, "forty_syncs")

        def is_over() -> bool:
            # Forty tasks that begin together keep SQLite's one lock for half a minute.
            with suppress(httpx.TimeoutException):
                return run.state_of_the_dag_run in ("success", "failed")
            return False

        eventually(is_over, "the end of the DAG run", patience=900)
        assert run.state_of_the_dag_run == "success"
        assert {task.details()["try_number"] for task in run.mapped(40)} == {1}
    asked = Counter(request.status for request in planasonix.requests)
    note(
        f"{asked.total()} requests for 40 syncs, of which {asked[429]} were answered 429; {len(planasonix.jobs())} jobs"
    )
    assert len(planasonix.jobs()) == 40
    assert asked[429] <= 0.02 * asked.total()
