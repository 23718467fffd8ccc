"""The webhook subscriptions: who is told of what happens. No HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from threading import RLock

from pydantic import SecretStr

from planasonix_provider.api.models import Delivery, NewWebhook, RotatedSecret, TestDelivery, Webhook
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.idempotency import IdempotencyKeys
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.webhooks.deliveries import Outbox
from planasonix_provider.simulator.webhooks.subscriptions import (
    Subscription,
    WebhookPatchRequestBody,
    WebhookRequestBody,
    WebhookTestRequestBody,
)
from planasonix_provider.simulator.webhooks.webhook_events import Event, StateChanges


class Webhooks:
    """All subscriptions. Every method may be called from any thread.

    :param outbox: takes what is to be delivered.
    :param journal: makes ids and secrets, and is told of every change.
    :param lock: what guards the subscriptions, and the jobs and backfills too.
    :param now: tells the time, once all that happened until then was handed to :meth:`notice`; called under the lock.
    :param settings: tells how the deployment behaves.
    """

    def __init__(
        self,
        outbox: Outbox,
        journal: Journal,
        lock: RLock,
        now: Callable[[], datetime],
        settings: Callable[[], SimulatorSettings],
    ) -> None:
        self.outbox = outbox
        #: Called once there is a new subscription, for whoever is to deliver.
        self.on_subscribed: Callable[[], None] = lambda: None
        self._journal = journal
        self._lock = lock
        self._now = now
        self._settings = settings

    def reset(self) -> None:
        """Forget all subscriptions and deliveries."""
        with self._lock:
            self._subscriptions = Collection[Subscription]("webhook")
            self._idempotency_keys = IdempotencyKeys()
            self._count = 0
            self.outbox.reset()

    @property
    def has_subscriptions(self) -> bool:
        """Whether there is a subscription."""
        with self._lock:
            return self._count > 0

    def advance(self) -> None:
        """Notice what happened until now."""
        with self._lock:
            self._now()

    def publish(self, news: StateChanges) -> None:
        """Have what happened delivered to whom it concerns; to be called under the lock.

        :param news: what happened.
        """
        if self._count:
            for event in news.events(self._journal.ids):
                self._enqueue(event)

    def create(self, order: WebhookRequestBody, *, idempotency_key: str | None = None) -> NewWebhook:
        """Create a subscription.

        :param order: what it is created with.
        :param idempotency_key: what makes a second delivery of this order recognisable.
        :return: the subscription with its secret; the one from before, if this order was delivered already.
        :raises Refused: as ``idempotency_key_reused``.
        """
        with self._lock:
            now = self._now()
            key = idempotency_key if self._settings().honour_idempotency else None
            webhook_id = self._idempotency_keys.find(key, "", order)
            subscription = self._create(order, now) if webhook_id is None else self._get(webhook_id)
            self._idempotency_keys.add(key, "", order, subscription.id)
            if webhook_id is None:
                self._journal.write("webhooks.create", at=now, order=order, idempotency_key=idempotency_key)
            shown = NewWebhook(**dict(self._to_model(subscription, now)), signing_secret=subscription.secret)
        self.on_subscribed()
        return shown

    def get(self, webhook_id: str) -> Webhook:
        """Look at a subscription.

        :param webhook_id: its id.
        :return: the subscription, without its secret.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            return self._to_model(self._get(webhook_id), self._now())

    def all(self) -> list[Webhook]:
        """Look at all subscriptions.

        :return: the subscriptions, newest first, without their secrets.
        """
        with self._lock:
            now = self._now()
            return [self._to_model(one, now) for one in self._subscriptions.newest_first() if not one.is_deleted]

    def page(self, *, limit: int, before: int | None = None) -> tuple[Sequence[Webhook], int | None]:
        """Look at some of the subscriptions, newest first.

        :param limit: how many subscriptions to show.
        :param before: where the page before this one ended; ``None`` begins with the newest subscription.
        :return: the subscriptions, and where the page ends, which is ``None`` if no more follow.
        """
        with self._lock:
            now = self._now()
            page, end = self._subscriptions.page(lambda one: not one.is_deleted, limit=limit, before=before)
            return [self._to_model(subscription, now) for subscription in page], end

    def update(self, webhook_id: str, change: WebhookPatchRequestBody) -> Webhook:
        """Change a subscription. What is still to be delivered goes to the new URL, once it is enabled.

        :param webhook_id: its id.
        :param change: what is to be different.
        :return: the subscription as it is from now on.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            now = self._now()
            subscription = self._get(webhook_id)
            for name in ("url", "events", "enabled"):
                value = getattr(change, name)
                if value is not None:
                    setattr(subscription, name, value)
            subscription.updated_at = now
            self._journal.write("webhooks.update", at=now, webhook_id=webhook_id, change=change)
            return self._to_model(subscription, now)

    def delete(self, webhook_id: str) -> None:
        """Delete a subscription. It gets nothing more, not even what happened before.

        :param webhook_id: its id.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            subscription = self._get(webhook_id)
            subscription.is_deleted = True
            self._count -= 1
            self.outbox.fail_pending(subscription)
            self._journal.write("webhooks.delete", webhook_id=webhook_id)

    def rotate(self, webhook_id: str) -> RotatedSecret:
        """Make a new secret. It signs all that is sent from now on, further attempts too.

        :param webhook_id: the subscription's id.
        :return: the secret.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            now = self._now()
            subscription = self._get(webhook_id)
            subscription.secret = self._new_secret()
            self._journal.write("webhooks.rotate", at=now, webhook_id=webhook_id)
            return RotatedSecret(id=subscription.id, signing_secret=subscription.secret, rotated_at=now)

    def test(self, webhook_id: str, order: WebhookTestRequestBody | None = None) -> TestDelivery:
        """Send a test event, of a job or backfill that does not exist.

        :param webhook_id: the subscription's id.
        :param order: which event; by default the first that the subscription is of.
        :return: the delivery.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            now = self._now()
            subscription = self._get(webhook_id)
            event_type = (order and order.event) or subscription.events[0]
            subject_id = self._journal.ids("bf" if event_type.startswith("backfill.") else "job")
            parcel = self.outbox.add(Event(self._journal.ids("evt"), event_type, now, subject_id), subscription)
            self._journal.write("webhooks.test", at=now, webhook_id=webhook_id, order=order)
            return TestDelivery(delivery_id=parcel.id, status=parcel.status)

    def delivery_page(
        self, webhook_id: str, *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Delivery], int | None]:
        """Look at some of a subscription's deliveries, newest first.

        :param webhook_id: the subscription's id.
        :param limit: how many deliveries to show.
        :param before: where the page before this one ended; ``None`` begins with the newest delivery.
        :return: the deliveries, and where the page ends, which is ``None`` if no more follow.
        :raises Refused: as ``not_found``, if there is no such subscription.
        """
        with self._lock:
            self._now()
            return self.outbox.page(self._get(webhook_id), limit=limit, before=before)

    def _create(self, order: WebhookRequestBody, now: datetime) -> Subscription:
        subscription = Subscription(
            id=self._journal.ids("wh"),
            position=self._subscriptions.next_position,
            url=order.url,
            events=order.events,
            secret=self._new_secret() if order.secret is None else SecretStr(order.secret),
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

    def _enqueue(self, event: Event) -> None:
        for subscription in reversed(list(self._subscriptions.newest_first())):
            if subscription.is_live and event.type in subscription.events:
                self.outbox.add(event, subscription)

    def _to_model(self, subscription: Subscription, now: datetime) -> Webhook:
        last = subscription.last_delivered_at
        given = {} if last is None else {"last_delivery_at": last}
        return Webhook(
            id=subscription.id,
            url=subscription.url,
            events=subscription.events,
            enabled=subscription.enabled,
            created_at=subscription.created_at,
            updated_at=subscription.updated_at,
            failure_count_24h=self.outbox.failures_24h(subscription, now),
            **given,
        )
