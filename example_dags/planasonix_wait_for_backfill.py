"""Start a backfill, prepare the report while it runs, and build the report when the backfill is complete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator
from planasonix_provider.sensors.planasonix import PlanasonixBackfillSensor

with DAG(
    dag_id="planasonix_wait_for_backfill",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    start = PlanasonixBackfillOperator(
        task_id="start",
        connection_id="conn_demo_36",
        start_at="2025-01-01T00:00:00Z",
        end_at="2025-02-01T00:00:00Z",
        wait_for_completion=False,
    )

    @task
    def prepare() -> None:
        """Do the work that needs no new rows."""
        print("The tables of the report are empty")

    wait = PlanasonixBackfillSensor(
        task_id="wait",
        backfill_id="{{ ti.xcom_pull(task_ids='start', key='backfill_id') }}",
        poke_interval=5,
        timeout=6 * 3600,
        deferrable=True,
    )

    @task
    def build(backfill: dict[str, Any]) -> None:
        """Build the report of the window that was loaded."""
        print(f"The report from {backfill['start_at']} to {backfill['end_at']} is built")

    start >> prepare() >> wait
    build(wait.output)
