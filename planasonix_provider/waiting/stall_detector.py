"""Notices that a process has stood still for so long that Airflow may have given its task to another."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long Airflow may take to end a process that has stood still once it moves again: a heartbeat every five seconds
#: is what tells it to, and three that fail do as well.
KILL_GRACE = 60.0
#: Which part of the time that Airflow waits for a sign of life: the last one may have been long before the standstill.
STALL_FRACTION = 0.5


def _since_boot() -> float:
    # Where there is such a clock, it counts a machine's sleep as well.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class StallDetector:
    """Beats whenever its process does something; a signal's handler may ask it.

    :param heartbeat_timeout: for how many seconds Airflow waits for a sign of life.
    :param now: tells the seconds since a fixed moment, those of a machine's sleep among them.
    """

    def __init__(self, heartbeat_timeout: float, now: Callable[[], float] = _since_boot) -> None:
        self._longest = heartbeat_timeout * STALL_FRACTION
        self._now = now
        self._last = now()
        self._woke: float | None = None

    def beat(self) -> None:
        """Take note that the process moves."""
        now = self._now()
        if now - self._last > self._longest:
            self._woke = now
        self._last = now

    def seconds_in_doubt(self) -> float:
        """Say for how much longer it is in doubt whether the task is still this process's.

        :return: the seconds, or 0.0 if there is no doubt.
        """
        self.beat()
        return 0.0 if self._woke is None else max(0.0, self._woke + KILL_GRACE - self._now())
