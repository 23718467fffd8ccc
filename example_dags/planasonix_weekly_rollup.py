"""Sync every day, and run a weekly DAG once all seven days of its week were synced."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

CONNECTION = "conn_demo_44"
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)
orders = planasonix_asset(connection_id=CONNECTION, table="public.orders", host=HOST)

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import (
        CronPartitionTimetable,
        PartitionedAssetTimetable,
        RollupMapper,
        StartOfWeekMapper,
        WeekWindow,
    )

    # The run at midnight has the key of the day that has just ended.
    every_day: Any = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
    week = RollupMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow())
    every_week: Any = PartitionedAssetTimetable(assets=orders, default_partition_mapper=week)
else:
    # Before Airflow 3.3, the second DAG runs after each sync.
    every_day = "@daily"
    every_week = [orders]

with DAG(
    dag_id="planasonix_weekly_rollup",
    schedule=every_day,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # a connection runs one sync at a time
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator(
        task_id="sync",
        connection_id=CONNECTION,
        poll_interval=2,
        deferrable=True,
        outlets=[orders],  # the events have the partition key of the DAG run
    )

with DAG(
    dag_id="planasonix_weekly_rollup_report",
    schedule=every_week,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task
    def print_week(dag_run: Any = None) -> None:
        """Print the week; a real DAG would sum up its days."""
        print(f"All days of the week {getattr(dag_run, 'partition_key', None) or '(unknown)'} were synced")

    print_week()
