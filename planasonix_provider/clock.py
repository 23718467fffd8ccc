"""The clock that every wait here goes by: it tells the time, counts the seconds, and lets them pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

R = TypeVar("R")


def utcnow() -> datetime:
    """Tell the time.

    :return: now, in UTC.
    """
    return datetime.now(UTC)


def monotonic() -> float:
    """Count the seconds.

    :return: the seconds since a fixed moment; only differences count.
    """
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Let time pass, blocking.

    :param seconds: for how long.
    """
    time.sleep(seconds)


def run(main: Coroutine[Any, Any, R]) -> R:
    """Run what is awaited in an event loop of its own, whose timers go by this clock.

    :param main: what to run.
    :return: what came of it.
    """
    return asyncio.run(main)
