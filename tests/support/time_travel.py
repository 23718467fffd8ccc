"""Hours that pass at once, from one moment on, and only while somebody sleeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from planasonix_provider.testing import time_travel
from planasonix_provider.testing.time_travel import TravelledClock

__all__ = ["BEGAN", "TravelledClock", "travelling"]

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


@contextmanager
def travelling(monkeypatch: pytest.MonkeyPatch, began: datetime = BEGAN) -> Iterator[TravelledClock]:
    """Let time pass only while somebody sleeps, from a moment on.

    :param monkeypatch: what the test has put in the place of others until here stays.
    """
    with time_travel.travel_time(began) as travelled:
        yield travelled
