"""Simulated time, which passes only during sleeps, so that hours take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from planasonix_provider.testing.travelled_clock import TravelledClock

__all__ = ["BEGAN", "TravelledClock", "simulated_time", "steps_while_asleep"]

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


@contextmanager
def simulated_time(began: datetime = BEGAN) -> Iterator[TravelledClock]:
    """Start a clock at a given time that advances only during sleeps."""
    # Imported here, because it imports Airflow.
    from planasonix_provider.testing.time_travel import travel_time

    with travel_time(began) as travelled:
        yield travelled


@contextmanager
def steps_while_asleep(
    travel: TravelledClock, *steps: tuple[Callable[[], bool], Callable[[], object]]
) -> Iterator[None]:
    """Run steps in order, each at the end of the first sleep after which its condition is true. All must run."""
    left, pass_time = list(steps), travel.sleep

    def sleep(seconds: float) -> None:
        pass_time(seconds)
        if left and left[0][0]():
            left.pop(0)[1]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "sleep", sleep)
        yield
    assert left == [], "some steps did not run"
