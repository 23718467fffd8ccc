"""Report which job failed, why, and its page: the attributes of the exception in an ``on_failure_callback``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator


def report_failure(context: Any) -> None:
    """Print the failure; a real DAG would send it to a chat or a pager."""
    error = context["exception"]
    # Exceptions that Airflow raises before the task begins, as for a broken template, do not have these attributes.
    job_id, code = getattr(error, "job_id", None), getattr(error, "code", None)
    print(f"{context['ti'].task_id}: job {job_id} failed with code {code}. {getattr(error, 'job_url', None)}")


with DAG(
    dag_id="planasonix_failure_callback",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator(
        task_id="load_orders",
        connection_id="conn_demo_35",
        deferrable=True,
        on_failure_callback=report_failure,
    )
