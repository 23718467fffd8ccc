from __future__ import annotations

from collections.abc import Iterator

import pytest

from planasonix_provider.testing.travelled_clock import TravelledClock, travel_clock
from tests.support.time_travel import BEGAN


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Let refusals persist for as long as they have to: a minute passes at once here."""


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch) -> Iterator[TravelledClock]:
    """Let time pass only while somebody sleeps, without Airflow."""
    with travel_clock(BEGAN) as travel:
        yield travel
