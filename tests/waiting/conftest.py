from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Let refusals persist for as long as they have to: a minute passes at once here."""
