"""The rate limit: so many requests per key in each minute of the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock

from planasonix_provider.simulator.model.clock_and_ids import Clock

#: How long a window is, in seconds.
WINDOW = 60


@dataclass(frozen=True)
class RateLimitStatus:
    """What a key may still ask for.

    :param limit: how many requests a window allows.
    :param used: how many came in this window, with this one.
    :param reset_at: when the window ends, in Unix seconds.
    :param retry_after: in how many whole seconds that is.
    """

    limit: int
    used: int
    reset_at: int
    retry_after: int

    @property
    def is_exceeded(self) -> bool:
        """Whether this request is one too many."""
        return self.used > self.limit

    @property
    def headers(self) -> dict[str, str]:
        """The allowance as an answer tells it."""
        told = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "X-RateLimit-Reset": str(self.reset_at),
        }
        return told | {"Retry-After": str(self.retry_after)} if self.is_exceeded else told


class PerKeyRateLimit:
    """Counts the requests of each key. Every method may be called from any thread.

    :param clock: tells the time.
    :param per_minute: how many requests a key has in each window.
    :raises ValueError: if ``per_minute`` is no positive number.
    """

    def __init__(self, clock: Clock, per_minute: int = 1200) -> None:
        self._clock = clock
        self._lock = Lock()
        self._used: dict[str, tuple[int, int]] = {}
        self.per_minute = self._first_per_minute = _positive(per_minute)

    def configure(self, per_minute: int) -> None:
        """Change the limit, for the running window too.

        :param per_minute: how many requests a key has in each window.
        :raises ValueError: if it is no positive number.
        """
        self.per_minute = _positive(per_minute)

    def reset(self) -> None:
        """Start with nothing used, and the first limit."""
        with self._lock:
            self._used.clear()
            self.per_minute = self._first_per_minute

    def consume(self, key: str) -> RateLimitStatus:
        """Count a request.

        :param key: whose request it is.
        :return: what the key may still ask for.
        """
        now = self._clock().timestamp()
        window = int(now // WINDOW)
        with self._lock:
            last_window, used = self._used.get(key, (window, 0))
            used = used + 1 if last_window == window else 1
            self._used[key] = (window, used)
        reset_at = (window + 1) * WINDOW
        return RateLimitStatus(self.per_minute, used, reset_at, max(1, math.ceil(reset_at - now)))


def _positive(per_minute: int) -> int:
    if per_minute < 1:
        raise ValueError(f"per_minute: got {per_minute!r}, allowed is a number from 1.")
    return per_minute
