from __future__ import annotations

import pytest

from tests.support.fake_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Let refusals persist for as long as they have to: a minute passes at once here."""
