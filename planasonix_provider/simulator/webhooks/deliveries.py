"""What is sent to webhook subscriptions: the deliveries, when each is due, and what became of it. No HTTP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import RLock
from typing import Any, NamedTuple

from planasonix_provider.api.models import Delivery
from planasonix_provider.api.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.journal import Journal
from planasonix_provider.simulator.model.settings import SimulatorSettings
from planasonix_provider.simulator.webhooks.subscriptions import Subscription
from planasonix_provider.simulator.webhooks.webhook_events import Event

#: How many seconds pass between the first attempt and the second; each pause after it is twice as long.
FIRST_PAUSE = 0.2
#: How many seconds a delivery waits, where they are shuffled, for the next one to overtake it.
MAX_HOLD = 3.0
#: How many seconds a delivery that was overtaken comes behind the other one.
_BEHIND = 0.001


class SentDelivery(Delivery):
    """A delivery, and what it delivers to whom."""

    webhook_id: str
    event_id: str


class SignedRequest(NamedTuple):
    """A delivery as it is posted, signed at this moment.

    :param url: where to.
    :param body: the raw body.
    :param headers: the headers.
    """

    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(eq=False)
class QueuedDelivery:
    """One event for one subscription.

    :param id: the delivery's id.
    :param position: how many deliveries there were before it.
    :param subscription: whom it is for.
    :param event: what it tells.
    :param due: when it is to be tried, by :func:`time.monotonic`.
    :param status: ``pending``, ``delivered`` or ``failed``.
    :param attempt: how many attempts there were.
    :param http_status: the last status that the receiver answered, or ``None``.
    :param last_error: what was wrong with the last attempt that failed, or ``None``.
    :param over_at: when it was delivered or given up, or ``None``.
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
        """Show the delivery.

        :return: the delivery. A field that is ``None`` is one that the API sends as ``null``; others are not set.
        """
        given: dict[str, Any] = {"http_status": self.http_status, "last_error": self.last_error}
        return SentDelivery(
            id=self.id,
            event=self.event.type,
            status=self.status,
            attempt=self.attempt,
            delivered_at=self.finished_at if self.status == "delivered" else None,
            webhook_id=self.subscription.id,
            event_id=self.event.id,
            **{name: value for name, value in given.items() if value is not None},
        )


class Outbox:
    """All deliveries. Every method may be called from any thread.

    :param journal: makes their ids, tells the time that they are signed with, and is told of each attempt.
    :param lock: what guards them, and the subscriptions.
    :param settings: tells how the deployment behaves.
    :param keep: how many deliveries that are over are kept.
    """

    def __init__(self, journal: Journal, lock: RLock, settings: Callable[[], SimulatorSettings], keep: int) -> None:
        self._journal = journal
        self._lock = lock
        self._settings = settings
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget all deliveries."""
        with self._lock:
            self._deliveries = Collection[QueuedDelivery]("delivery")
            self._pending: dict[str, QueuedDelivery] = {}
            self._held: dict[str, QueuedDelivery] = {}
            self._finished: deque[QueuedDelivery] = deque()

    def add(self, event: Event, subscription: Subscription) -> QueuedDelivery:
        """Have an event delivered: once, twice or out of order, as the settings say.

        :param event: the event.
        :param subscription: whom it is for.
        :return: the delivery; the first one of two.
        """
        with self._lock:
            manner = self._settings().webhook_delivery
            parcel = self._pack(event, subscription)
            if manner == "twice":
                self._pack(event, subscription)
            if manner == "shuffled":
                self._hold_or_overtake(parcel)
            return parcel

    def due(self) -> list[QueuedDelivery]:
        """Tell what is to be sent now.

        :return: the deliveries, the one that is due longest first.
        """
        with self._lock:
            now = time.monotonic()
            due = [parcel for parcel in self._live() if parcel.due <= now]
            return sorted(due, key=lambda parcel: (parcel.due, parcel.position))

    def seconds_until_due(self, most: float) -> float:
        """Tell how long nothing is to be sent.

        :param most: the answer if it is longer than that.
        :return: the seconds.
        """
        with self._lock:
            next_due = min((parcel.due for parcel in self._live()), default=float("inf"))
        return min(most, max(0.0, next_due - time.monotonic()))

    def signed_request(self, parcel: QueuedDelivery) -> SignedRequest | None:
        """Write a delivery down, as its subscription is now.

        :param parcel: the delivery.
        :return: what to post, or ``None`` if there is nothing to send any more.
        """
        with self._lock:
            subscription = parcel.subscription
            if not self._is_pending(parcel) or not subscription.is_live:
                return None
            timestamp = int(self._journal.clock().timestamp())
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "planasonix-simulator",
                TIMESTAMP_HEADER: str(timestamp),
                SIGNATURE_HEADER: sign(parcel.event.body, subscription.secret, timestamp),
            }
            return SignedRequest(subscription.url, parcel.event.body, headers)

    def record_attempt(self, parcel: QueuedDelivery, status: int | None, error: str | None = None) -> None:
        """Take note of an attempt.

        :param parcel: the delivery.
        :param status: what the receiver answered; ``None`` if it did not.
        :param error: why it did not.
        """
        with self._lock:
            if self._is_pending(parcel):
                self.apply_attempt(parcel.id, status, error)

    def apply_attempt(self, delivery_id: str, status: int | None, error: str | None = None) -> None:
        """Take note of an attempt at a delivery that is not over.

        :param delivery_id: the delivery's id.
        :param status: what the receiver answered; ``None`` if it did not.
        :param error: why it did not.
        """
        with self._lock:
            self._journal.write("webhooks.outbox.apply_attempt", delivery_id=delivery_id, status=status, error=error)
            parcel = self._pending[delivery_id]
            parcel.attempt += 1
            parcel.http_status = status or parcel.http_status
            if status is not None and 200 <= status < 300:
                self._end(parcel, "delivered")
                return
            parcel.last_error = error or f"the receiver answered {status}"
            if parcel.attempt >= self._settings().webhook_attempts:
                self._end(parcel, "failed")
            parcel.due = time.monotonic() + FIRST_PAUSE * 2 ** (parcel.attempt - 1) / self._settings().speed

    def fail_pending(self, subscription: Subscription) -> None:
        """Give up what a subscription did not get yet.

        :param subscription: the subscription.
        """
        with self._lock:
            for parcel in [parcel for parcel in self._pending.values() if parcel.subscription is subscription]:
                parcel.last_error = "the subscription was deleted"
                self._end(parcel, "failed")

    def all(self) -> list[SentDelivery]:
        """Look at all deliveries.

        :return: the deliveries, newest first.
        """
        with self._lock:
            return [parcel.to_model() for parcel in self._deliveries.newest_first()]

    def page(
        self, subscription: Subscription, *, limit: int, before: int | None = None
    ) -> tuple[Sequence[Delivery], int | None]:
        """Look at some of a subscription's deliveries, newest first.

        :param subscription: the subscription.
        :param limit: how many deliveries to show.
        :param before: where the page before this one ended; ``None`` begins with the newest delivery.
        :return: the deliveries, and where the page ends, which is ``None`` if no more follow.
        """
        with self._lock:
            parcels, end = self._deliveries.page(
                lambda parcel: parcel.subscription is subscription, limit=limit, before=before
            )
            return [parcel.to_model() for parcel in parcels], end

    def failures_24h(self, subscription: Subscription, now: datetime) -> int:
        """Count the deliveries of the last 24 hours that were given up.

        :param subscription: the subscription.
        :param now: the time.
        :return: how many.
        """
        with self._lock:
            failed = (
                parcel.finished_at
                for parcel in self._finished
                if parcel.subscription is subscription and parcel.status == "failed"
            )
            return sum(at > now - timedelta(hours=24) for at in failed if at is not None)

    def _pack(self, event: Event, subscription: Subscription) -> QueuedDelivery:
        parcel = QueuedDelivery(self._journal.ids("whd"), self._deliveries.next_position, subscription, event)
        self._deliveries.add(parcel)
        self._pending[parcel.id] = parcel
        return parcel

    def _hold_or_overtake(self, parcel: QueuedDelivery) -> None:
        """Keep every other delivery of a subscription back until the next one was sent."""
        held = self._held.pop(parcel.subscription.id, None)
        if held is not None and not held.attempt:
            held.due = parcel.due + _BEHIND
            return
        self._held[parcel.subscription.id] = parcel
        parcel.due += MAX_HOLD / self._settings().speed

    def _is_pending(self, parcel: QueuedDelivery) -> bool:
        # Not if it is one from before a reset.
        return self._pending.get(parcel.id) is parcel

    def _live(self) -> Iterator[QueuedDelivery]:
        return (parcel for parcel in self._pending.values() if parcel.subscription.is_live)

    def _end(self, parcel: QueuedDelivery, status: str) -> None:
        parcel.status = status
        parcel.finished_at = self._journal.clock()
        if status == "delivered":
            parcel.subscription.last_delivered_at = parcel.finished_at
        del self._pending[parcel.id]
        self._finished.append(parcel)
        if len(self._finished) > self._keep:
            self._deliveries.remove(self._finished.popleft())
