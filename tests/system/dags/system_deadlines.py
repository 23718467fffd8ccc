"""A DAG of the system tests whose runs are late. The callback is that of the examples."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

# No other DAG of the system tests syncs this connection.
CONNECTION = "conn_demo_48"

if AIRFLOW_V_3_1_PLUS:
    from airflow.sdk.definitions.deadline import (  # type: ignore[attr-defined]
        AsyncCallback,
        DeadlineAlert,
        DeadlineReference,
    )

    with DAG(
        dag_id="late_sync",
        schedule=None,
        is_paused_upon_creation=False,
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=40),  # the job has started by then
            callback=AsyncCallback("planasonix_late_sync.report_late_sync", {"connection_id": CONNECTION}),
        ),
    ):
        PlanasonixSyncOperator(task_id="sync", connection_id=CONNECTION, poll_interval=1, deferrable=True)
