"""The road of a task that sees to it that a url has no webhook subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.webhook_task import account, is_for
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.webhook_secrets import delete_if_exists

if TYPE_CHECKING:
    from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator


def unsubscribe(operator: PlanasonixWebhookOperator) -> dict[str, Any]:
    """Delete all subscriptions of a url; a retry deletes what is left.

    :param operator: says which url; its parameters are in their final form.
    :return: the subscription and what was done, in JSON types; of several, the newest.
    """
    with airflow_errors(), PlanasonixHook(operator.planasonix_conn_id) as hook:
        found = [webhook for webhook in hook.list_webhooks() if is_for(webhook, operator.url)]
        for webhook in found:
            delete_if_exists(hook, webhook.id)
            operator.log.info("Webhook %s is deleted.", webhook.id)
    if not found:
        operator.log.info("There is no webhook for the url of this task; there is nothing to delete.")
        return {
            "webhook_id": None,
            "url": operator.url,
            "events": [],
            "enabled": False,
            "action": "unchanged",
            "secret_is_new": False,
        }
    return account(found[0], "deleted", secret_is_new=False) | {"enabled": False}
