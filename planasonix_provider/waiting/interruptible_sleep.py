"""Sleeps that end with their task, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from planasonix_provider import clock

#: In seconds: how long a kill may go unnoticed.
MAX_SLICE = 0.5


class TaskKilledError(Exception):
    """The task was killed. No kind of ``PlanasonixError``, for what deals with those is not to deal with this."""


class InterruptibleSleep:
    """Sleeps in pieces: a sleep goes on after a signal's handler, and Airflow's returns.

    :param raise_if_killed: raises what ends the task if it was killed.
    :param beat: takes note, at each piece, that the process moves.
    """

    def __init__(self, raise_if_killed: Callable[[], None], beat: Callable[[], None] = lambda: None) -> None:
        self._stop_if_killed = raise_if_killed
        self._beat = beat

    def sleep(self, seconds: float) -> None:
        """Sleep, blocking.

        :param seconds: for how long.
        """
        wake = clock.monotonic() + seconds
        while (left := wake - clock.monotonic()) > 0:
            self._beat()
            self._stop_if_killed()
            clock.sleep(min(left, MAX_SLICE))
        self._stop_if_killed()

    async def sleep_aside(self, seconds: float) -> None:
        """Sleep, and let others run.

        :param seconds: for how long.
        """
        wake = clock.monotonic() + seconds
        while (left := wake - clock.monotonic()) > 0:
            self._beat()
            self._stop_if_killed()
            await asyncio.sleep(min(left, MAX_SLICE))
        self._stop_if_killed()
