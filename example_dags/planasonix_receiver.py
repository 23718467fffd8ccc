"""Receive Planasonix's webhooks in this Airflow's API server, and start a DAG after each job that succeeds.

The Airflow connection ``planasonix_orders``, of the type Planasonix Webhook, is the receiver. Its extra is
``{"asset": "orders_ready", "kept_in": "variable:planasonix_orders_secret", "events": "job.succeeded"}``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, conf, task

from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator

SECRET = "variable:planasonix_orders_secret"  # noqa: S105 - where it is kept
# The URL under which Planasonix reaches this Airflow.
AIRFLOW_URL = (conf.get("api", "base_url", fallback="") or "http://localhost:8080").rstrip("/")

with DAG(
    dag_id="planasonix_receiver",
    schedule="@monthly",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    subscribe = PlanasonixWebhookOperator(
        task_id="subscribe",
        url=f"{AIRFLOW_URL}/planasonix/webhook/planasonix_orders",
        events=["job.succeeded"],
        secret_to=SECRET,
        retries=2,
    )

    @task(retries=2)
    def rotate(webhook: dict[str, Any]) -> None:
        """Rotate the secret every month; the receiver accepts the old one for deliveries that are under way."""
        from planasonix_provider.hooks.planasonix import PlanasonixHook
        from planasonix_provider.webhook_secrets import rotate_secret

        if not webhook["secret_is_new"]:
            with PlanasonixHook() as hook:
                rotate_secret(hook, webhook["webhook_id"], to=SECRET)

    rotate(subscribe.output)

orders_ready = Asset("orders_ready")

with DAG(
    dag_id="planasonix_orders_report",
    schedule=[orders_ready],
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
) as report:

    @task(inlets=[orders_ready])
    def list_jobs(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[str]:
        """Return the jobs that have ended since the first event of this run; some may be in the next run again."""
        started_by = [event for events in (triggering_asset_events or {}).values() for event in events]
        if not started_by:
            return []
        # Several events start one run, and Airflow may give it only the first.
        since = min(event.timestamp for event in started_by)
        events = [event for event in inlet_events[orders_ready] if event.timestamp >= since]
        return [event.extra["job_id"] for event in events if "job_id" in event.extra]

    list_jobs()
