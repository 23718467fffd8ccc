"""Time that passes only while somebody sleeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


class Clock:
    """Tells the time, and lets it pass."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def passed(self) -> float:
        return (self.now - BEGAN).total_seconds()
