"""Webhook events and their deliveries: which are due, their attempts, and their outcome. Sends nothing itself."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from threading import RLock
from typing import NamedTuple

from pydantic_core import to_json

from planasonix_provider.api.models import Delivery
from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.model.simulated_jobs import without_nones
from planasonix_provider.simulator.model.workload import StateChanges
from planasonix_provider.simulator.webhooks.subscriptions import Subscription

#: The only event of a backfill that the API sends is ``backfill.completed``.
_NOT_SENT = ("backfill.failed", "backfill.cancelled")
#: Seconds between the first attempt and the second; each further pause is twice as long.
FIRST_PAUSE = 0.2
#: Seconds that a shuffled delivery waits for the next one to overtake it.
MAX_HOLD = 3.0
#: Seconds by which a delivery follows the one that overtook it.
_OVERTAKEN_BY = 0.001


@dataclass(frozen=True)
class Event:
    """An event such as ``job.succeeded``. Its id is the same in every delivery."""

    id: str
    type: str
    at: datetime
    subject_id: str

    @cached_property
    def body(self) -> bytes:
        """The request body of its deliveries."""
        kind, _, status = self.type.rpartition(".")
        subject = "backfill_id" if kind == "backfill" else "job_id"
        return to_json(
            {
                "id": self.id,
                "type": self.type,
                "timestamp": self.at,
                subject: self.subject_id,
                "data": {"status": status},
            }
        )


class SentDelivery(Delivery):
    """A delivery with the ids of its subscription and event, and when it was delivered or given up."""

    webhook_id: str
    event_id: str
    finished_at: datetime | None = None


class SignedRequest(NamedTuple):
    """A POST request, signed now."""

    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(eq=False)
class QueuedDelivery:
    """The delivery of an event to a subscription: ``pending``, ``delivered`` or ``failed``.

    ``due`` is a time of :func:`time.monotonic`. ``http_status`` and ``last_error`` are those of the last attempt that
    had any.
    """

    id: str
    position: int
    subscription: Subscription
    event: Event
    due: float = field(default_factory=time.monotonic)
    status: str = "pending"
    attempt: int = 0
    http_status: int | None = None
    last_error: str | None = None
    finished_at: datetime | None = None

    def to_model(self) -> SentDelivery:
        """Return the fields that the API sends. A field that is set to ``None`` is sent as ``null``."""
        return SentDelivery(
            id=self.id,
            event=self.event.type,
            status=self.status,
            attempt=self.attempt,
            delivered_at=self.finished_at if self.status == "delivered" else None,
            webhook_id=self.subscription.id,
            event_id=self.event.id,
            finished_at=self.finished_at,
            **without_nones({"http_status": self.http_status, "last_error": self.last_error}),
        )


class Outbox:
    """All deliveries. Every method may be called from any thread.

    :param lock: also guards the subscriptions.
    :param keep: how many finished deliveries are kept.
    """

    def __init__(self, journal: Journal, lock: RLock, settings: Callable[[], SimulatorSettings], keep: int) -> None:
        self._journal = journal
        self._lock = lock
        self._settings = settings
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._deliveries = Collection[QueuedDelivery]("delivery")
            self._pending: dict[str, QueuedDelivery] = {}
            # By subscription: the delivery that waits to be overtaken.
            self._held: dict[str, QueuedDelivery] = {}
            self._finished: deque[QueuedDelivery] = deque()

    def add(self, event: Event, subscription: Subscription) -> QueuedDelivery:
        """Queue an event as the setting ``webhook_delivery`` demands, and return its first delivery."""
        with self._lock:
            mode = self._settings().webhook_delivery
            delivery = self._queue(event, subscription)
            if mode == "twice":
                self._queue(event, subscription)
            if mode == "shuffled":
                self._hold_or_overtake(delivery)
            return delivery

    def due(self) -> list[QueuedDelivery]:
        """Return the deliveries to send now, the longest due first."""
        with self._lock:
            now = time.monotonic()
            due = [delivery for delivery in self._sendable() if delivery.due <= now]
            return sorted(due, key=lambda delivery: (delivery.due, delivery.position))

    def seconds_until_due(self, at_most: float) -> float:
        """Return the seconds until the next delivery is due, limited to ``at_most``."""
        with self._lock:
            next_due = min((delivery.due for delivery in self._sendable()), default=float("inf"))
        return min(at_most, max(0.0, next_due - time.monotonic()))

    def signed_request(self, delivery: QueuedDelivery) -> SignedRequest | None:
        """Return the request to send, with the subscription's current URL and secret; ``None`` if it is obsolete."""
        with self._lock:
            subscription = delivery.subscription
            if not self._is_pending(delivery) or not subscription.is_active:
                return None
            timestamp = int(self._journal.clock().timestamp())
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "planasonix-simulator",
                TIMESTAMP_HEADER: str(timestamp),
                SIGNATURE_HEADER: sign(delivery.event.body, subscription.secret, timestamp),
            }
            return SignedRequest(subscription.url, delivery.event.body, headers)

    def record_attempt(self, delivery: QueuedDelivery, status: int | None, error: str | None = None) -> None:
        """Record the receiver's status, or the error if it sent none, unless the delivery is obsolete."""
        with self._lock:
            if self._is_pending(delivery):
                self.apply_attempt(delivery.id, status, error)

    def apply_attempt(self, delivery_id: str, status: int | None, error: str | None = None) -> None:
        """Record an attempt at a pending delivery; the journal replays this method."""
        with self._lock:
            self._journal.write("webhooks.outbox.apply_attempt", delivery_id=delivery_id, status=status, error=error)
            delivery = self._pending[delivery_id]
            delivery.attempt += 1
            delivery.http_status = status or delivery.http_status
            if status is not None and 200 <= status < 300:
                self._finish(delivery, "delivered")
                return
            delivery.last_error = error or f"the receiver answered {status}"
            if delivery.attempt >= self._settings().webhook_attempts:
                self._finish(delivery, "failed")
            delivery.due = time.monotonic() + FIRST_PAUSE * 2 ** (delivery.attempt - 1) / self._settings().speed

    def fail_pending(self, subscription: Subscription) -> None:
        """Mark the pending deliveries of a deleted subscription as failed."""
        with self._lock:
            for delivery in [one for one in self._pending.values() if one.subscription is subscription]:
                delivery.last_error = "the subscription was deleted"
                self._finish(delivery, "failed")

    def all(self) -> list[SentDelivery]:
        with self._lock:
            return [delivery.to_model() for delivery in self._deliveries.newest_first()]

    def page(
        self, subscription: Subscription, *, limit: int, before: int | None = None
    ) -> tuple[Sequence[SentDelivery], int | None]:
        """Return a page of a subscription's deliveries, newest first, and the position at which it ended."""
        with self._lock:
            page, end = self._deliveries.page(
                lambda delivery: delivery.subscription is subscription, limit=limit, before=before
            )
            return [delivery.to_model() for delivery in page], end

    def failures_24h(self, subscription: Subscription, now: datetime) -> int:
        """Return the number of deliveries that failed in the last 24 hours."""
        with self._lock:
            failed_at = (
                delivery.finished_at
                for delivery in self._finished
                if delivery.subscription is subscription and delivery.status == "failed"
            )
            return sum(at > now - timedelta(hours=24) for at in failed_at if at is not None)

    def _queue(self, event: Event, subscription: Subscription) -> QueuedDelivery:
        delivery = QueuedDelivery(self._journal.ids("whd"), self._deliveries.next_position, subscription, event)
        self._deliveries.add(delivery)
        self._pending[delivery.id] = delivery
        return delivery

    def _hold_or_overtake(self, delivery: QueuedDelivery) -> None:
        """Delay every other delivery of a subscription until the next one was sent."""
        held = self._held.pop(delivery.subscription.id, None)
        if held is not None and not held.attempt:
            held.due = delivery.due + _OVERTAKEN_BY
            return
        self._held[delivery.subscription.id] = delivery
        delivery.due += MAX_HOLD / self._settings().speed

    def _is_pending(self, delivery: QueuedDelivery) -> bool:
        # The identity excludes deliveries from before a reset.
        return self._pending.get(delivery.id) is delivery

    def _sendable(self) -> Iterator[QueuedDelivery]:
        return (delivery for delivery in self._pending.values() if delivery.subscription.is_active)

    def _finish(self, delivery: QueuedDelivery, status: str) -> None:
        delivery.status = status
        delivery.finished_at = self._journal.clock()
        if status == "delivered":
            delivery.subscription.last_delivered_at = delivery.finished_at
        del self._pending[delivery.id]
        self._finished.append(delivery)
        if len(self._finished) > self._keep:
            self._deliveries.remove(self._finished.popleft())


def events_of(changes: StateChanges, ids: Ids) -> list[Event]:
    """Return the events in the order in which they happened."""
    events = [Event(ids("evt"), *change) for change in changes if change.type not in _NOT_SENT]
    return sorted(events, key=lambda event: event.at)
