from __future__ import annotations

from functools import partial

import pytest

from planasonix_provider.api import client
from planasonix_provider.api.retry import Policy


@pytest.fixture(autouse=True)
def _no_time_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long to wait between two tries is tested where it is decided; here it would only be slept away."""
    monkeypatch.setattr(client, "Policy", partial(Policy, draw=lambda low, high: 0.0))
