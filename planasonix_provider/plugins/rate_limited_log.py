"""Logs what anybody in the world can make happen, so that nobody can fill a disk with it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

#: How many seconds there are at least between two lines of one kind.
PAUSE = 60.0


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

    def __init__(self, log: logging.Logger, *, pause: float = PAUSE) -> None:
        self._log = log
        self._pause = pause
        self._kept: dict[str, _Suppressed] = {}

    def say(self, kind: str, level: int, text: str) -> None:
        """Log something, or count it.

        :param kind: what tells lines apart: there are only so many of them, whatever comes from outside.
        :param level: the level, as :data:`logging.WARNING`.
        :param text: the line; never a part of a request.
        """
        if kept := self._kept.get(kind):
            kept.level, kept.text, kept.count = level, text, kept.count + 1
            return
        self._log.log(level, "%s", text)
        self._hush(kind)

    def _hush(self, kind: str) -> None:
        self._kept[kind] = _Suppressed()
        asyncio.get_running_loop().call_later(self._pause, self._sum_up, kind)

    def _sum_up(self, kind: str) -> None:
        kept = self._kept.pop(kind)
        if kept.count:
            self._log.log(kept.level, "%d more such lines in %d s, the last: %s", kept.count, self._pause, kept.text)
            self._hush(kind)
