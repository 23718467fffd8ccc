from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.triggers import deferral
from planasonix_provider.waiting import shared_client


@pytest.fixture(autouse=True)
def _no_time_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long to wait between two tries is tested where it is decided; here it would only be slept away."""
    monkeypatch.setattr(shared_client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No supervisor looks after these tasks."""
    monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(0))


@pytest.fixture(params=[{}, {"mode": "reschedule"}, {"deferrable": True}], ids=["poke", "reschedule", "deferred"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the sensor waits."""
    return dict(request.param)
