"""The rate limit of each API key per minute of the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from planasonix_provider.simulator.model.clock_and_ids import Clock

WINDOW_SECONDS = 60


@dataclass(frozen=True)
class RateLimitStatus:
    """The requests of a key in the current window.

    ``reset_at`` is the end of the window in Unix seconds, ``retry_after`` the whole seconds until then.
    """

    limit: int
    used: int
    reset_at: int
    retry_after: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def reset_time(self) -> datetime:
        return datetime.fromtimestamp(self.reset_at, UTC)

    @property
    def is_exceeded(self) -> bool:
        return self.used > self.limit

    @property
    def headers(self) -> dict[str, str]:
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }
        return headers | {"Retry-After": str(self.retry_after)} if self.is_exceeded else headers


class PerKeyRateLimit:
    """Counts the requests of each key. Every method may be called from any thread."""

    def __init__(self, clock: Clock, per_minute: int = 1200) -> None:
        self._clock = clock
        self._lock = Lock()
        # By key: the window of its last request, and the requests in it.
        self._used: dict[str, tuple[int, int]] = {}
        self.per_minute = self._initial_limit = _positive(per_minute)

    def configure(self, per_minute: int) -> None:
        """Change the limit, also for the current window."""
        self.per_minute = _positive(per_minute)

    def reset(self) -> None:
        with self._lock:
            self._used.clear()
            self.per_minute = self._initial_limit

    def consume(self, key: str) -> RateLimitStatus:
        """Count a request, and return the state that includes it."""
        return self._status(key, 1)

    def status(self, key: str) -> RateLimitStatus:
        """Return the state without counting a request."""
        return self._status(key, 0)

    def _status(self, key: str, requests: int) -> RateLimitStatus:
        now = self._clock().timestamp()
        window = int(now // WINDOW_SECONDS)
        with self._lock:
            last_window, used = self._used.get(key, (window, 0))
            used = (used if last_window == window else 0) + requests
            self._used[key] = (window, used)
        reset_at = (window + 1) * WINDOW_SECONDS
        return RateLimitStatus(self.per_minute, used, reset_at, max(1, math.ceil(reset_at - now)))


def _positive(per_minute: int) -> int:
    if per_minute < 1:
        raise ValueError(f"per_minute: got {per_minute!r}, allowed is a number from 1.")
    return per_minute
