"""Load a year again, month by month, four at a time; a retry loads only the month that failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider import windows
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

with DAG(
    dag_id="planasonix_backfill_by_month",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    months = PlanasonixBackfillOperator.partial(
        task_id="by_month",
        connection_id="conn_demo_34",
        tables=["public.orders", "public.order_items"],
        priority="low",
        poll_interval=5,
        timeout=timedelta(hours=12),
        max_active_tis_per_dag=4,
        map_index_template="{{ (task.start_at | string)[:7] }}",  # the UI then shows 2024-07 instead of 6
        retries=2,
        deferrable=True,
    ).expand_kwargs(windows.split("2024-01-01", "2025-01-01", every="month"))

    @task
    def add_up(backfills: list[dict[str, Any]]) -> int:
        """Count the rows of all months."""
        rows = sum(backfill["rows_loaded"] for backfill in backfills)
        print(f"{rows:,} rows from {len(backfills)} months")
        return rows

    add_up(months.output)
