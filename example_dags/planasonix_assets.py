"""Load the orders, and start a report after each load."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

CONNECTION = "conn_demo_33"
# Needed only if some of your environments use another host, such as the simulator's.
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)

orders = planasonix_asset(connection_id=CONNECTION, table="public.orders", host=HOST)
customers = planasonix_asset(connection_id=CONNECTION, table="public.customers", host=HOST)

with DAG(
    dag_id="planasonix_assets",
    schedule="@hourly",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator(
        task_id="load",
        connection_id=CONNECTION,
        poll_interval=2,
        deferrable=True,
        outlets=[orders, customers],  # an event for each of them that the sync has loaded
    )

with DAG(
    dag_id="planasonix_assets_report",
    schedule=[orders],
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task(inlets=[orders])
    def print_rows(inlet_events: Any = None) -> None:
        """Print what was loaded; a real DAG would start its transformations here."""
        loaded = inlet_events[orders][-1].extra
        print(f"{loaded['table']}: {loaded['rows_loaded']:,} rows up to {loaded['window']['end_at']}")

    print_rows()
