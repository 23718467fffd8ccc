from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from planasonix_provider.api import client
from planasonix_provider.api.retry import Policy
from planasonix_provider.triggers import deferral
from planasonix_provider.waiting import cancel, channel


@pytest.fixture(autouse=True)
def _no_time_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long to wait between two tries is tested where it is decided; here it would only be slept away."""
    for module in (client, channel):
        monkeypatch.setattr(module, "Policy", partial(Policy, draw=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _a_quick_pursuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's jobs are quick, too."""
    monkeypatch.setattr(cancel, "PURSUE_EVERY", 0.05)


@pytest.fixture(autouse=True)
def _no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No supervisor looks after these tasks."""
    monkeypatch.setattr(deferral, "SETTLING", timedelta(0))


@pytest.fixture(params=[False, True], ids=["on a worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
