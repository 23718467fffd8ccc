"""DAGs of the system tests: syncs with assets as outlets, and DAGs that these assets start."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.assets.planasonix import planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator

SETTINGS: dict[str, Any] = {
    "start_date": datetime(2025, 1, 1, tzinfo=UTC),  # needed by Airflow 2
    "is_paused_upon_creation": False,
    "catchup": False,
    "max_active_runs": 1,
}
TABLES = {"orders": "public.orders", "odd": "a/b c.d %ü", "left_out": "public.customers"}


def asset(connection_id: str, table: str) -> Asset:
    return planasonix_asset(connection_id=connection_id, table=table, host=os.environ["PLANASONIX_HOST"])


def define_reacting_dag(dag_id: str, schedule: Any) -> None:
    """Define a DAG that returns the events that started it."""
    with DAG(dag_id=dag_id, schedule=schedule, **SETTINGS):

        @task
        def react(triggering_asset_events: Any = None, triggering_dataset_events: Any = None) -> list[list[Any]]:
            if not AIRFLOW_V_3_0_PLUS:
                events = triggering_dataset_events.items()
                return [[uri, event.extra] for uri, events_of_uri in events for event in events_of_uri]
            # An event through an alias is listed twice: under its asset and under the alias.
            assets = [asset for asset in triggering_asset_events if isinstance(asset, Asset)]
            return [[asset.uri, event.extra] for asset in assets for event in triggering_asset_events[asset]]

        react()


for way, deferrable, connections in (
    ("on_a_worker", False, ("conn_demo_06", "conn_demo_07")),
    ("deferred", True, ("conn_demo_08", "conn_demo_09")),
):
    how: dict[str, Any] = {"task_id": "sync", "poll_interval": 1, "deferrable": deferrable}
    first, second = connections
    with DAG(dag_id=f"assets_{way}", schedule=None, **SETTINGS):
        PlanasonixSyncOperator(connection_id=first, outlets=[asset(first, table) for table in TABLES.values()], **how)
    for name, table in TABLES.items():
        define_reacting_dag(f"on_{name}_{way}", [asset(first, table)])

    with DAG(dag_id=f"asset_alias_{way}", schedule=None, **SETTINGS):
        PlanasonixSyncOperator(connection_id=second, outlets=[AssetAlias(f"loaded_{way}")], **how)
    define_reacting_dag(f"on_alias_{way}", AssetAlias(f"loaded_{way}"))

    with DAG(dag_id=f"mapped_assets_{way}", schedule=None, **SETTINGS):
        PlanasonixSyncOperator.partial(outlets=[asset(name, "mapped") for name in connections], **how).expand(
            connection_id=connections
        )
    define_reacting_dag(f"on_mapped_{way}", [asset(second, "mapped")])

    with DAG(dag_id=f"backfilled_assets_{way}", schedule=None, **SETTINGS):
        PlanasonixBackfillOperator(
            connection_id=first,
            start_at="2024-01-01",
            end_at="2024-02-01",
            outlets=[asset(first, "history"), asset(first, "public.customers")],
            **how,
        )
    define_reacting_dag(f"on_history_{way}", [asset(first, "history")])
