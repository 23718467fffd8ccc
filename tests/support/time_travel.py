"""Hours that pass at once, from one moment on, and only while somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from planasonix_provider.testing.travelled_clock import TravelledClock

__all__ = ["BEGAN", "TravelledClock", "steps_while_asleep", "travelling"]

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


@contextmanager
def travelling(monkeypatch: pytest.MonkeyPatch, began: datetime = BEGAN) -> Iterator[TravelledClock]:
    """Let time pass only while somebody sleeps, from a moment on.

    :param monkeypatch: what the test has put in the place of others until here stays.
    """
    # It imports Airflow.
    from planasonix_provider.testing.time_travel import travel_time

    with travel_time(began) as travelled:
        yield travelled


@contextmanager
def steps_while_asleep(
    travel: TravelledClock, *steps: tuple[Callable[[], bool], Callable[[], object]]
) -> Iterator[None]:
    """Take steps one after the other, each when its condition is true at the end of a sleep. All must happen."""
    left, pass_time = list(steps), travel.sleep

    def sleep(seconds: float) -> None:
        pass_time(seconds)
        if left and left[0][0]():
            left.pop(0)[1]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "sleep", sleep)
        yield
    assert left == [], "all steps have happened"
