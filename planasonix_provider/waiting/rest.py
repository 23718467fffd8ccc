"""Sleeps that end with their task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: In seconds: how long a kill may go unnoticed.
LONGEST_NAP = 0.5


class Rest:
    """Sleeps in pieces: a sleep goes on after a signal's handler, and Airflow's returns.

    :param stop_if_killed: raises what ends the task if it was killed.
    """

    def __init__(self, stop_if_killed: Callable[[], None]) -> None:
        self._stop_if_killed = stop_if_killed

    def sleep(self, seconds: float) -> None:
        """Sleep, blocking.

        :param seconds: for how long.
        """
        wake = time.monotonic() + seconds
        while (left := wake - time.monotonic()) > 0:
            self._stop_if_killed()
            time.sleep(min(left, LONGEST_NAP))
        self._stop_if_killed()

    async def sleep_aside(self, seconds: float) -> None:
        """Sleep, and let others run.

        :param seconds: for how long.
        """
        wake = time.monotonic() + seconds
        while (left := wake - time.monotonic()) > 0:
            self._stop_if_killed()
            await asyncio.sleep(min(left, LONGEST_NAP))
        self._stop_if_killed()
