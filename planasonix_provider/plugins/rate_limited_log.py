"""A log for messages that anybody on the internet can cause: it must not fill a disk."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

#: The minimum number of seconds between two lines of one kind.
INTERVAL_SECONDS = 60.0


@dataclass
class _Suppressed:
    level: int = 0
    text: str = ""
    count: int = 0


class RateLimitedLog:
    """Logs the first line of a kind at once, and then one summary per interval. For one event loop."""

    def __init__(self, logger: logging.Logger, *, interval: float = INTERVAL_SECONDS) -> None:
        self._logger = logger
        self._interval = interval
        self._suppressed: dict[str, _Suppressed] = {}

    def log(self, kind: str, level: int, text: str) -> None:
        """Log a line, or count it.

        The number of kinds must be bounded, and the text must not contain a part of a request.
        """
        if suppressed := self._suppressed.get(kind):
            suppressed.level, suppressed.text, suppressed.count = level, text, suppressed.count + 1
            return
        self._logger.log(level, "%s", text)
        self._start_suppressing(kind)

    def _start_suppressing(self, kind: str) -> None:
        self._suppressed[kind] = _Suppressed()
        asyncio.get_running_loop().call_later(self._interval, self._log_summary, kind)

    def _log_summary(self, kind: str) -> None:
        suppressed = self._suppressed.pop(kind)
        if suppressed.count:
            self._logger.log(
                suppressed.level,
                "%d more such lines in %d s, the last: %s",
                suppressed.count,
                self._interval,
                suppressed.text,
            )
            self._start_suppressing(kind)
