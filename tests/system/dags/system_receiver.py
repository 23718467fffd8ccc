"""DAGs of the system tests that webhooks start, and DAGs that create a webhook and rotate its secret."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator

IS_3_0 = version("apache-airflow").startswith("3.0.")
VARIABLE = "variable:system_webhook_secret"
# Executors of Airflow 3.0 log what a task puts into a variable.
SECRET = f"file:{os.environ['AIRFLOW_HOME']}/webhook_secret.json" if IS_3_0 else VARIABLE

ready = Asset("system_orders_ready")
start_date = datetime(2025, 1, 1, tzinfo=UTC)  # needed by Airflow 2
with DAG("webhook_received", schedule=[ready], start_date=start_date, is_paused_upon_creation=False):

    @task
    def receive(triggering_asset_events: Any = None) -> None:
        print("Received", triggering_asset_events)

    receive()

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import PartitionedAssetTimetable

    by_day = PartitionedAssetTimetable(assets=Asset("system_orders_by_day"))
    with DAG("webhook_received_by_day", schedule=by_day, is_paused_upon_creation=False):

        @task
        def print_day(dag_run: Any = None) -> None:
            print("Received", dag_run.partition_key)

        print_day()

with DAG("webhook_subscription", schedule=None, params={"url": None}, is_paused_upon_creation=False):
    subscribe = PlanasonixWebhookOperator(
        task_id="subscribe",
        url="{{ params.url }}",
        events=["job.succeeded", "job.failed", "job.cancelled", "backfill.completed"],
        secret_to=SECRET,
    )

if IS_3_0:
    with DAG("webhook_in_a_variable", schedule=None, is_paused_upon_creation=False):
        PlanasonixWebhookOperator(
            task_id="subscribe", url="https://example.com/other", events=["job.failed"], secret_to=VARIABLE
        )

with DAG("webhook_rotation", schedule=None, params={"webhook_id": None}, is_paused_upon_creation=False):

    @task
    def rotate(params: dict[str, Any] | None = None) -> None:
        from planasonix_provider.hooks.planasonix import PlanasonixHook
        from planasonix_provider.webhook_secrets import rotate_secret

        with PlanasonixHook() as hook:
            rotate_secret(hook, (params or {})["webhook_id"], to=SECRET)

    rotate()
