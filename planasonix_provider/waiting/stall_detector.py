"""Detects that a process stood still for so long that Airflow may have given its task to another process."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long Airflow may take to end a process that runs again after a standstill. A heartbeat every five seconds
#: triggers that, and so do three failed ones.
KILL_GRACE_SECONDS = 60.0
#: The part of the heartbeat timeout that counts as a standstill: the last heartbeat may have been long before it.
STALL_FRACTION = 0.5


def _since_boot() -> float:
    # This clock also counts the time in which the machine sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class StallDetector:
    """Is called whenever the process does something. A signal handler may use it.

    ``heartbeat_timeout`` is Airflow's, in seconds. ``now`` returns seconds that include a machine's sleep.
    """

    def __init__(self, heartbeat_timeout: float, now: Callable[[], float] = _since_boot) -> None:
        self._longest = heartbeat_timeout * STALL_FRACTION
        self._now = now
        self._last = now()
        self._resumed_at: float | None = None

    def beat(self) -> None:
        """Record that the process runs."""
        now = self._now()
        if now - self._last > self._longest:
            self._resumed_at = now
        self._last = now

    def seconds_in_doubt(self) -> float:
        """Return the seconds in which another process may still take over the task; 0.0 if there is no doubt."""
        self.beat()
        return 0.0 if self._resumed_at is None else max(0.0, self._resumed_at + KILL_GRACE_SECONDS - self._now())
