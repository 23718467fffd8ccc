"""Logs what anybody in the world can make happen, so that nobody can fill a disk with it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

#: How many seconds there are at least between two lines of one kind.
INTERVAL_SECONDS = 60.0


@dataclass
class _Suppressed:
    level: int = 0
    text: str = ""
    count: int = 0


class RateLimitedLog:
    """Says the first of a kind at once, and counts the others for a while. To be used in one event loop.

    :param log: where the lines go.
    :param pause: how many seconds there are at least between two lines of one kind.
    """

    def __init__(self, log: logging.Logger, *, interval: float = INTERVAL_SECONDS) -> None:
        self._logger = log
        self._interval = interval
        self._suppressed: dict[str, _Suppressed] = {}

    def log(self, kind: str, level: int, text: str) -> None:
        """Log something, or count it.

        :param kind: what tells lines apart: there are only so many of them, whatever comes from outside.
        :param level: the level, as :data:`logging.WARNING`.
        :param text: the line; never a part of a request.
        """
        if kept := self._suppressed.get(kind):
            kept.level, kept.text, kept.count = level, text, kept.count + 1
            return
        self._logger.log(level, "%s", text)
        self._start_suppressing(kind)

    def _start_suppressing(self, kind: str) -> None:
        self._suppressed[kind] = _Suppressed()
        asyncio.get_running_loop().call_later(self._interval, self._log_summary, kind)

    def _log_summary(self, kind: str) -> None:
        kept = self._suppressed.pop(kind)
        if kept.count:
            self._logger.log(
                kept.level, "%d more such lines in %d s, the last: %s", kept.count, self._interval, kept.text
            )
            self._start_suppressing(kind)
