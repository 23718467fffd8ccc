"""DAGs of the system tests: syncs that wait on a worker or deferred. The run's params set the connection."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

PARAMS = {"connection_id": None, "planasonix_conn_id": "planasonix_default", "timeout": None}
HOW: dict[str, Any] = {
    "planasonix_conn_id": "{{ params.planasonix_conn_id }}",
    "poll_interval": 1,
    "timeout": "{{ params.timeout }}",
}
# The simulator has these connections by default.
CONNECTIONS = [f"conn_demo_{number:02}" for number in range(1, 6)]

for way, deferrable in (("on_a_worker", False), ("deferred", True)):
    settings: dict[str, Any] = {
        "schedule": None,
        "params": PARAMS,
        # So that a param None is rendered as None.
        "render_template_as_native_obj": True,
        "is_paused_upon_creation": False,
        # Airflow 2.11 waits this time before it starts a cleared task again.
        "default_args": {"retry_delay": timedelta(seconds=1)},
    }
    with DAG(dag_id=f"sync_{way}", **settings):
        PlanasonixSyncOperator(task_id="sync", connection_id="{{ params.connection_id }}", deferrable=deferrable, **HOW)
    with DAG(dag_id=f"five_syncs_{way}", **settings):
        PlanasonixSyncOperator.partial(task_id="sync", deferrable=deferrable, **HOW).expand(connection_id=CONNECTIONS)

with DAG(dag_id="sync_left_alone", **settings):
    PlanasonixSyncOperator(
        task_id="sync", connection_id="{{ params.connection_id }}", deferrable=True, cancel_on_kill=False, **HOW
    )
