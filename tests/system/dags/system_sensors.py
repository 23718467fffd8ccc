"""DAGs of the system tests: job sensors in each mode, and a sync sensor."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.sensors.planasonix import PlanasonixJobSensor, PlanasonixSyncSensor

SETTINGS: dict[str, Any] = {"schedule": None, "is_paused_upon_creation": False}
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 2},
    # Airflow may take five seconds to notice that a process has ended. If the next poke is due before, Airflow treats
    # the task as crashed.
    "reschedule": {"mode": "reschedule", "poke_interval": 8},
    "deferred": {"deferrable": True, "poke_interval": 2},
}

for name, mode in MODES.items():
    # The tests check that no retry happens.
    how = {"deferrable": False, "retries": 2, "retry_delay": 1, **mode}
    late = {"job_id": "{{ params.long }}", "timeout": 12}
    with DAG(dag_id=f"job_sensor_{name}", params={"good": None, "bad": None, "long": None}, **SETTINGS):
        PlanasonixJobSensor(task_id="good", job_id="{{ params.good }}", **how)
        PlanasonixJobSensor(task_id="bad", job_id="{{ params.bad }}", **how)
        PlanasonixJobSensor(task_id="bad_but_soft", job_id="{{ params.bad }}", soft_fail=True, **how)
        PlanasonixJobSensor(task_id="late", **late, **how)
        PlanasonixJobSensor(task_id="late_but_soft", soft_fail=True, **late, **how)

with DAG(dag_id="sync_sensor", params={"connection_id": None, "since": None}, **SETTINGS):
    PlanasonixSyncSensor(
        task_id="fresh",
        connection_id="{{ params.connection_id }}",
        since="{{ params.since }}",
        poke_interval=1,
        deferrable=True,
    )
