from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from planasonix_provider.api import client
from planasonix_provider.api.client import ClientConfig
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.execution import api_session, on_kill
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import cancellation, outages, shared_client
from tests.support.attempts import Make, take
from tests.support.scenarios import backfill, sync


@pytest.fixture(autouse=True)
def _no_pauses_between_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat requests without a pause; the pauses are tested in ``tests/api``."""
    for module in (client, shared_client):
        monkeypatch.setattr(module, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _frequent_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often, because the simulator's jobs are short."""
    monkeypatch.setattr(cancellation, "CANCEL_POLL_INTERVAL_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def _lists_that_are_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for lost starts without long pauses; the pauses are tested in ``tests/waiting``."""
    monkeypatch.setattr(api_session, "SEARCH_DELAY_SECONDS", (0.01, 0.01))


@pytest.fixture(autouse=True)
def _no_airflow(without_airflow: None) -> None:
    """Run these tests without Airflow."""


@pytest.fixture(params=[sync, backfill], ids=["sync", "backfill"])
def make(request: pytest.FixtureRequest, simulator: Simulator) -> Make:
    take(simulator, 0.3)
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _enough_time_after_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a kill more time than Airflow does, because the machine may be slow."""
    monkeypatch.setattr(ClientConfig, "with_short_timeouts", lambda account: account)
    monkeypatch.setattr(on_kill, "MAX_OVERRUN_SECONDS", 60.0)
    monkeypatch.setattr(on_kill, "ON_KILL", replace(on_kill.ON_KILL, max_seconds=60.0))
    # Less than the pause before a failed cancel is repeated.
    monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", outages.RETRY_INTERVAL_SECONDS - 1)
