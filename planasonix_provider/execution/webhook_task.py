"""Creates, changes or deletes the webhook subscription of a URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import NewWebhook, Webhook
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.secret_stores import SecretStore
from planasonix_provider.state_store import VariableStateStore
from planasonix_provider.webhook_secrets import (
    check_unused,
    create_without_storing,
    delete_if_exists,
    rotate_secret,
    store_or_delete,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The Airflow variable of a :class:`_HandoverNote`, without its suffix.
HANDOVER_KEY = "planasonix_secret_handed_over"


def ensure_absent(url: str, *, conn_id: str, log: Any) -> dict[str, Any]:
    """Delete all subscriptions of a URL, and return the newest one."""
    with airflow_errors(), PlanasonixHook(conn_id) as hook:
        webhooks = _webhooks_for(url, hook)
        for webhook in webhooks:
            delete_if_exists(hook, webhook.id)
            log.info("Webhook %s is deleted.", webhook.id)
    if webhooks:
        return _result(webhooks[0], "deleted") | {"enabled": False}
    log.info("There is no webhook for the url of this task; there is nothing to delete.")
    return {
        "webhook_id": None,
        "url": url,
        "events": [],
        "enabled": False,
        "action": "unchanged",
        "secret_is_new": False,
    }


def ensure_present(
    url: str, events: Sequence[str], destination: SecretStore, *, conn_id: str, context: Context, log: Any
) -> dict[str, Any]:
    """Leave one enabled subscription of a URL to these events, whose secret is stored, and return it."""
    note = None if destination.is_readable else _HandoverNote(context, destination)
    try:
        # Validates the arguments before anything is created or rotated, and warns about unknown events.
        routes.create_webhook(url, events=events)
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    with airflow_errors(), _retry_after_lost_response(), PlanasonixHook(conn_id) as hook:
        destination.check_writable()
        return _Subscriber(hook, url, events, destination, note, log).subscribe()


@dataclass
class _Subscriber:
    """One try to subscribe a URL."""

    hook: PlanasonixHook
    url: str
    events: Sequence[str]
    destination: SecretStore
    note: _HandoverNote | None
    log: Any

    def subscribe(self) -> dict[str, Any]:
        webhook = self._only(_webhooks_for(self.url, self.hook)) or self._create()
        if not isinstance(webhook, NewWebhook):
            return self._update(webhook)
        if self.note:
            self.note.write(webhook)
        self.log.info("Webhook %s was created; its secret is in %s.", webhook.id, self.destination.description)
        return _result(webhook, "created", secret_is_new=True)

    def _only(self, webhooks: list[Webhook]) -> Webhook | None:
        if len(webhooks) > 1:
            raise PlanasonixConflictError(
                f"There are {len(webhooks)} webhooks for the url of this task, each of which gets every event: "
                f"{', '.join(sorted(webhook.id for webhook in webhooks))}. Delete all but one in Planasonix."
            )
        return webhooks[0] if webhooks else None

    def _create(self) -> Webhook:
        """Create the subscription, or return the one that turns out to exist."""
        replaceable = check_unused(self.hook, self.destination)
        try:
            created = create_without_storing(self.hook, self.url, events=self.events)
        except PlanasonixLostTrackError as lost:
            if webhook := self._only(_webhooks_for(self.url, self.hook)):
                self.log.warning("%s Now there is webhook %s.", lost.message, webhook.id)
                return webhook
            raise
        try:
            others = [webhook for webhook in _webhooks_for(self.url, self.hook) if webhook.id != created.id]
        except PlanasonixError:
            store_or_delete(self.hook, created, self.destination, instead_of=replaceable)
            raise
        if older := [webhook for webhook in others if _is_older(webhook, created)]:
            return self._give_way(older, created)
        store_or_delete(self.hook, created, self.destination, instead_of=replaceable)
        return created

    def _give_way(self, others: list[Webhook], created: NewWebhook) -> Webhook:
        """Delete the new subscription, because another task has subscribed the URL at the same moment."""
        delete_if_exists(self.hook, created.id)
        event = (
            f"Another task made a webhook for the same url at the same moment; webhook {created.id} was deleted again"
        )
        webhook = self._only(others)
        if webhook is None or not self._has_secret_of(webhook):
            # A rotation here would invalidate the secret that the other task is about to store.
            raise PlanasonixConflictError(f"{event}, and the secret of the other one is not there yet. Try again.")
        self.log.warning("%s.", event)
        return webhook

    def _update(self, webhook: Webhook) -> dict[str, Any]:
        """Store the secret of an existing subscription, and change what differs from the task's parameters."""
        is_rotated = not self._has_secret_of(webhook)
        if is_rotated:
            # First, because no receiver can verify deliveries without the secret.
            rotate_secret(self.hook, webhook.id, to=self.destination)
            self.log.info(
                "The secret of webhook %s %s %s, so it was rotated; the new one is there.",
                webhook.id,
                "may never have reached" if self.note else "was not in",
                self.destination.description,
            )
        if self.note:
            self.note.write(webhook)
        if set(webhook.events) == set(self.events) and webhook.enabled is not False:
            self.log.info("Webhook %s is as it should be.", webhook.id)
            return _result(webhook, "unchanged", secret_is_new=is_rotated)
        self.log.info(
            "Webhook %s was %s, for %s; from now on it is enabled, for %s.",
            webhook.id,
            "disabled" if webhook.enabled is False else "enabled",
            ", ".join(webhook.events),
            ", ".join(self.events),
        )
        changed = self.hook.update_webhook(webhook.id, events=self.events, enabled=True)
        merged = webhook.model_copy(update=changed.model_dump(exclude_unset=True))
        return _result(merged, "updated", secret_is_new=is_rotated)

    def _has_secret_of(self, webhook: Webhook) -> bool:
        if self.note:
            return self.note.names(webhook)
        stored = self.destination.load()
        return stored is not None and stored.webhook_id == webhook.id


class _HandoverNote:
    """Remembers for the task's next DAG run which webhook's secret a function got, because a function cannot be asked.

    Each try empties the note first, and writes it as soon as the function has the secret. If a try fails or dies in
    between, its secret may be lost, so the next one rotates it.
    """

    def __init__(self, context: Context, destination: SecretStore) -> None:
        ti = context["ti"]
        self._store = VariableStateStore(
            [ti.dag_id, ti.task_id, ti.map_index],
            "Which webhook's secret a task of the Planasonix provider has handed to a function.",
        )
        self._destination = destination
        self._previous = self._store.get(HANDOVER_KEY)
        if self._previous:
            # Not deleted, because Airflow 3 only logs that a variable could not be deleted.
            self._store.set(HANDOVER_KEY, {})

    def names(self, webhook: Webhook) -> bool:
        """Return whether the function has the webhook's secret."""
        return bool(self._previous == self._content(webhook))

    def write(self, webhook: Webhook) -> None:
        """Note that the function has the webhook's secret."""
        self._store.set(HANDOVER_KEY, self._content(webhook))

    def _content(self, webhook: Webhook) -> dict[str, str]:
        return {"webhook_id": webhook.id, "to": self._destination.description}


@contextmanager
def _retry_after_lost_response() -> Iterator[None]:
    """Make a lost response retryable: unlike a start of a job, each try first searches for the subscription."""
    try:
        yield
    except PlanasonixLostTrackError as lost:
        raise PlanasonixError(f"{lost.message} A retry of the task checks that first, and continues.") from lost


def _webhooks_for(url: str, hook: PlanasonixHook) -> list[Webhook]:
    return [webhook for webhook in hook.list_webhooks() if _normalized(webhook.url) == _normalized(url)]


def _normalized(url: str) -> tuple[Any, ...]:
    """Return a URL in a comparable form, because a server may write it differently."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return (url,)
    return parts.scheme, parts.username, parts.password, parts.hostname, port, parts.path or "/", parts.query


def _is_older(webhook: Webhook, created: NewWebhook) -> bool:
    """Return whether the new subscription must give way: the younger one does, and both if it cannot be told."""
    return not webhook.created_at or not created.created_at or webhook.created_at <= created.created_at


def _result(webhook: Webhook, action: str, *, secret_is_new: bool = False) -> dict[str, Any]:
    """Return what the task returns."""
    return {
        "webhook_id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "enabled": webhook.enabled is not False,
        "action": action,
        "secret_is_new": secret_is_new,
    }
