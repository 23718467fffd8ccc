"""Report what a nightly sync is doing if it is not over 30 minutes after its DAG run was queued."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

CONNECTION = "conn_demo_48"

deadline: dict[str, Any] = {}
try:
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:
    pass  # Airflow has deadline alerts since 3.1
else:
    deadline["deadline"] = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=30),
        # The triggerer imports the function from the plugins folder.
        callback=AsyncCallback("planasonix_late_sync.report_late_sync", {"connection_id": CONNECTION}),
    )

with DAG(
    dag_id="planasonix_deadline_alert",
    schedule="@daily",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
    **deadline,
) as dag:
    PlanasonixSyncOperator(task_id="load_orders", connection_id=CONNECTION, deferrable=True)
