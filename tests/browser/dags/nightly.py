"""The DAG whose tasks the browser looks at: each runs once, by itself. What their jobs do, the simulator is told."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(
    dag_id="nightly",
    schedule="@once",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=False,
    default_args={"poll_interval": 2, "deferrable": True},
):
    PlanasonixSyncOperator(task_id="load_orders", connection_id="conn_demo_01")
    PlanasonixSyncOperator(task_id="load_history", connection_id="conn_demo_02", deferrable=False)
    PlanasonixSyncOperator.partial(task_id="load_shops").expand(connection_id=["conn_demo_03", "conn_demo_04"])
