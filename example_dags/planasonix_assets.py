"""Load the orders, and start a report whenever they were loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
# Only where the API is elsewhere in some of your environments, as the simulator is on a developer's machine.
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
        outlets=[orders, customers],  # an event for each that was loaded, and for no other
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
    def tell(inlet_events: Any = None) -> None:
        """Say what has come; a real DAG would start its transformations here."""
        loaded = inlet_events[orders][-1].extra
        print(f"{loaded['table']}: {loaded['rows_loaded']:,} rows up to {loaded['window']['end_at']}")

    tell()
