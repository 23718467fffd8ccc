from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.triggers import deferral
from planasonix_provider.waiting import shared_client


@pytest.fixture(autouse=True)
def _no_pause_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without pauses; the pauses are tested in ``tests/api``."""
    monkeypatch.setattr(shared_client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _no_settle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No supervisor runs these tasks, so deferrals need no settle time."""
    monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(0))
