"""Spreads the requests of an API key over its rate limit: one limiter per key and process."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from threading import Lock

from pydantic import SecretStr

from planasonix_provider.api.headers import WINDOW_SECONDS, RateLimit, clock_skew, rate_limit, retry_after
from planasonix_provider.clock import monotonic

log = logging.getLogger(__name__)

#: A longer ``Retry-After`` is cut to this.
MAX_RETRY_AFTER_SECONDS = 900.0
#: The longest delay of a request that can wait.
MAX_DELAY_SECONDS = 60.0
#: Requests are not delayed while more than this fraction of the limit is left.
UNTHROTTLED_FRACTION = 0.5
#: This fraction is reserved for what cannot wait: starts, cancels, and processes that do not know the limit yet.
RESERVED_FRACTION = 0.1
#: The weight of older traffic against the traffic since.
DECAY = 0.6


class RateLimiter:
    """Spreads the requests of a key over what its rate limit still allows. Thread-safe.

    Other processes may use the same key. The only sign of them is how fast the remaining requests decrease: if forty
    disappear for each request of this process, it takes a fortieth of what remains.
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
        # Weighted sums: the requests of this process and of all, and their time span in seconds.
        self._own = self._all = self._span = 0.0
        self._own_since = 0
        self._lag = uniform(0.0, 1.0)
        #: By how much the server's clock is ahead, from its newest response; ``None`` before the first one.
        self.skew: timedelta | None = None

    def update(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from the status and the headers of a response; header names are in lower case."""
        with self._lock:
            now = self._clock()
            self._last_turn = max(self._last_turn, now)
            if status == 429:
                self._blocked_until = max(
                    self._blocked_until, now + min(retry_after(headers) or 0.0, MAX_RETRY_AFTER_SECONDS)
                )
            if (current := clock_skew(headers)) is not None:
                self.skew = current
            if seen := rate_limit(headers):
                self._learn(seen, now)

    def retry_after_remaining(self) -> float:
        """Return the seconds that are left of the last ``Retry-After``."""
        return max(0.0, self._blocked_until - self._clock())

    def current(self) -> RateLimit | None:
        """Return what is left of the limit; ``None`` if it is unknown, or if its window is over."""
        with self._lock:
            seconds = self._reset_at - self._clock()
            return replace(self._limit, seconds=seconds) if self._limit and seconds > 0 else None

    def delay(self) -> float:
        """Return the seconds that a request which can wait should wait; 0 while much of the limit is left."""
        with self._lock:
            now = self._clock()
            delay = min(max(0.0, self._next_turn(now) - now), MAX_DELAY_SECONDS)
            if delay >= 1 and now - self._logged_at >= WINDOW_SECONDS:
                self._logged_at = now
                self._log(now)
            return delay

    def acquire(self, max_seconds: float = MAX_DELAY_SECONDS) -> Iterator[float]:
        """Yield the seconds to sleep until it is this request's turn, several times if other requests come first.

        They add up to at most ``max_seconds`` and :data:`MAX_DELAY_SECONDS`. Exhausting the iterator takes the turn.
        """
        left = min(max_seconds, MAX_DELAY_SECONDS)
        while left > 0 and (delay := self.delay()):
            yield min(delay, left)
            left -= delay
        self._last_turn = self._clock()

    def _next_turn(self, now: float) -> float:
        known = self._limit
        if known is None:
            return now
        if now < self._reset_at:
            # Other processes have sent more requests since.
            others = max(0.0, self._all - self._own) / max(1.0, self._span)
            remaining, left = known.remaining - others * (now - self._seen_at), self._reset_at - now
        else:
            remaining, left = float(known.limit), WINDOW_SECONDS
        if remaining > UNTHROTTLED_FRACTION * known.limit:
            return now
        share_factor = max(1.0, self._all / self._own)
        if (usable := remaining - RESERVED_FRACTION * known.limit) > 0:
            return self._last_turn + min(left * share_factor / usable, MAX_DELAY_SECONDS)
        # All processes wait for the same moment, so each one adds its own random lag.
        return self._reset_at + self._lag * min(
            WINDOW_SECONDS * share_factor / ((1 - RESERVED_FRACTION) * known.limit), MAX_DELAY_SECONDS
        )

    def _learn(self, seen: RateLimit, now: float) -> None:
        before = self._limit
        self._own_since += 1
        if before is None:
            # Only the number of all requests in this window is known.
            self._own, self._all = 1.0, float(seen.limit - seen.remaining)
            self._span = WINDOW_SECONDS - seen.seconds
        elif now >= self._reset_at or seen.limit != before.limit or _is_full_again(before, seen):
            # In a new window, this process has sent one request.
            self._lag = self._uniform(0.0, 1.0)
            self._add_traffic(1, seen.limit - seen.remaining, WINDOW_SECONDS - seen.seconds)
        elif (dwindled := before.remaining - seen.remaining) > 0:
            self._add_traffic(self._own_since, dwindled, now - self._seen_at)
        else:
            # Responses arrive in a different order than the server counted their requests.
            return
        self._limit, self._seen_at, self._reset_at, self._own_since = seen, now, now + seen.seconds, 0

    def _add_traffic(self, own: int, by_all: int, seconds: float) -> None:
        """Add traffic to the weighted sums, so that older traffic counts less."""
        self._own = self._own * DECAY + own
        self._all = self._all * DECAY + by_all
        self._span = self._span * DECAY + max(0.0, seconds)

    def _log(self, now: float) -> None:
        assert self._limit is not None  # noqa: S101 - there is no delay without a limit
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
    """Return the limiter of a key, which all clients of this process share."""
    # Atomic, so that two threads get the same limiter.
    return _rate_limiters.setdefault((base_url, api_key), RateLimiter())
