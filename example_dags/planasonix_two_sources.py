"""Load the same days from two connections, and run a DAG for each day that both have loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

CONNECTIONS = ("conn_demo_46", "conn_demo_47")
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)
shop, stock = (
    planasonix_asset(connection_id=connection_id, table="public.orders", host=HOST) for connection_id in CONNECTIONS
)

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import PartitionedAssetTimetable, StartOfDayMapper

    both: Any = PartitionedAssetTimetable(assets=shop & stock, default_partition_mapper=StartOfDayMapper())
else:
    # Before Airflow 3.3, the second DAG runs once, after both backfills.
    both = [shop, stock]

with DAG(
    dag_id="planasonix_two_sources",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    for connection_id, asset in zip(CONNECTIONS, (shop, stock), strict=True):
        PlanasonixBackfillOperator(
            task_id=f"load_{connection_id}",
            connection_id=connection_id,
            start_at="2024-03-01",
            end_at="2024-03-04",
            tables=["public.orders"],
            partition_by="day",
            poll_interval=2,
            deferrable=True,
            outlets=[asset],
        )

with DAG(
    dag_id="planasonix_two_sources_report",
    schedule=both,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task
    def print_day(dag_run: Any = None) -> None:
        """Print the day; a real DAG would join both sources."""
        print(f"Both sources of {getattr(dag_run, 'partition_key', None) or 'all days'} were loaded")

    print_day()
