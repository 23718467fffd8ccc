"""The clock of all waits, which tests replace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

R = TypeVar("R")


def utcnow() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds since a fixed time; only differences count."""
    return time.monotonic()


def loop_time() -> float:
    """Return the seconds of the running event loop's clock; only differences count."""
    return asyncio.get_running_loop().time()


def sleep(seconds: float) -> None:
    """Block for some seconds."""
    time.sleep(seconds)


def run(main: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine in its own event loop, whose timers follow this clock, and return its result."""
    return asyncio.run(main)
