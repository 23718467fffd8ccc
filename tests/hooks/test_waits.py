"""The hook's waits for jobs and backfills, blocking and awaited."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any, Literal

import pytest

from planasonix_provider import clock
from planasonix_provider.api.errors import (
    DETAILS,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixNotFoundError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
    PlanasonixTransportError,
)
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.simulator import Simulator
from planasonix_provider.testing.travelled_clock import TravelledClock
from tests.conftest import API_KEY

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})
Kind = Literal["job", "backfill"]

pytestmark = pytest.mark.usefixtures("simulator", "travel")


@pytest.fixture(params=["job", "backfill"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[True, False], ids=["blocking", "awaited"])
def blocking(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def start(simulator: Simulator, kind: Kind, seconds: float, *, fails: bool = False) -> str:
    """Start a job, or a backfill of one job, that takes the given number of seconds."""
    how: dict[str, Any] = {"queued_seconds": 0, "cancelling_seconds": 0}
    outcome: dict[str, Any] = {"outcome": "failed", "code": "source_unreachable"} if fails else {}
    simulator.plan(CONNECTION, running_seconds=seconds, **how, **outcome)
    simulator.plan_backfill(CONNECTION, jobs=1, job_seconds=seconds, failing_jobs=[0] if fails else [], **how)
    world = simulator.workspace
    return world.start_sync(CONNECTION).id if kind == "job" else world.start_backfill(CONNECTION, WINDOW).id


def wait(kind: Kind, work_id: str, *, blocking: bool, **how: Any) -> Any:
    how = {"poll_interval": 0.03} | how
    with PlanasonixHook() as hook:
        if blocking:
            return getattr(hook, f"wait_for_{kind}")(work_id, **how)
        return clock.run(getattr(hook.aio, f"wait_for_{kind}")(work_id, **how))


def test_returns_succeeded_work(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 0.2)
    work = wait(kind, work_id, blocking=blocking)
    assert (work.id, work.status) == (work_id, "succeeded" if kind == "job" else "completed")
    assert work.connection_id == CONNECTION
    if kind == "job":
        assert work.metrics.rows_loaded == 44_802


def test_returns_finished_work_at_once(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 0)
    # A second poll would come only after an hour.
    assert wait(kind, work_id, blocking=blocking, poll_interval=3600).id == work_id


def test_raises_the_error_of_failed_work(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 0.1, fails=True)
    with pytest.raises(PlanasonixJobFailedError) as raised:
        wait(kind, work_id, blocking=blocking)
    job_id = simulator.jobs()[0].id
    assert {name: getattr(raised.value, name) for name in DETAILS} == {
        "job_id": job_id,
        "backfill_id": work_id if kind == "backfill" else None,
        "job_url": f"{simulator.url}/jobs/{job_id}",
        "connection_id": CONNECTION,
        "code": "source_unreachable" if kind == "job" else "jobs_failed",
    }


def test_raises_an_error_for_cancelled_work(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 60)
    for job in simulator.jobs() or [simulator.workspace.job(simulator.backfills()[0].job_ids[0])]:  # type: ignore[index]
        simulator.workspace.cancel(job.id)
    with pytest.raises(PlanasonixJobCancelledError, match=f"{work_id} was cancelled before it was done"):
        wait(kind, work_id, blocking=blocking)


def test_raises_an_error_at_the_timeout_and_cancels_nothing(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 60)
    with pytest.raises(PlanasonixTimeoutError) as raised:
        wait(kind, work_id, blocking=blocking, timeout=timedelta(seconds=0.3))
    name = "Job" if kind == "job" else "Backfill"
    assert str(raised.value) == f"{name} {work_id} was not over within 0 s, the timeout. It was not cancelled."
    assert getattr(raised.value, f"{kind}_id") == work_id
    assert raised.value.connection_id == CONNECTION
    assert not any(job.cancel_requested_at for job in simulator.jobs())


def test_returns_work_that_ended_just_before_the_deadline(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 0.3)
    assert wait(kind, work_id, blocking=blocking, poll_interval=3600, timeout=0.8).id == work_id


def test_tolerates_one_404(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    work_id = start(simulator, kind, 0.2)
    simulator.fail("status", route=f"get_{kind}", status=404)
    assert wait(kind, work_id, blocking=blocking).id == work_id


def test_raises_an_error_if_the_work_does_not_exist(simulator: Simulator, kind: Kind, blocking: bool) -> None:
    with pytest.raises(PlanasonixNotFoundError) as raised:
        wait(kind, "unknown", blocking=blocking)
    assert getattr(raised.value, f"{kind}_id") == "unknown"
    assert "retry" not in str(raised.value)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"poll_interval": 0.1}, "poll_interval: got 0.1, allowed is"),
        ({"poll_interval": "soon"}, "poll_interval: got 'soon', allowed is"),
        ({"timeout": 0}, "timeout: got 0, allowed is"),
        ({"timeout": timedelta(0)}, "timeout: got "),
        ({"timeout": True}, "timeout: got True, allowed is"),
    ],
)
def test_rejects_invalid_arguments_before_any_request(
    simulator: Simulator, kind: Kind, blocking: bool, min_poll_seconds: float, how: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        wait(kind, "any", blocking=blocking, **{"poll_interval": 10} | how)
    assert simulator.requests == []


def test_concurrent_waits_share_their_requests(simulator: Simulator) -> None:
    simulator.workspace.configure(conflict="allowed")
    job_ids = [start(simulator, "job", 1) for _ in range(40)]

    async def wait_for_all() -> list[Any]:
        hook = PlanasonixHook()
        return await asyncio.gather(*(hook.aio.wait_for_job(job_id, poll_interval=0.5) for job_id in job_ids))

    jobs = clock.run(wait_for_all())
    assert [job.id for job in jobs] == job_ids
    assert all(job.metrics.rows_loaded == 44_802 for job in jobs)
    looks = [request for request in simulator.requests if request.route == "list_jobs"]
    assert looks


class TestAnOutage:
    @pytest.fixture
    def _a_short_refusal(self) -> None:
        """Override the fixture that shortens the tolerated time of refusals."""

    @pytest.fixture
    def unreachable(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = {"conn_type": "planasonix", "host": "http://127.0.0.1:9", "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))

    @staticmethod
    def wait(travel: TravelledClock, *, blocking: bool) -> Any:
        hook = PlanasonixHook()
        if blocking:
            return hook.wait_for_job("job_1")
        return travel.run(hook.aio.wait_for_job("job_1"))

    @pytest.mark.usefixtures("unreachable")
    def test_of_a_host_that_never_answered_ends_after_first_contact_patience(
        self, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch, blocking: bool
    ) -> None:
        monkeypatch.setenv("AIRFLOW__PLANASONIX__FIRST_CONTACT_PATIENCE", "30")
        with pytest.raises(PlanasonixTransportError, match="Nothing has ever answered there"):
            self.wait(travel, blocking=blocking)
        assert travel.passed <= 45

    @pytest.mark.parametrize("status", [403, 302])
    def test_tolerates_a_proxy_that_refuses_the_first_polls(
        self, simulator: Simulator, travel: TravelledClock, blocking: bool, status: int
    ) -> None:
        """The caller knows the id, so a refusal without the API's envelope is an outage, even as the first response."""
        job = simulator.workspace.start_sync(CONNECTION)
        simulator.fail("html", route="get_job", status=status, times=3)
        hook = PlanasonixHook()
        waited = hook.wait_for_job(job.id) if blocking else travel.run(hook.aio.wait_for_job(job.id))
        assert waited.status == "succeeded"
        assert travel.passed > 0

    def test_of_a_host_that_has_answered_ends_after_outage_patience(
        self, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch, blocking: bool
    ) -> None:
        monkeypatch.setenv("AIRFLOW__PLANASONIX__OUTAGE_PATIENCE", "600")
        PlanasonixHook().list_jobs()
        simulator.fail("status", route="get_job", status=503, times=None)
        with pytest.raises(PlanasonixOutageError, match="for more than 10 min 0 s"):
            self.wait(travel, blocking=blocking)
        assert 600 <= travel.passed < 800
