"""Send an event for each table that several connections load, without a list of tables, and start a check with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AssetAlias, task

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

WAREHOUSE = AssetAlias("planasonix_warehouse")

with DAG(
    dag_id="planasonix_asset_alias",
    schedule="@hourly",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator.partial(
        task_id="load",
        map_index_template="{{ task.connection_id }}",
        poll_interval=2,
        deferrable=True,
        outlets=[WAREHOUSE],  # an event for each table that was loaded
        ignore_empty_tables=True,
    ).expand(connection_id=["conn_demo_31", "conn_demo_32"])

with DAG(
    dag_id="planasonix_asset_alias_check",
    schedule=[WAREHOUSE],
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as check:

    @task(inlets=[WAREHOUSE])
    def report(inlet_events: Any = None) -> None:
        """Print what was loaded last, and from where."""
        loaded = inlet_events[WAREHOUSE][-1].extra
        print(f"{loaded['connection_id']} has loaded {loaded['rows_loaded']:,} rows into {loaded['table']}")

    report()
