"""Send a message to Slack if a sync fails, with Planasonix's reason and a link to the job."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(
    dag_id="planasonix_slack_alert",
    schedule="@daily",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator(
        task_id="load_orders",
        connection_id="conn_demo_39",
        deferrable=True,
        # The Airflow connection slack_default, of the type Slack Incoming Webhook, has the webhook's URL.
        on_failure_callback=SlackWebhookNotifier(
            slack_webhook_conn_id="slack_default",
            text="{{ ti.task_id }} failed: {{ exception }} {{ ti.xcom_pull(task_ids=ti.task_id, key='job_url') }}",
        ),
    )
