from __future__ import annotations

from collections.abc import Iterator

import pytest

from planasonix_provider.testing.travelled_clock import TravelledClock, travel_clock
from tests.support.time_travel import BEGAN


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Override the fixture of the package: time is simulated here, so a minute of refusals passes at once."""


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch) -> Iterator[TravelledClock]:
    """A clock that moves only during sleeps, without Airflow."""
    with travel_clock(BEGAN) as travel:
        yield travel
