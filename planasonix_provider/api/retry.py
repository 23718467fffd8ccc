"""Decides which errors of a request are retried, how often, and after how long.

:data:`IS_RETRYABLE` and :class:`RetryPolicy` are the whole policy; tenacity runs it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tenacity import RetryCallState, retry_if_exception

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixRateLimitError,
    PlanasonixResponseError,
    PlanasonixServerError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
    PlanasonixValidationError,
)
from planasonix_provider.api.request import Idempotency
from planasonix_provider.clock import monotonic

log = logging.getLogger(__name__)

#: The 5xx that are permanent. All others are transient: the reference has 500 to 504, and CDNs have their own codes.
_PERMANENT_STATUSES = frozenset({501, 505, 510, 511})
#: The 4xx that are transient, also if a proxy sends them: Request Timeout and Too Early.
_TRANSIENT_STATUSES = frozenset({408, 425})


def is_transient(error: BaseException) -> bool:
    """Return whether the same read may succeed later: after an outage, an overload, or a garbled response."""
    if isinstance(error, PlanasonixServerError):
        return error.status not in _PERMANENT_STATUSES
    if isinstance(error, PlanasonixResponseError) and error.status in _TRANSIENT_STATUSES:
        return True
    return isinstance(error, (PlanasonixTransportError, PlanasonixRateLimitError, PlanasonixUnreadableError))


def is_permanent(error: BaseException) -> bool:
    """Return whether no retry can help: the request is invalid, forbidden, or its target does not exist."""
    return isinstance(error, (PlanasonixNotFoundError, PlanasonixPermissionError, PlanasonixValidationError))


def had_no_effect(error: BaseException) -> bool:
    """Return whether a request that failed with this error certainly had no effect.

    True for a connection that was never made, a 429, and a 503 with ``Retry-After``, which the API sends before it
    reads a request. A bare 503 may come from a proxy that lost the API's response.
    """
    if isinstance(error, PlanasonixTransportError):
        return not error.sent
    if isinstance(error, PlanasonixServerError):
        return error.status == 503 and error.retry_after is not None
    return isinstance(error, PlanasonixRateLimitError)


#: Which errors are retried, by the idempotency of the request.
RETRYABLE_ERRORS: dict[Idempotency, Callable[[BaseException], bool]] = {
    Idempotency.SAFE: is_transient,
    Idempotency.NOT_IDEMPOTENT: had_no_effect,
}


def has_unknown_effect(error: BaseException) -> bool:
    """Return whether a start that failed with this error may have started work."""
    return is_transient(error) and not had_no_effect(error)


class LogThrottle:
    """Limits log lines about an outage to one per ``every`` seconds."""

    def __init__(self, every: float = 60.0, *, is_muted: bool = False) -> None:
        self._every = every
        self._logged_at = -math.inf
        #: Whether a loop around the requests logs the outage instead.
        self.is_muted = is_muted

    def is_due(self, now: float) -> bool:
        """Return whether to log now, by a clock that counts seconds, and assume that it is logged."""
        if self.is_muted or now - self._logged_at < self._every:
            return False
        self._logged_at = now
        return True


@dataclass(frozen=True)
class RetryPolicy:
    """Limits the tries of one call in number and time.

    :param max_tries: the number of tries, including the first one.
    :param max_seconds: no try starts after this many seconds. A ``Retry-After`` that ends later ends the call at once.
    :param until: a time of ``clock`` after which no try starts, and at which a running read is given up.
    :param first_wait: the upper bound of the first wait, in seconds. The bound doubles with each try. The wait is a
        random time up to the bound, so that callers which failed together do not come back together.
    :param max_wait: the largest bound, in seconds.
    :param respects_rate_limit: whether a request that can wait is delayed if the rate limit runs short.
    :param ignores_retry_after: whether to send the request even during a ``Retry-After``.
    :param throttle: limits the log lines of all requests that share it; by default, each request has its own.
    :param clock: returns seconds; only differences count.
    :param uniform: returns a random number between its two arguments.
    """

    max_tries: int = 8
    max_seconds: float = 120.0
    until: float | None = None
    first_wait: float = 0.5
    max_wait: float = 20.0
    respects_rate_limit: bool = True
    ignores_retry_after: bool = False
    throttle: LogThrottle | None = field(default=None, compare=False, repr=False)
    clock: Callable[[], float] = monotonic
    uniform: Callable[[float, float], float] = random.uniform

    @property
    def read_seconds_left(self) -> float:
        """The seconds that a read may take if it starts now: until ``until``, or without a limit if that has passed."""
        left = math.inf if self.until is None else self.until - self.clock()
        return left if left > 0 else math.inf

    def tenacity_options(
        self, idempotency: Idempotency, on_retry: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """Return the keyword arguments for tenacity's ``Retrying`` and ``AsyncRetrying``.

        :param on_retry: called before each retry.
        """
        give_up = min(self.clock() + self.max_seconds, math.inf if self.until is None else self.until)
        throttle = self.throttle or LogThrottle()

        def wait(state: RetryCallState) -> float:
            bound = min(self.max_wait, self.first_wait * 2 ** (state.attempt_number - 1))
            # The jitter comes on top of a Retry-After, because all rejected callers got the same one.
            return (getattr(_error(state), "retry_after", None) or 0.0) + self.uniform(0.0, bound)

        def stop(state: RetryCallState) -> bool:
            return state.attempt_number >= self.max_tries or self.clock() + state.upcoming_sleep >= give_up

        def give_up_with_error(state: RetryCallState) -> NoReturn:
            error = _error(state)
            assert error is not None  # noqa: S101 - nothing else is retried
            if state.attempt_number > 1:
                error.set_message(f"{error.message} (Tried {state.attempt_number} times.)")
            raise error

        def log_retry(state: RetryCallState) -> None:
            # An outage of an hour means hundreds of tries.
            level = logging.INFO if throttle.is_due(self.clock()) else logging.DEBUG
            log.log(level, "%s Trying again in %.1f s.", _error(state), state.upcoming_sleep)
            on_retry()

        return {
            "retry": retry_if_exception(RETRYABLE_ERRORS[idempotency]),
            "wait": wait,
            "stop": stop,
            "before_sleep": log_retry,
            "retry_error_callback": give_up_with_error,
        }


#: One try, for callers that repeat it themselves, as a wait does at its next poll, and that ask the rate limiter.
NO_RETRY = RetryPolicy(max_tries=1, respects_rate_limit=False)
#: For the last poll of a wait at its deadline: retried, but not delayed by the rate limiter.
FINAL_POLL = RetryPolicy(respects_rate_limit=False)
#: For a process that is being killed. The last try ends within the five seconds that Airflow grants, because each try
#: takes at most 2.5 seconds (see ``ClientConfig.with_short_timeouts``). It is muted, because the signal may have
#: interrupted a log line, whose handler holds a lock.
ON_KILL = RetryPolicy(
    max_tries=6,
    max_seconds=2.5,
    first_wait=0.2,
    max_wait=0.5,
    respects_rate_limit=False,
    ignores_retry_after=True,
    throttle=LogThrottle(is_muted=True),
)


def _error(state: RetryCallState) -> PlanasonixError | None:
    """Return the error of a failed try, if it is one of this package's."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, PlanasonixError) else None
