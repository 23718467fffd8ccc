"""Load a period again, month by month, and run a daily DAG once for each day that was loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider import windows
from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

CONNECTION = "conn_demo_43"
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)
orders = planasonix_asset(connection_id=CONNECTION, table="public.orders", host=HOST)

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import PartitionedAssetTimetable, StartOfDayMapper

    each_day: Any = PartitionedAssetTimetable(assets=orders, default_partition_mapper=StartOfDayMapper())
else:
    # Before Airflow 3.3, the DAG below runs once, and not once for each day.
    each_day = [orders]

with DAG(
    dag_id="planasonix_replay_by_day",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixBackfillOperator.partial(
        task_id="replay",
        connection_id=CONNECTION,
        tables=["public.orders"],
        partition_by="day",
        poll_interval=2,
        deferrable=True,
        outlets=[orders],
        map_index_template="{{ (task.start_at | string)[:7] }}",
    ).expand_kwargs(windows.split("2024-02-26", "2024-03-04", every="month"))

with DAG(
    dag_id="planasonix_replay_by_day_report",
    schedule=each_day,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task
    def print_day(dag_run: Any = None) -> None:
        """Print the day; a real DAG would transform the rows of this day."""
        print(f"The orders of {getattr(dag_run, 'partition_key', None) or 'all days'} were loaded again")

    print_day()
