"""The DAGs of the browser tests. ``nightly`` runs once, as soon as Airflow has parsed it."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Asset, task

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
    PlanasonixSyncOperator(task_id="wait_for_months", connection_id="conn_demo_05")
    PlanasonixSyncOperator(task_id="left_behind", connection_id="conn_demo_06")
    PlanasonixSyncOperator.partial(task_id="load_shops").expand(connection_id=["conn_demo_03", "conn_demo_04"])

with DAG(dag_id="orders_report", schedule=[Asset("orders_ready")], start_date=datetime(2025, 1, 1, tzinfo=UTC)):

    @task
    def report() -> None:
        """Do nothing: the webhook receiver needs a DAG that uses its asset."""

    report()
