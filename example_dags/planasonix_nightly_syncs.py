"""Sync thirty connections every night, at most five at once, and add up what they loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(
    dag_id="planasonix_nightly_syncs",
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def connections() -> list[str]:
        """Return the connections to sync; a real DAG would ask its own catalogue."""
        return [f"conn_demo_{number:02}" for number in range(1, 31)]

    sync = PlanasonixSyncOperator.partial(
        task_id="sync",
        map_index_template="{{ task.connection_id }}",  # the UI then shows the connection instead of an index
        pool="planasonix",  # five slots, and deferred tasks count
        poll_interval=5,
        retries=2,
        deferrable=True,
    ).expand(connection_id=connections())

    @task
    def add_up(jobs: list[dict[str, Any]]) -> int:
        """Count the rows of all syncs."""
        rows = sum(table["rows_loaded"] for job in jobs for table in job["tables"])
        print(f"{rows:,} rows from {len(jobs)} connections")
        return rows

    add_up(sync.output)
