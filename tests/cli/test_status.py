from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from tests.cli.conftest import Run
from tests.conftest import API_KEY
from tests.support.scenarios import CONNECTION
from tests.support.task_rows import TaskRows


@pytest.fixture(autouse=True)
def task_rows(airflow_db: None) -> Iterator[TaskRows]:
    rows = TaskRows()
    rows.forget()
    yield rows
    rows.forget()


class TestStatus:
    def test_connections(self, shell: Run, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=1_000)
        shell("sync", CONNECTION)
        ran = shell("status", "-o", "json")
        assert ran.code == 0
        (connection,) = ran.json["connections"]
        assert connection.pop("rate_limit_remaining") <= connection.pop("rate_limit") == 1200
        assert connection.pop("read_at").endswith("Z")
        assert connection == {
            "conn_id": "planasonix_default",
            "host": simulator.url.removeprefix("http://"),
            "is_reachable": True,
            "active_jobs": 1,
            "active_backfills": 0,
            "has_more": False,
            "web_url": simulator.url,
            "message": f"Connected to {simulator.url}. The API key may read jobs.",
        }

    def test_a_table(self, shell: Run) -> None:
        ran = shell("status")
        assert ran.code == 0
        assert "planasonix_default" in ran.out
        assert "is_reachable" in ran.out
        assert API_KEY not in ran.out

    def test_a_broken_connection_is_an_error(self, shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = {"conn_type": "planasonix", "host": "http://127.0.0.1:9", "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps(broken))
        ran = shell("status", "-o", "json")
        assert ran.code == 1
        assert [(one["conn_id"], one["is_reachable"]) for one in ran.json["connections"]] == [
            ("broken", False),
            ("planasonix_default", True),
        ]
        assert ran.last_line.endswith("Airflow connections that do not work: broken.")

    def test_no_connection_at_all(self, shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_PLANASONIX_DEFAULT")
        ran = shell("status", "-o", "json")
        assert ran.code == 1
        assert "no Airflow connection 'planasonix_default'" in ran.json["connections"][0]["message"]

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no receiver")
    def test_receivers(self, shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        receiver = {"conn_type": "planasonix_webhook", "password": "whsec_1234567890", "extra": {"asset": "of_status"}}
        monkeypatch.setenv("AIRFLOW_CONN_OF_STATUS", json.dumps(receiver))
        ran = shell("status", "-o", "json")
        # The database may have receivers of other tests.
        (row,) = [one for one in ran.json["receivers"] if one["conn_id"] == "of_status"]
        assert (row["has_secret"], row["deliveries_24h"]) == (True, 0)
        assert "whsec" not in ran.out


class TestWaits:
    def test_waiting_tasks(self, shell: Run, task_rows: TaskRows) -> None:
        trigger = PlanasonixJobTrigger("job_1", status="running", deadline="2030-01-01T00:00:00Z")
        run_id = task_rows.add("sales", state="deferred", trigger=trigger)
        ran = shell("waits", "-o", "json")
        (row,) = ran.json
        assert row.pop("since").endswith("Z")
        assert row == {
            "dag_id": "sales",
            "run_id": run_id,
            "task_id": "load",
            "map_index": -1,
            "try_number": 1,
            "state": "deferred",
            "deadline": "2030-01-01T00:00:00Z",
            "target": "job job_1",
            "kind": "job",
            "id": "job_1",
            "conn_id": "planasonix_default",
            "connection_id": None,
            "status": "running",
            "is_triggerer_alive": None,
        }
        assert "job job_1" in shell("waits").out

    def test_no_waiting_tasks(self, shell: Run) -> None:
        assert shell("waits", "-o", "json").json == []
