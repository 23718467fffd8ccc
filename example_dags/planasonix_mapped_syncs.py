"""Sync ten connections at once, each in a mapped task of its own; the task that comes after adds up what was loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(
    dag_id="planasonix_mapped_syncs",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def connections() -> list[str]:
        """Name the connections to sync; a real DAG would ask its own catalogue."""
        return [f"conn_demo_{number:02}" for number in range(1, 11)]

    sync = PlanasonixSyncOperator.partial(
        task_id="sync",
        poll_interval=2,
        deferrable=True,
        max_active_tis_per_dag=5,
    ).expand(connection_id=connections())

    @task
    def add_up(jobs: list[dict[str, Any]]) -> int:
        """Count the rows of all syncs."""
        rows = sum(table["rows_loaded"] for job in jobs for table in job["tables"])
        print(f"{rows:,} rows from {len(jobs)} connections")
        return rows

    add_up(sync.output)
