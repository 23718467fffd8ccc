"""What is known of a key's rate limit: the one place that knows it, for all who use the key in this process."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from threading import Lock

from pydantic import SecretStr

from planasonix_provider.api.headers import WINDOW_SECONDS, RateLimit, clock_skew, rate_limit, retry_after
from planasonix_provider.clock import monotonic

log = logging.getLogger(__name__)

#: For how many seconds the API can silence whoever uses a key at one go, whatever its ``Retry-After`` says.
MAX_RETRY_AFTER = 900.0
#: For how many seconds a request that can wait lets others go first.
MAX_DELAY = 60.0
#: While more than this part of the limit is left, requests are not spread, however many processes use the key.
UNTHROTTLED_FRACTION = 0.5
#: The part of the limit that is left to what cannot wait: starts, cancels, and processes that know nothing yet.
RESERVED_FRACTION = 0.1
#: How much the traffic that was seen before weighs against what has come since.
DECAY = 0.6


class RateLimiter:
    """Spreads the requests of a key over what its rate limit still allows. May be used from any thread.

    Other processes use the same key, and all that one sees of them is how fast the remaining requests dwindle: where
    forty go for each one of its own, it takes a fortieth of what remains.

    :param clock: tells the seconds that have passed; only its differences count.
    :param draw: draws a number from the range of its two arguments.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._uniform = uniform
        self._lock = Lock()
        self._blocked_until = self._last_turn = self._logged_at = -math.inf
        self._limit: RateLimit | None = None
        self._seen_at = self._reset_at = -math.inf
        # Weighed sums: what was asked by this process and by all, and in how many seconds.
        self._own = self._all = self._span = 0.0
        self._own_since = 0
        self._lag = uniform(0.0, 1.0)
        #: By how much the server's clock is ahead, as its newest answer has it; ``None`` before one has told.
        self.skew: timedelta | None = None

    def update(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer.

        :param status: its HTTP status.
        :param headers: its headers, looked up by lower-case name.
        """
        with self._lock:
            now = self._clock()
            self._last_turn = max(self._last_turn, now)
            if status == 429:
                silence = min(retry_after(headers) or 0.0, MAX_RETRY_AFTER)
                self._blocked_until = max(self._blocked_until, now + silence)
            if (told := clock_skew(headers)) is not None:
                self.skew = told
            if seen := rate_limit(headers):
                self._learn(seen, now)

    def retry_after_remaining(self) -> float:
        """Say for how long nothing is to be asked.

        :return: the seconds that are left of what a ``Retry-After`` asked for.
        """
        return max(0.0, self._blocked_until - self._clock())

    def delay(self) -> float:
        """Say how long a request that can wait had better wait.

        :return: the seconds until its turn, at most :data:`MAX_DELAY`; none while much of the limit is left.
        """
        with self._lock:
            now = self._clock()
            rest = min(max(0.0, self._next_turn(now) - now), MAX_DELAY)
            if rest >= 1 and now - self._logged_at >= WINDOW_SECONDS:
                self._logged_at = now
                self._log(now)
            return rest

    def acquire(self, max_seconds: float = MAX_DELAY) -> Iterator[float]:
        """Wait for a turn, and take it.

        :param at_most: for how many seconds to wait, where that is less than :data:`MAX_DELAY`.
        :return: the seconds to sleep, again and again while others are faster, and so many in all.
        """
        left = min(max_seconds, MAX_DELAY)
        while left > 0 and (rest := self.delay()):
            yield min(rest, left)
            left -= rest
        self._last_turn = self._clock()

    def _next_turn(self, now: float) -> float:
        known = self._limit
        if known is None:
            return now
        if now < self._reset_at:
            # Others have gone on since.
            others = max(0.0, self._all - self._own) / max(1.0, self._span)
            remaining, left = known.remaining - others * (now - self._seen_at), self._reset_at - now
        else:
            remaining, left = float(known.limit), WINDOW_SECONDS
        if remaining > UNTHROTTLED_FRACTION * known.limit:
            return now
        crowd = max(1.0, self._all / self._own)
        if (usable := remaining - RESERVED_FRACTION * known.limit) > 0:
            return self._last_turn + min(left * crowd / usable, MAX_DELAY)
        # Everybody comes again after the same moment, and so not all at once.
        return self._reset_at + self._lag * min(
            WINDOW_SECONDS * crowd / ((1 - RESERVED_FRACTION) * known.limit), MAX_DELAY
        )

    def _learn(self, seen: RateLimit, now: float) -> None:
        before = self._limit
        self._own_since += 1
        if before is None:
            # All that is known is how much all have asked for in this window.
            self._own, self._all = 1.0, float(seen.limit - seen.remaining)
            self._span = WINDOW_SECONDS - seen.seconds
        elif now >= self._reset_at or seen.limit != before.limit or _is_full_again(before, seen):
            # A new window: of what was asked in it, this process has asked one.
            self._lag = self._uniform(0.0, 1.0)
            self._add_traffic(1, seen.limit - seen.remaining, WINDOW_SECONDS - seen.seconds)
        elif (dwindled := before.remaining - seen.remaining) > 0:
            self._add_traffic(self._own_since, dwindled, now - self._seen_at)
        else:
            # Answers come in another order than their requests were counted in.
            return
        self._limit, self._seen_at, self._reset_at, self._own_since = seen, now, now + seen.seconds, 0

    def _add_traffic(self, own: int, by_all: int, seconds: float) -> None:
        """Take in what was asked since; what was seen before counts less by that."""
        self._own = self._own * DECAY + own
        self._all = self._all * DECAY + by_all
        self._span = self._span * DECAY + max(0.0, seconds)

    def _log(self, now: float) -> None:
        assert self._limit is not None  # noqa: S101 - else nobody would have to wait
        log.info(
            "The API key has %d of %d requests left for the next %.0f s. Requests that can wait are spread over that "
            "time.",
            self._limit.remaining,
            self._limit.limit,
            max(0.0, self._reset_at - now),
        )


def _is_full_again(before: RateLimit, seen: RateLimit) -> bool:
    return seen.remaining - before.remaining > RESERVED_FRACTION * seen.limit


_rate_limiters: dict[tuple[str, SecretStr], RateLimiter] = {}


def rate_limiter_for(base_url: str, api_key: SecretStr) -> RateLimiter:
    """Give the pace of a key.

    :param base_url: where the API is.
    :param api_key: the key.
    :return: the one that all who use this key in this process share.
    """
    # Atomic, so that two threads that begin together get the same.
    return _rate_limiters.setdefault((base_url, api_key), RateLimiter())
