"""DAGs of the system tests: three hundred syncs with this package's trigger, and the same with a naive trigger."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from tests.system.naive import NaiveSyncOperator

# One connection for each task, because syncs of the same connection do not run at the same time.
CONNECTIONS = [f"conn_many_{number:03}" for number in range(300)]

settings: dict[str, Any] = {"schedule": None, "is_paused_upon_creation": False}
how: dict[str, Any] = {"task_id": "sync", "planasonix_conn_id": "planasonix_many", "deferrable": True}
with DAG(dag_id="many_syncs", **settings):
    PlanasonixSyncOperator.partial(**how).expand(connection_id=CONNECTIONS)
with DAG(dag_id="many_syncs_naive", **settings):
    NaiveSyncOperator.partial(**how).expand(connection_id=CONNECTIONS)
