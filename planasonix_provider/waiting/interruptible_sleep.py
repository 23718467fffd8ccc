"""Sleeping in slices, so that a kill of the task ends the sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from planasonix_provider import clock

#: How long a kill may stay unnoticed.
MAX_SLICE_SECONDS = 0.5


class TaskKilledError(Exception):
    """The task was killed. Not a ``PlanasonixError``, because handlers of those must not catch it."""


class InterruptibleSleep:
    """Sleeps in slices, because a sleep continues after a signal handler that returns, as Airflow's does.

    In each slice, ``raise_if_killed`` raises if the task was killed, and ``beat`` records that the process runs.
    """

    def __init__(self, raise_if_killed: Callable[[], None], beat: Callable[[], None] = lambda: None) -> None:
        self._raise_if_killed = raise_if_killed
        self._beat = beat

    def sleep(self, seconds: float) -> None:
        """Sleep and block."""
        for part in self._slices(seconds):
            clock.sleep(part)

    async def async_sleep(self, seconds: float) -> None:
        """Sleep in an event loop."""
        for part in self._slices(seconds):
            await asyncio.sleep(part)

    def _slices(self, seconds: float) -> Iterator[float]:
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > 0:
            self._beat()
            self._raise_if_killed()
            yield min(left, MAX_SLICE_SECONDS)
        self._raise_if_killed()
