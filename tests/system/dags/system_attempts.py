"""DAGs of the system tests: tasks with a retry, with conflicting jobs, and with edited parameters."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.assets.planasonix import planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from tests.system.edits import edits_of

SETTINGS: dict[str, Any] = {
    "schedule": None,
    "params": {"connection_id": None, "planasonix_conn_id": "planasonix_default", "on_conflict": "fail"},
    "is_paused_upon_creation": False,
}
HOW: dict[str, Any] = {
    "connection_id": "{{ params.connection_id }}",
    "planasonix_conn_id": "{{ params.planasonix_conn_id }}",
    "on_conflict": "{{ params.on_conflict }}",
    "poll_interval": 1,
    "retries": 1,
    "retry_delay": timedelta(seconds=1),
}
WINDOW = {"start_at": "2024-01-01T00:00:00Z", "end_at": "2024-04-01T00:00:00Z"}

for way, deferrable in (("on_a_worker", False), ("deferred", True)):
    with DAG(dag_id=f"retried_sync_{way}", **SETTINGS):
        PlanasonixSyncOperator(task_id="sync", deferrable=deferrable, **HOW)
    edits = edits_of(f"edited_sync_{way}")
    with DAG(dag_id=f"edited_sync_{way}", **SETTINGS):
        outlets = [
            planasonix_asset(connection_id=name, table="public.orders", host=os.environ["PLANASONIX_HOST"])
            for name in edits.pop("connections", ())
        ]
        PlanasonixSyncOperator(task_id="sync", deferrable=deferrable, outlets=outlets, **{**HOW, **edits})

with DAG(dag_id="retried_backfill_on_a_worker", **SETTINGS):
    PlanasonixBackfillOperator(task_id="replay", deferrable=False, **WINDOW, **HOW)
