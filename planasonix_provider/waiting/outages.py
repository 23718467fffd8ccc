"""Which errors are tolerated, and for how long: one table for every loop that retries through an outage.

Waits, cancels, searches, results and the start of a task share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum, auto
from typing import Any

from tenacity import RetryCallState, retry_if_exception

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixResponseError,
    PlanasonixTransportError,
)
from planasonix_provider.api.rate_limiter import MAX_RETRY_AFTER_SECONDS
from planasonix_provider.api.retry import is_transient
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.formatting import format_duration

#: How long the API may be out of reach before a task gives up.
MAX_OUTAGE = timedelta(hours=1)
#: How long the API may refuse what it has shown before. Keys are rotated, replicas restart, and a new job may not be
#: visible everywhere yet.
MAX_REFUSAL = timedelta(minutes=1)
#: How long a host that has never answered may be unreachable: it may be mistyped.
MAX_FIRST_CONTACT = timedelta(minutes=2)
#: Log an outage at most this often.
LOG_OUTAGE_EVERY = timedelta(minutes=1)
#: Between two requests during an outage.
RETRY_INTERVAL_SECONDS = 10.0


class Contact(IntEnum):
    """The best response so far."""

    #: Nothing yet: the host may be mistyped.
    NONE = 0
    #: The API, but this job or backfill was not seen: its id may be wrong.
    API = 1
    #: The job or backfill was seen, or this task has started it.
    WORK = 2


@dataclass(frozen=True)
class OutagePolicy:
    """How long errors are tolerated.

    :param outage: how long the API may be out of reach; default one hour.
    :param first_contact: how long a host that has never answered may be unreachable; default two minutes.
    :param refusal: how long the API may refuse what it has shown before, and how long the Airflow connection of a
        running wait may be missing; default one minute.
    """

    outage: timedelta = field(default_factory=lambda: MAX_OUTAGE)
    first_contact: timedelta = field(default_factory=lambda: MAX_FIRST_CONTACT)
    refusal: timedelta = field(default_factory=lambda: MAX_REFUSAL)

    def limit(self, error: PlanasonixError, contact: Contact) -> timedelta:
        """Return how long an error is tolerated: the one table that decides it.

        ================================== ============= ========== ==========
        error                              NONE          API        WORK
        ================================== ============= ========== ==========
        no such host, refused, no TLS      first_contact outage     outage
        outage (see :func:`is_transient`)  outage        outage     outage
        3xx or 4xx without the envelope    none [1]_     outage     outage
        401                                refusal       refusal    refusal
        another refusal by the API         none          none       refusal
        no usable Airflow connection       none          none       refusal
        anything else                      none          none       none
        ================================== ============= ========== ==========

        .. [1] A 401 without the envelope is tolerated like one with it.
        """
        if contact is Contact.NONE and is_unreachable(error):
            return self.first_contact
        if is_transient(error) or (contact >= Contact.API and is_by_a_proxy(error)):
            return self.outage
        if isinstance(error, PlanasonixAuthenticationError):
            return self.refusal
        if contact is Contact.WORK and isinstance(error, (PlanasonixResponseError, PlanasonixConfigurationError)):
            return self.refusal
        return timedelta(0)


def is_unreachable(error: BaseException) -> bool:
    """Return whether nothing was reached at the host."""
    return isinstance(error, PlanasonixTransportError) and error.is_unreachable


def is_by_a_proxy(error: BaseException) -> bool:
    """Return whether something other than the API has refused a request: the response lacks the API's envelope."""
    return isinstance(error, PlanasonixResponseError) and not error.has_envelope


def is_outage(error: BaseException) -> bool:
    """Return whether an error says nothing about the work that was asked for."""
    return is_transient(error) or is_by_a_proxy(error)


def never_reached(error: PlanasonixError, policy: OutagePolicy) -> str:
    """Return the message of a first contact that has failed; the error names the host and what to do."""
    return (
        f"{error} Nothing has ever answered there, so the task has tried for no more than "
        f"{format_duration(policy.first_contact.total_seconds())}."
    )


class Verdict(Enum):
    """The meaning of an error for the loop that met it."""

    TOLERATED = auto()
    #: The error itself is the reason to stop.
    REFUSED = auto()
    #: Nothing has ever answered at the host.
    NO_CONTACT = auto()
    #: The API was out of reach for too long.
    OUTAGE = auto()


class OutageTracker:
    """Counts for how long requests have failed.

    :param since: when the outage began, if it continues from another process.
    :param has_contact: whether the host has ever answered; the work may be known although it has not.
    :param passes: further errors that pass here like an outage; default none.
    """

    def __init__(
        self,
        policy: OutagePolicy | None = None,
        contact: Contact = Contact.WORK,
        *,
        has_contact: bool = True,
        since: datetime | None = None,
        passes: Callable[[PlanasonixError], bool] = lambda error: False,
    ) -> None:
        self.policy = policy or OutagePolicy()
        self.contact = contact
        self._has_contact = has_contact and contact is not Contact.NONE
        #: When the first request failed after the last response; ``None`` while requests succeed.
        self.since = since
        #: Whether the last error is tolerated for less time than an outage.
        self.is_short = False
        #: The meaning of the last error.
        self.verdict = Verdict.TOLERATED
        self._passes = passes
        self._refused_since: datetime | None = None
        self._unreachable_since = since
        self._logged_at: datetime | None = None

    def succeed(self, contact: Contact = Contact.WORK) -> None:
        """Record a response."""
        self.record_contact(contact)
        # An API that fails again and again is still logged once a minute.
        self.since = self._refused_since = self._unreachable_since = None
        self.is_short = False

    def record_contact(self, contact: Contact) -> None:
        """Record that the host has answered, whether or not the request has succeeded."""
        self.contact = max(self.contact, contact)
        self._has_contact = True

    def fail(self, error: PlanasonixError, now: datetime, pause: timedelta = timedelta(0)) -> Verdict:
        """Record an error and return what it means; ``pause`` is the time until the next request, if it is known."""
        self.verdict = self._judge(error, now, pause)
        return self.verdict

    def _judge(self, error: PlanasonixError, now: datetime, pause: timedelta) -> Verdict:
        self.since = self.since or now
        if isinstance(error, PlanasonixResponseError) and error.has_envelope:
            self.record_contact(Contact.API)
        if not is_unreachable(error):
            self._unreachable_since = None
        elif not self._has_contact:
            self.is_short = True
            self._unreachable_since = self._unreachable_since or now
            is_over = now + pause - self._unreachable_since >= self.policy.first_contact
            return Verdict.NO_CONTACT if is_over else Verdict.TOLERATED
        limit = self.policy.outage if self._passes(error) else self.policy.limit(error, self.contact)
        self.is_short = limit < self.policy.outage
        if not self.is_short:
            self._refused_since = None
            return Verdict.OUTAGE if now - self.since >= limit else Verdict.TOLERATED
        self._refused_since = self._refused_since or now
        if now - self._refused_since >= limit:
            return Verdict.REFUSED
        return Verdict.OUTAGE if now - self.since >= self.policy.outage + limit else Verdict.TOLERATED

    def is_news(self, now: datetime) -> bool:
        """Return whether to log the outage now, and assume that it is logged."""
        if self._logged_at and now - self._logged_at < LOG_OUTAGE_EVERY:
            return False
        self._logged_at = now
        return True


def pause_after(response: object, interval: float) -> float:
    """Return the seconds until the next request: the interval, or a longer ``Retry-After``, which is capped."""
    return max(interval, min(getattr(response, "retry_after", None) or 0.0, MAX_RETRY_AFTER_SECONDS))


def outage_retry_options(
    outage: OutageTracker,
    *,
    warn: Callable[[PlanasonixError], object],
    pause: Callable[[PlanasonixError], float] = lambda error: pause_after(error, RETRY_INTERVAL_SECONDS),
    now: Callable[[], datetime] = utcnow,
) -> dict[str, Any]:
    """Return options of tenacity's ``Retrying`` and ``AsyncRetrying`` that retry a call as long as an outage allows.

    The first error that is not tolerated is raised unchanged; ``outage.verdict`` is the reason. ``pause`` returns the
    seconds between an error and the next call. ``warn`` gets the error, at most once a minute.
    """

    def is_tolerated(error: BaseException) -> bool:
        if not isinstance(error, PlanasonixError):
            return False
        return outage.fail(error, now(), timedelta(seconds=pause(error))) is Verdict.TOLERATED

    def log(state: RetryCallState) -> None:
        if outage.is_news(now()):
            warn(_error_of(state))

    return {
        "retry": retry_if_exception(is_tolerated),
        "wait": lambda state: pause(_error_of(state)),
        "before_sleep": log,
        "reraise": True,
    }


def _error_of(state: RetryCallState) -> PlanasonixError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, PlanasonixError)  # noqa: S101 - nothing else is retried
    return error
