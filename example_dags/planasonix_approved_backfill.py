"""Load months again after a person has approved it: the request shows how much would be loaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.providers.standard.operators.hitl import ApprovalOperator

from planasonix_provider import windows
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

with DAG(
    dag_id="planasonix_approved_backfill",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "start": Param("2024-01-01", type="string", format="date"),
        "end": Param("2024-07-01", type="string", format="date"),
    },
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def plan(params: Any = None) -> list[dict[str, str]]:
        """Split the period into months."""
        return windows.split(params["start"], params["end"], every="month")

    months = plan()
    approve = ApprovalOperator(
        task_id="approve",
        subject="Load the orders from {{ params.start }} to {{ params.end }} again?",
        body="{{ ti.xcom_pull(task_ids='plan') | length }} backfills, one for each month.",
        response_timeout=timedelta(days=1),
        defaults=ApprovalOperator.REJECT,  # without a response
    )
    load = PlanasonixBackfillOperator.partial(
        task_id="load",
        connection_id="conn_demo_49",
        tables=["public.orders"],
        priority="low",
        poll_interval=2,
        max_active_tis_per_dag=2,
        map_index_template="{{ (task.start_at | string)[:7] }}",
        retries=2,
        deferrable=True,
    ).expand_kwargs(months)
    approve >> load
    months >> approve
