"""The road of a task that sees to a webhook subscription: look, create or change it, have its secret kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import NewWebhook, Webhook
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.secret_stores import SecretStore
from planasonix_provider.webhook_secrets import (
    check_unused,
    create_without_storing,
    delete_if_exists,
    rotate_secret,
    secret_store,
    store_or_delete,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator


class WebhookTask:
    """One try of a task that sees to a subscription.

    :param operator: says what it is to be; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, operator: PlanasonixWebhookOperator, context: Context) -> None:
        self.operator = operator
        self.log = operator.log
        self.url, self.events = str(operator.url), list(operator.events or ())
        self.place = secret_store(operator.secret_to or "")
        self.memory = _HandedOverNote(context["ti"], self.place)

    def run(self) -> dict[str, Any]:
        """See to it that there is one subscription, as the task says, whose secret is kept.

        :return: the subscription and what was done, in JSON types.
        :raises AirflowFailException: for what no retry can mend.
        :raises PlanasonixError: for what a retry can.
        """
        try:
            routes.create_webhook(self.url, events=self.events)
        except ValueError as refusal:
            raise AirflowFailException(str(refusal)) from None
        with (
            airflow_errors(),
            _retries_after_a_lost_answer(),
            PlanasonixHook(self.operator.planasonix_conn_id) as hook,
        ):
            self.place.check_writable()
            webhook = self._the_one(self._look(hook)) or self._create(hook)
            if not isinstance(webhook, NewWebhook):
                return self._adopt(hook, webhook)
            self.memory.remember(webhook)
            self.log.info("Webhook %s was created; its secret is in %s.", webhook.id, self.place.description)
            return account(webhook, "created", secret_is_new=True)

    def _look(self, hook: PlanasonixHook) -> list[Webhook]:
        return [webhook for webhook in hook.list_webhooks() if is_for(webhook, self.url)]

    def _the_one(self, found: list[Webhook]) -> Webhook | None:
        if len(found) > 1:
            raise PlanasonixConflictError(
                f"There are {len(found)} webhooks for the url of task {self.operator.task_id!r}, each of "
                f"which gets every event: {', '.join(sorted(webhook.id for webhook in found))}. Delete all but one in "
                "Planasonix."
            )
        return found[0] if found else None

    def _create(self, hook: PlanasonixHook) -> Webhook:
        """Create the subscription; give another one instead where one turns out to be there."""
        gone = check_unused(hook, self.place)
        try:
            created = create_without_storing(hook, self.url, events=self.events)
        except PlanasonixLostTrackError as lost:
            if webhook := self._the_one(self._look(hook)):
                self.log.warning("%s Now there is webhook %s.", lost.message, webhook.id)
                return webhook
            raise
        try:
            others = [webhook for webhook in self._look(hook) if webhook.id != created.id]
        except PlanasonixError:
            store_or_delete(hook, created, self.place, instead_of=gone)
            raise
        if older := [webhook for webhook in others if _is_older(webhook, created)]:
            return self._yield_to(older, created, hook)
        store_or_delete(hook, created, self.place, instead_of=gone)
        return created

    def _yield_to(self, others: list[Webhook], created: NewWebhook, hook: PlanasonixHook) -> Webhook:
        """Delete a subscription whose url another task has subscribed at the same moment."""
        delete_if_exists(hook, created.id)
        event = (
            f"Another task made a webhook for the same url at the same moment; webhook {created.id} was deleted again"
        )
        webhook = self._the_one(others)
        if webhook is None or not self._is_secret_kept(webhook):
            # Not rotated here: what the other task is about to keep would be worth nothing.
            raise PlanasonixConflictError(f"{event}, and the secret of the other one is not there yet. Try again.")
        self.log.warning("%s.", event)
        return webhook

    def _adopt(self, hook: PlanasonixHook, webhook: Webhook) -> dict[str, Any]:
        """Let a subscription that is there be as the task says."""
        is_secret_kept = self._is_secret_kept(webhook)
        if not is_secret_kept:
            # Before anything else: as long as nobody knows its secret, nothing that it delivers can be checked.
            rotate_secret(hook, webhook.id, to=self.place)
            self.log.info(
                "The secret of webhook %s %s, so it was rotated; the new one is there.",
                webhook.id,
                f"was not in {self.place.description}"
                if self.place.is_readable
                else f"may never have reached {self.place.description}",
            )
        self.memory.remember(webhook)
        is_as_it_should_be = set(webhook.events) == set(self.events) and webhook.enabled is not False
        if is_as_it_should_be:
            self.log.info("Webhook %s is as it should be.", webhook.id)
            return account(webhook, "unchanged", secret_is_new=not is_secret_kept)
        self.log.info(
            "Webhook %s was %s, for %s; from now on it is enabled, for %s.",
            webhook.id,
            "disabled" if webhook.enabled is False else "enabled",
            ", ".join(webhook.events),
            ", ".join(self.events),
        )
        changed = hook.update_webhook(webhook.id, events=self.events, enabled=True)
        merged = webhook.model_copy(update=changed.model_dump(exclude_unset=True))
        return account(merged, "updated", secret_is_new=not is_secret_kept)

    def _is_secret_kept(self, webhook: Webhook) -> bool:
        if not self.place.is_readable:
            return self.memory.has(webhook)
        kept = self.place.load()
        return kept is not None and kept.webhook_id == webhook.id


class _HandedOverNote:
    """Knows from one run to the next whose secret was handed to a function, which cannot be asked.

    It is a note in XCom. Each try takes the note back before it does anything, and writes it anew at its end: nobody
    knows where the secret of a try is that died in between.
    """

    KEY = "planasonix_secret_handed_over"

    def __init__(self, ti: Any, place: SecretStore) -> None:
        self._ti, self._place = ti, place
        self._known = None
        if not place.is_readable:
            # Of an earlier try of this run Airflow keeps no note, and what the runs before wrote may no longer be true.
            if getattr(ti, "try_number", 1) == 1:
                self._known = ti.xcom_pull(
                    task_ids=ti.task_id, key=self.KEY, map_indexes=ti.map_index, include_prior_dates=True
                )
            ti.xcom_push(key=self.KEY, value=None)

    def has(self, webhook: Webhook) -> bool:
        return bool(self._known == self._note(webhook))

    def remember(self, webhook: Webhook) -> None:
        if not self._place.is_readable:
            self._ti.xcom_push(key=self.KEY, value=self._note(webhook))

    def _note(self, webhook: Webhook) -> dict[str, str]:
        return {"webhook_id": webhook.id, "to": self._place.description}


@contextmanager
def _retries_after_a_lost_answer() -> Iterator[None]:
    """Let Airflow try again, unlike after a start of work that may have begun: each try looks first."""
    try:
        yield
    except PlanasonixLostTrackError as lost:
        raise PlanasonixError(f"{lost.message} A retry of the task looks first, and goes on.") from lost


def _address(url: str) -> tuple[Any, ...]:
    """Make comparable what a server may write otherwise than it was sent."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return (url,)
    return parts.scheme, parts.username, parts.password, parts.hostname, port, parts.path or "/", parts.query


def _is_older(webhook: Webhook, created: NewWebhook) -> bool:
    """Say who yields: the younger one, and both where nobody can tell."""
    return not webhook.created_at or not created.created_at or webhook.created_at <= created.created_at


def is_for(webhook: Webhook, url: str) -> bool:
    """Say whether a subscription is a url's.

    :param webhook: the subscription.
    :param url: the url, as the task has it.
    :return: whether its deliveries go there, however the server writes the url.
    """
    return _address(webhook.url) == _address(url)


def account(webhook: Webhook, action: str, *, secret_is_new: bool) -> dict[str, Any]:
    """Say what was done, in JSON types.

    :param webhook: the subscription.
    :param action: ``created``, ``updated``, ``unchanged`` or ``deleted``.
    :param secret_is_new: whether its secret was made in this try.
    :return: what the task returns.
    """
    return {
        "webhook_id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "enabled": webhook.enabled is not False,
        "action": action,
        "secret_is_new": secret_is_new,
    }
