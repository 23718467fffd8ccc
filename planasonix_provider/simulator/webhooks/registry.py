"""The webhook subscriptions of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from threading import RLock

from pydantic import SecretStr

from planasonix_provider.api.models import NewWebhook, RotatedSecret, TestDelivery, Webhook
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.idempotency import IdempotencyKeys
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.model.workload import StateChanges
from planasonix_provider.simulator.webhooks.deliveries import Event, Outbox, SentDelivery, events_of
from planasonix_provider.simulator.webhooks.subscriptions import (
    Subscription,
    WebhookPatchRequestBody,
    WebhookRequestBody,
    WebhookTestRequestBody,
)


class Webhooks:
    """All subscriptions. Every method may be called from any thread.

    :param lock: the workspace's lock, because subscriptions, jobs and backfills change together.
    :param advance: applies the state changes that are due, passes them to :meth:`publish`, and returns the time.
    """

    def __init__(
        self,
        outbox: Outbox,
        journal: Journal,
        lock: RLock,
        advance: Callable[[], datetime],
        settings: Callable[[], SimulatorSettings],
    ) -> None:
        self.outbox = outbox
        #: Called after each new subscription.
        self.on_subscribed: Callable[[], None] = lambda: None
        self.advance = advance
        self._journal = journal
        self._lock = lock
        self._settings = settings

    def reset(self) -> None:
        with self._lock:
            self._subscriptions = Collection[Subscription]("webhook")
            self._idempotency_keys = IdempotencyKeys()
            self._count = 0
            self.outbox.reset()

    @property
    def has_subscriptions(self) -> bool:
        with self._lock:
            return self._count > 0

    def publish(self, changes: StateChanges) -> None:
        """Queue the events of state changes. The caller holds the lock."""
        if self._count:
            for event in events_of(changes, self._journal.ids):
                for subscription in reversed(list(self._subscriptions.newest_first())):
                    if subscription.is_active and event.type in subscription.events:
                        self.outbox.add(event, subscription)

    def create(self, body: WebhookRequestBody, *, idempotency_key: str | None = None) -> NewWebhook:
        """Create a subscription, or return the one that the same request created before, with its secret."""
        with self._lock:
            now = self.advance()
            key = idempotency_key if self._settings().honour_idempotency else None
            webhook_id = self._idempotency_keys.find(key, "", body)
            subscription = self._create(body, now) if webhook_id is None else self._get(webhook_id)
            self._idempotency_keys.add(key, "", body, subscription.id)
            if webhook_id is None:
                self._journal.write("webhooks.create", at=now, body=body, idempotency_key=idempotency_key)
            webhook = NewWebhook(**dict(self._to_model(subscription, now)), signing_secret=subscription.secret)
        self.on_subscribed()
        return webhook

    def get(self, webhook_id: str) -> Webhook:
        """Return a subscription without its secret."""
        with self._lock:
            return self._to_model(self._get(webhook_id), self.advance())

    def all(self) -> list[Webhook]:
        """Return all subscriptions, newest first, without their secrets."""
        with self._lock:
            now = self.advance()
            return [self._to_model(one, now) for one in self._subscriptions.newest_first() if not one.is_deleted]

    def page(self, *, limit: int, before: int | None = None) -> tuple[Sequence[Webhook], int | None]:
        """Return a page of subscriptions, newest first, and the position at which it ended."""
        with self._lock:
            now = self.advance()
            page, end = self._subscriptions.page(lambda one: not one.is_deleted, limit=limit, before=before)
            return [self._to_model(subscription, now) for subscription in page], end

    def update(self, webhook_id: str, body: WebhookPatchRequestBody) -> Webhook:
        """Change a subscription. Pending deliveries are sent to the new URL once the subscription is enabled."""
        with self._lock:
            now = self.advance()
            subscription = self._get(webhook_id)
            for name in ("url", "events", "enabled"):
                value = getattr(body, name)
                if value is not None:
                    setattr(subscription, name, value)
            subscription.updated_at = now
            self._journal.write("webhooks.update", at=now, webhook_id=webhook_id, body=body)
            return self._to_model(subscription, now)

    def delete(self, webhook_id: str) -> None:
        """Delete a subscription. Its pending deliveries fail."""
        with self._lock:
            subscription = self._get(webhook_id)
            subscription.is_deleted = True
            self._count -= 1
            self.outbox.fail_pending(subscription)
            self._journal.write("webhooks.delete", webhook_id=webhook_id)

    def rotate(self, webhook_id: str) -> RotatedSecret:
        """Return a new secret. It signs all requests from now on, retries included."""
        with self._lock:
            now = self.advance()
            subscription = self._get(webhook_id)
            subscription.secret = self._new_secret()
            self._journal.write("webhooks.rotate", at=now, webhook_id=webhook_id)
            return RotatedSecret(id=subscription.id, signing_secret=subscription.secret, rotated_at=now)

    def test(self, webhook_id: str, body: WebhookTestRequestBody | None = None) -> TestDelivery:
        """Queue a test event of a job or backfill that does not exist, by default of the first subscribed type."""
        with self._lock:
            now = self.advance()
            subscription = self._get(webhook_id)
            event_type = (body and body.event) or subscription.events[0]
            subject_id = self._journal.ids("bf" if event_type.startswith("backfill.") else "job")
            delivery = self.outbox.add(Event(self._journal.ids("evt"), event_type, now, subject_id), subscription)
            self._journal.write("webhooks.test", at=now, webhook_id=webhook_id, body=body)
            return TestDelivery(delivery_id=delivery.id, status=delivery.status)

    def delivery_page(
        self, webhook_id: str, *, limit: int, before: int | None = None
    ) -> tuple[Sequence[SentDelivery], int | None]:
        """Return a page of a subscription's deliveries, newest first, and the position at which it ended."""
        with self._lock:
            self.advance()
            return self.outbox.page(self._get(webhook_id), limit=limit, before=before)

    def _create(self, body: WebhookRequestBody, now: datetime) -> Subscription:
        subscription = Subscription(
            id=self._journal.ids("wh"),
            position=self._subscriptions.next_position,
            url=body.url,
            events=body.events,
            secret=self._new_secret() if body.secret is None else SecretStr(body.secret),
            created_at=now,
        )
        self._subscriptions.add(subscription)
        self._count += 1
        return subscription

    def _new_secret(self) -> SecretStr:
        return SecretStr(self._journal.ids("whsec"))

    def _get(self, webhook_id: str) -> Subscription:
        subscription = self._subscriptions.get(webhook_id)
        if subscription.is_deleted:
            raise ApiError("not_found", f"no webhook {webhook_id!r}")
        return subscription

    def _to_model(self, subscription: Subscription, now: datetime) -> Webhook:
        last = subscription.last_delivered_at
        optional = {} if last is None else {"last_delivery_at": last}
        return Webhook(
            id=subscription.id,
            url=subscription.url,
            events=subscription.events,
            enabled=subscription.enabled,
            created_at=subscription.created_at,
            updated_at=subscription.updated_at,
            failure_count_24h=self.outbox.failures_24h(subscription, now),
            **optional,
        )
