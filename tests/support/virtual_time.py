"""An event loop whose clock jumps to the next timer, so that hours of waiting pass at once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from planasonix_provider.testing.time_travel import TravelledClock

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine like ``asyncio.run``; only for what waits for timers and not for the network."""
    return TravelledClock().run(main)
