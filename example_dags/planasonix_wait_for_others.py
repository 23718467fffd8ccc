"""Wait for a sync that another client starts, and cancel a job if the wait for it fails."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator, PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor, PlanasonixSyncSensor

with DAG(
    dag_id="planasonix_wait_for_others",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    # A sync that Planasonix's schedule, a person or another DAG started in the last 24 hours, or will start.
    fresh = PlanasonixSyncSensor(
        task_id="fresh",
        connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
        since="{{ dag_run.start_date - macros.timedelta(days=1) }}",
        on_failure="wait",
        poke_interval=5,
        timeout=3600,
        deferrable=True,
    )

    # One task starts a job and another one waits for it, so tasks between them run in the meantime.
    start = PlanasonixSyncOperator(task_id="start", connection_id="conn_demo_37", wait_for_completion=False)
    wait = PlanasonixJobSensor(
        task_id="wait",
        job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}",
        poke_interval=5,
        timeout=1800,
        deferrable=True,
    )
    # A teardown task also runs if the wait fails, and does not decide the state of the DAG run. A last task with
    # trigger_rule="one_failed" would make the run of a failed job succeed. A job that is over is left unchanged.
    stop = PlanasonixCancelJobOperator(
        task_id="stop",
        job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}",
    ).as_teardown(setups=start)

    fresh >> start >> wait >> stop
