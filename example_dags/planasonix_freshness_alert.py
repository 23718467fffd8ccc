"""Alert if the orders have not been loaded for six hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.sensors.planasonix import PlanasonixSyncSensor


def alert(context: Any) -> None:
    """Print the alert; a real DAG would page a person."""
    print(f"{context['ti'].task_id}: the orders are older than six hours")


with DAG(
    dag_id="planasonix_freshness_alert",
    schedule="@hourly",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncSensor(
        task_id="orders_are_fresh",
        connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
        since="{{ dag_run.start_date - macros.timedelta(hours=6) }}",
        on_failure="wait",  # a failed sync loads nothing; a later one may succeed
        poke_interval=30,
        timeout=600,  # the running sync gets ten minutes to finish
        deferrable=True,
        on_failure_callback=alert,
    )
