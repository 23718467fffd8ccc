"""Load the orders every night, and print what was loaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(
    dag_id="planasonix_nightly_sync",
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"ticket": "OPS-1"},
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    load_orders = PlanasonixSyncOperator(
        task_id="load_orders",
        connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
        pipeline_id="pl_01hqxyz",
        priority="high",
        metadata={"ticket": "{{ params.ticket }}"},
        poll_interval=2,
        timeout=timedelta(hours=2),
        retries=2,
        deferrable=True,
    )

    @task
    def print_rows(job: dict[str, Any]) -> None:
        """Print the rows of each table; a real DAG would start its transformations here."""
        for table in job["tables"]:
            print(f"{table['name']}: {table['rows_loaded']:,} rows")

    print_rows(load_orders.output)
