"""DAGs of the system tests: tasks with timeouts, tasks with retries, and many deferred tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from tests.system.runs import ONE_SLOT, RUN_TIMEOUT, TIME_LIMITS, WAYS

HOW: dict[str, Any] = {"connection_id": "{{ params.connection_id }}", "poll_interval": 1}
settings: dict[str, Any] = {"schedule": None, "params": {"connection_id": None}, "is_paused_upon_creation": False}

for way in WAYS:
    deferrable = way == "deferred"
    with DAG(dag_id=f"sync_in_a_short_run_{way}", dagrun_timeout=RUN_TIMEOUT, **settings):
        PlanasonixSyncOperator(task_id="sync", deferrable=deferrable, **HOW)
    limit = TIME_LIMITS[way]
    # Deferred tasks need only a pool with one slot, because they release it while they wait.
    in_time = {**HOW, "deferrable": deferrable, "pool": ONE_SLOT if deferrable else "default_pool"}
    with DAG(dag_id=f"hurried_syncs_{way}", **settings):
        for name, how in (("timeout", {"timeout": limit}), ("execution_timeout", {"execution_timeout": limit})):
            connection_id = f"{{{{ params.connection_id }}}}_{name}"
            PlanasonixSyncOperator(task_id=name, **{**in_time, **how, "connection_id": connection_id})

with DAG(dag_id="sync_in_the_one_slot", **settings):
    PlanasonixSyncOperator(task_id="sync", deferrable=False, pool=ONE_SLOT, **HOW)

# Unlike the tasks above, the next two have retries.
with DAG(dag_id="sync_tried_again", **settings):
    PlanasonixSyncOperator(task_id="sync", deferrable=False, retries=2, retry_delay=timedelta(seconds=1), **HOW)

# Airflow starts retries even without its API server, and each such try fails at once. So the delay is longer.
with DAG(dag_id="sync_tried_again_later", **settings):
    PlanasonixSyncOperator(task_id="sync", deferrable=False, retries=1, retry_delay=timedelta(minutes=1), **HOW)

for name, count in (("ten", 10), ("twenty", 20)):
    with DAG(dag_id=f"{name}_syncs", schedule=None, is_paused_upon_creation=False):
        PlanasonixSyncOperator.partial(
            task_id="sync", planasonix_conn_id=f"planasonix_{name}", deferrable=True, poll_interval=1
        ).expand(connection_id=[f"conn_{name}_{number:02}" for number in range(1, count + 1)])
