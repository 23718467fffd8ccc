"""DAGs of the system tests: deferred backfills, twelve backfills for a year, and a cancel."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider import windows
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixCancelJobOperator

SETTINGS: dict[str, Any] = {
    "schedule": None,
    "params": {"connection_id": None, "backfill_id": None},
    "is_paused_upon_creation": False,
}
HOW: dict[str, Any] = {"connection_id": "{{ params.connection_id }}", "poll_interval": 1, "deferrable": True}
WINDOW = {"start_at": "2024-01-01T00:00:00Z", "end_at": "2024-04-01T00:00:00Z"}

with DAG(dag_id="backfill_deferred", **SETTINGS):
    PlanasonixBackfillOperator(task_id="replay", **WINDOW, **HOW)

with DAG(dag_id="backfill_left_alone", **SETTINGS):
    PlanasonixBackfillOperator(task_id="replay", cancel_on_kill=False, **WINDOW, **HOW)

with DAG(dag_id="twelve_backfills", **SETTINGS):
    PlanasonixBackfillOperator.partial(task_id="replay", max_active_tis_per_dag=4, **HOW).expand_kwargs(
        windows.split("2024-01-01", "2025-01-01", every="month")
    )

with DAG(dag_id="cancel", **SETTINGS):
    PlanasonixCancelJobOperator(task_id="stop", backfill_id="{{ params.backfill_id }}", poll_interval=1)
