"""The hook in ``dag.test()``, where tasks, triggers and Airflow run in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from airflow.models import Connection
from airflow.utils.session import create_session
from sqlalchemy import delete

from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.support.dags_folder import load_dags, run_dag

pytestmark = [pytest.mark.slow("runs whole DAGs"), pytest.mark.dag]

DAG_FILE = """
from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG("with_stored_connection", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    PlanasonixSyncOperator(
        task_id="load", connection_id="conn_demo_01", planasonix_conn_id="planasonix_stored", deferrable=True
    )
"""


@pytest.fixture
def _stored_connection(airflow_db: None, simulator: Simulator) -> Iterator[None]:
    fields = simulator.airflow_connection()
    with create_session() as session:
        session.add(
            Connection(
                conn_id="planasonix_stored",
                conn_type="planasonix",
                host=fields["host"],
                password=fields["password"],
                extra=json.dumps(fields["extra"]),
            )
        )
    yield
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == "planasonix_stored"))


@pytest.mark.usefixtures("dags_folder", "_stored_connection")
def test_a_trigger_finds_the_connection_that_is_in_airflows_database(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(0))
    assert run_dag(load_dags("with_stored_connection", DAG_FILE)["dag"]) == "success"
    (job,) = simulator.jobs()
    assert job.status == "succeeded"
