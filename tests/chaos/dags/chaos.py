"""The DAG of the storm: every kind of task, without dependencies between tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from tests.chaos.catalogue import CONN_ID, DAG_ID, catalogue

WINDOW = {"start_at": "2024-01-01T00:00:00Z", "end_at": "2024-04-01T00:00:00Z"}

with DAG(DAG_ID, schedule=None, is_paused_upon_creation=False, max_active_tasks=100):
    for spec in catalogue():
        operator = PlanasonixBackfillOperator if spec.starts == "backfill" else PlanasonixSyncOperator
        how: dict[str, Any] = {
            "task_id": spec.task_id,
            "planasonix_conn_id": CONN_ID,
            "deferrable": spec.deferrable,
            "retries": spec.retries,
            "retry_delay": timedelta(seconds=1),
            "poll_interval": 1,
            "timeout": spec.timeout,
            "cancel_on_kill": spec.cancel_on_kill,
            "on_conflict": spec.on_conflict,
            # So that these tasks already wait when the API server is killed.
            "priority_weight": 10 if spec.is_long and not spec.deferrable else 1,
            **(WINDOW if spec.starts == "backfill" else {}),
        }
        if spec.is_mapped:
            operator.partial(**how).expand(connection_id=list(spec.connections))
        else:
            operator(connection_id=spec.connections[0], **how)
