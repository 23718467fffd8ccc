"""Which outcomes of a request are tried again, how often, and after how long.

The whole policy stands in :data:`REPEATED` and :class:`Policy`; tenacity does the counting.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tenacity import RetryCallState

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

#: The 5xx that say "never". All others pass: the reference has 500 to 504, and a CDN before it has codes of its own.
_NEVER = frozenset({501, 505, 510, 511})
#: The 4xx that ask for a retry, also if a proxy sends them: Request Timeout and Too Early.
_TRY_AGAIN = frozenset({408, 425})


def is_transient(error: BaseException) -> bool:
    """Say whether an error is one that passes: an outage, an overload, an answer garbled on its way.

    :param error: what a request ended with.
    :return: whether the same read, sent again later, may well succeed.
    """
    if isinstance(error, PlanasonixServerError):
        return error.status not in _NEVER
    if isinstance(error, PlanasonixResponseError) and error.status in _TRY_AGAIN:
        return True
    return isinstance(error, (PlanasonixTransportError, PlanasonixRateLimitError, PlanasonixUnreadableError))


def is_permanent(error: BaseException) -> bool:
    """Say whether an error is one that no repeat can mend, however late.

    :param error: what a request ended with.
    :return: whether what was asked is wrong, may not be asked, or does not exist.
    """
    return isinstance(error, (PlanasonixNotFoundError, PlanasonixPermissionError, PlanasonixValidationError))


def had_no_effect(error: BaseException) -> bool:
    """Say whether the request that ended so has surely had no effect.

    :param error: what a request ended with.
    :return: ``True`` for a connection that was never made, a 429, and a 503 with ``Retry-After``, which is a refusal
        at the door; a bare 503 may come from a proxy that lost the API's answer.
    """
    if isinstance(error, PlanasonixTransportError):
        return not error.sent
    if isinstance(error, PlanasonixServerError):
        return error.status == 503 and error.retry_after is not None
    return isinstance(error, PlanasonixRateLimitError)


#: What is tried again, by what repeating the request does. The one table that decides it.
IS_RETRYABLE: dict[Idempotency, Callable[[BaseException], bool]] = {
    Idempotency.SAFE: is_transient,
    Idempotency.NOT_IDEMPOTENT: had_no_effect,
}


def has_unknown_effect(error: BaseException) -> bool:
    """Say whether a start that ended so may have started something all the same.

    :param error: what the start ended with.
    :return: whether nobody can know, from this error alone, if there is a job now.
    """
    return is_transient(error) and not had_no_effect(error)


class LogThrottle:
    """Lets a line about an outage pass at most once a minute.

    :param every: the seconds between two lines.
    """

    def __init__(self, every: float = 60.0) -> None:
        self._every = every
        self._logged_at = -math.inf
        #: Whether a loop around the requests logs the outage instead.
        self.is_muted = False

    def is_due(self, now: float) -> bool:
        """Return whether to log now, by a clock that counts seconds, and assume that it is logged."""
        if self.is_muted or now - self._logged_at < self._every:
            return False
        self._logged_at = now
        return True


@dataclass(frozen=True)
class RetryPolicy:
    """How long one call goes on trying: bounded in tries and in time.

    :param tries: how often a request is sent at the most, the first time included; default 8.
    :param seconds: after how many seconds no further try begins; default 120. A ``Retry-After`` that reaches beyond
        ends the call at once.
    :param until: when no further try begins either, by ``clock``, and when a read is waited for no longer that has
        begun before; ``None``, the default, for no such moment.
    :param first_wait: the upper bound of the first wait, in seconds; default 0.5. It doubles with each try. The wait
        itself is drawn evenly from zero to the bound, so that callers which failed together do not return together.
    :param longest_wait: where the bound stops growing, in seconds; default 20.
    :param takes_turns: whether a request that can wait lets others go first where the rate limit runs short; default
        yes.
    :param is_urgent: whether to ask though the API has asked this key to be silent; default not.
    :param throttle: limits the log lines of all requests that share it; ``None``, the default, limits each request by
        itself.
    :param clock: tells the seconds that have passed; only its differences count.
    :param draw: draws a number from the range of its two arguments.
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
        """For how many seconds a read may be waited for that begins now; one that begins after ``until`` is wanted."""
        left = math.inf if self.until is None else self.until - self.clock()
        return left if left > 0 else math.inf

    def tenacity_options(self, repeat: Idempotency) -> dict[str, Any]:
        """Put the policy into tenacity's words, for ``Retrying`` and ``AsyncRetrying`` alike.

        :param repeat: what repeating the request does.
        :return: the keyword arguments.
        """
        give_up = min(self.clock() + self.max_seconds, math.inf if self.until is None else self.until)
        repeated, throttle = IS_RETRYABLE[repeat], self.throttle or LogThrottle()

        def retry(state: RetryCallState) -> bool:
            error = _error(state)
            return error is not None and repeated(error)

        def wait(state: RetryCallState) -> float:
            bound = min(self.max_wait, self.first_wait * 2 ** (state.attempt_number - 1))
            # The bound's jitter comes on top of a Retry-After: whoever was refused was told the same moment.
            return (getattr(_error(state), "retry_after", None) or 0.0) + self.uniform(0.0, bound)

        def stop(state: RetryCallState) -> bool:
            return state.attempt_number >= self.max_tries or self.clock() + state.upcoming_sleep >= give_up

        def give_up_with_error(state: RetryCallState) -> NoReturn:
            error = _error(state)
            assert error is not None  # noqa: S101 - nothing else is tried again
            if state.attempt_number > 1:
                error.with_message(f"{error.message} (Tried {state.attempt_number} times.)")
            raise error

        def tell(state: RetryCallState) -> None:
            # An outage of an hour is hundreds of tries.
            level = logging.INFO if throttle.is_due(self.clock()) else logging.DEBUG
            log.log(level, "%s Trying again in %.1f s.", _error(state), state.upcoming_sleep)

        return {
            "retry": retry,
            "wait": wait,
            "stop": stop,
            "before_sleep": tell,
            "retry_error_callback": give_up_with_error,
        }


#: One try: for callers that come again by themselves, as a wait does at its next look, and take their turns themselves.
NO_RETRY = RetryPolicy(max_tries=1, respects_rate_limit=False)
#: For the last look of a wait whose time is up: again where that can help, and nobody goes first.
FINAL_POLL = RetryPolicy(respects_rate_limit=False)
#: For a process that is being killed: few tries, close together, so that the last one ends (each within two and a half
#: seconds, see ``Account.with_short_timeouts``) before the five seconds that Airflow gives are over.
ON_KILL = RetryPolicy(
    max_tries=6, max_seconds=2.5, first_wait=0.2, max_wait=0.5, respects_rate_limit=False, ignores_retry_after=True
)


def _error(state: RetryCallState) -> PlanasonixError | None:
    """Take the error out of a try that failed with one of ours."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, PlanasonixError) else None
