"""Subscribe a receiver of your own to the end of each job, and rotate its signing secret every month."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator

SECRET = "variable:planasonix_webhook_secret"  # noqa: S105 - where it is kept

with DAG(
    dag_id="planasonix_webhook",
    schedule="@monthly",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    subscribe = PlanasonixWebhookOperator(
        task_id="subscribe",
        url="https://api.internal.example.com/planasonix/webhook",
        events=["job.succeeded", "job.failed", "job.cancelled", "backfill.completed"],
        secret_to=SECRET,
        retries=2,
    )

    @task(retries=2)
    def rotate(webhook: dict[str, Any]) -> None:
        """Rotate the secret, unless it is new. The old one stays valid for deliveries that are under way."""
        from planasonix_provider.hooks.planasonix import PlanasonixHook
        from planasonix_provider.webhook_secrets import rotate_secret

        if not webhook["secret_is_new"]:
            with PlanasonixHook() as hook:
                rotate_secret(hook, webhook["webhook_id"], to=SECRET)

    rotate(subscribe.output)
