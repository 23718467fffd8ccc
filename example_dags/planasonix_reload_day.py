"""Load one bad day again: trigger this DAG with the partition key of the day, such as 2024-03-10."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

CONNECTION = "conn_demo_45"
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)
orders = planasonix_asset(connection_id=CONNECTION, table="public.orders", host=HOST)

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import PartitionedAssetTimetable, PartitionedAtRuntime

    by_hand: Any = PartitionedAtRuntime()
    each_day: Any = PartitionedAssetTimetable(assets=orders)
else:
    # Before Airflow 3.3, trigger the DAG with the parameter "day" instead.
    by_hand = None
    each_day = [orders]

WINDOW = "macros.planasonix.of_partition(partition_key | default(params.day, true), every='day')"

with DAG(
    dag_id="planasonix_reload_day",
    schedule=by_hand,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"day": "2024-03-10"},
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixBackfillOperator(
        task_id="reload",
        connection_id=CONNECTION,
        start_at="{{ " + WINDOW + ".start_at }}",
        end_at="{{ " + WINDOW + ".end_at }}",
        tables=["public.orders"],
        poll_interval=2,
        deferrable=True,
        outlets=[orders],  # the event has the partition key of the DAG run
    )

with DAG(
    dag_id="planasonix_reload_day_report",
    schedule=each_day,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task
    def print_day(dag_run: Any = None) -> None:
        """Print the day; a real DAG would transform its rows again."""
        print(f"The orders of {getattr(dag_run, 'partition_key', None) or 'one day'} were loaded again")

    print_day()
