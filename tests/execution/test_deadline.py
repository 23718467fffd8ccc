"""The cancel at the deadline, also if its process dies: the work ends, and the next try starts new work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred

from planasonix_provider import clock
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.errors import PlanasonixTimeoutError
from planasonix_provider.execution import start_task
from planasonix_provider.execution.start_task import StartTask
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.waiting import cancellation
from tests.conftest import API_KEY
from tests.support.attempts import check_only_work
from tests.support.scenarios import CONNECTION, ENDED, Killed, backfill, cut, routes_asked, started, sync
from tests.support.task_runs import Run, context, deserialize_trigger, drive, first_event, record
from tests.support.time_travel import BEGAN, TravelledClock, simulated_time

MINUTE = 60.0
Make = Callable[..., BaseOperator]
POINTS = ("before the cancel is sent", "before its answer", "after its answer")


@pytest.fixture(autouse=True)
def travel(simulator: Simulator) -> Iterator[TravelledClock]:
    with simulated_time() as travel:
        take(simulator, 300 * MINUTE)
        yield travel


def take(simulator: Simulator, seconds: float) -> None:
    """Plan how long all work takes; a cancel takes half a minute."""
    how: dict[str, Any] = {"times": None, "queued_seconds": 0, "cancelling_seconds": 30}
    simulator.plan(CONNECTION, **how, running_seconds=seconds)
    simulator.plan_backfill(CONNECTION, **how, jobs=3, parallel=3, job_seconds=seconds)


@pytest.fixture(params=[sync, backfill], ids=["sync", "backfill"])
def make(request: pytest.FixtureRequest) -> Make:
    return lambda **more: request.param(**{"poll_interval": MINUTE, "timeout": 10 * MINUTE, **more})


def cut_awaited(patch: pytest.MonkeyPatch, owner: Any, name: str, *, route: str = "", is_done: bool) -> None:
    """End the process before or after the first awaited call whose first argument contains the route."""
    whole = getattr(owner, name)

    async def method(self: Any, *arguments: Any) -> Any:
        is_meant = route in str(arguments[0])
        result = await whole(self, *arguments) if is_done or not is_meant else None
        if is_meant:
            raise Killed
        return result

    patch.setattr(owner, name, method)


def die_on_worker(make: Make, point: str, notes: dict[str, Any]) -> None:
    operator = make(deferrable=False)
    record(operator, (run := Run(notes=notes)).log)
    with pytest.MonkeyPatch.context() as patch:
        if point == "before its answer":
            cut_awaited(patch, AsyncClient, "_send_once", route="/cancel", is_done=True)
        elif point == "before the cancel is sent":
            cut(patch, start_task, "cancel", is_done=False)
        else:
            cut(patch, StartTask, "_cancel_at_deadline", is_done=point == "after its answer")
        with pytest.raises(Killed):
            operator.execute(context(run))


def die_in_triggerer(trigger: Any, point: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if point == "before its answer":
            cut_awaited(patch, AsyncClient, "_send_once", route="/cancel", is_done=True)
        else:
            cut_awaited(patch, PlanasonixWaitTrigger, "_cancel_at_deadline", is_done=point == "after its answer")
        with pytest.raises(Killed):
            asyncio.run(first_event(trigger))


def check_new_start(make: Make, simulator: Simulator, notes: dict[str, Any], try_number: int) -> None:
    """Check that a try starts work of its own, after the previous work is over."""
    take(simulator, MINUTE)
    run = drive(make, notes, try_number=try_number)
    assert run.error is None
    old, new = started(simulator)
    assert new.id in (run.result.get("job_id"), run.result.get("backfill_id"))
    assert old.status == "cancelled"
    assert max(job.finished_at for job in jobs_of(simulator, old)) <= new.created_at


def jobs_of(simulator: Simulator, work: Any) -> list[Any]:
    return [simulator.job(job_id) for job_id in work.job_ids] if hasattr(work, "job_ids") else [work]


@pytest.mark.slow("ends a try at each point of a cancel")
class TestOnAWorker:
    @pytest.mark.parametrize("point", POINTS)
    def test_the_work_ends_and_the_next_try_starts_new_work(self, make: Make, simulator: Simulator, point: str) -> None:
        notes: dict[str, Any] = {}
        die_on_worker(make, point, notes)
        assert ("cancel_job" in routes_asked(simulator)) == (point != "before the cancel is sent")
        check_new_start(make, simulator, notes, try_number=2)

    def test_work_that_has_finished_is_taken_over(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 12 * MINUTE)
        notes: dict[str, Any] = {}
        die_on_worker(make, "before the cancel is sent", notes)
        clock.sleep(5 * MINUTE)
        run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)

    def test_continues_if_cancel_on_kill_is_false_by_then(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 12 * MINUTE)
        notes: dict[str, Any] = {}
        die_on_worker(make, "before the cancel is sent", notes)
        run = drive(lambda: make(cancel_on_kill=False), notes, try_number=2)
        check_only_work(run, simulator)

    def test_the_next_try_continues_to_its_own_deadline_if_the_timeout_was_not_recorded(
        self, make: Make, simulator: Simulator
    ) -> None:
        notes: dict[str, Any] = {}
        die_on_worker(make, "before it is recorded", notes)
        assert "cancel_job" not in routes_asked(simulator)
        second = drive(make, notes, try_number=2)
        (one,) = started(simulator)
        assert "still runs: this try goes on with it" in second.said
        assert isinstance(second.error, PlanasonixTimeoutError)
        assert one.status in ENDED
        check_new_start(make, simulator, notes, try_number=3)


@pytest.mark.slow("ends a try at each point of a cancel")
class TestInTheTriggerer:
    @pytest.mark.parametrize("point", POINTS)
    def test_the_restarted_trigger_cancels(self, make: Make, simulator: Simulator, point: str) -> None:
        notes: dict[str, Any] = {}
        operator = make(deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(Run(notes=notes)))
        trigger = deserialize_trigger(deferred.value.trigger)
        die_in_triggerer(trigger, point)
        assert ("cancel_job" in routes_asked(simulator)) == (point != "before the cancel is sent")
        event = asyncio.run(first_event(deserialize_trigger(trigger)))
        with pytest.raises(PlanasonixTimeoutError, match=r"It was (asked to cancel|cancelled)\."):
            make(deferrable=True).execute_complete(context(Run(notes=notes)), event)
        (one,) = started(simulator)
        assert one.status in ENDED
        check_new_start(lambda: make(deferrable=True), simulator, notes, try_number=2)


@pytest.mark.slow("waits for sockets in real time")
class TestAPollThatHangs:
    """Runs in real time, because sockets use it."""

    @pytest.fixture(autouse=True)
    def travel(self, simulator: Simulator) -> None:
        take(simulator, 300 * MINUTE)

    def test_does_not_delay_the_cancel(self, make: Make, simulator: Simulator) -> None:
        for route in ("get_job", "get_backfill"):
            simulator.fail("hang", route=route, seconds=25)
        run = drive(lambda: make(deferrable=False, timeout=2, poll_interval=0.5))
        assert isinstance(run.error, PlanasonixTimeoutError)
        (one,) = started(simulator)
        (job,) = jobs_of(simulator, one)[:1]
        assert (job.cancel_requested_at - one.created_at).total_seconds() < 20


class TestTheLastPoll:
    """The last poll of work that is not cancelled at the deadline."""

    def test_is_repeated_after_a_transient_error(
        self,
        make: Make,
        simulator: Simulator,
        travel: TravelledClock,
        deferrable: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        take(simulator, 8 * MINUTE)
        fails: list[Any] = []
        pass_time = travel.sleep

        def sleep(seconds: float) -> None:
            pass_time(seconds)
            if travel.passed > 9 * MINUTE and not fails:
                fails.extend(simulator.fail("status", status=503, route=route) for route in ("get_job", "get_backfill"))

        monkeypatch.setattr(travel, "sleep", sleep)
        run = drive(lambda: make(deferrable=deferrable, cancel_on_kill=False, poll_interval=7 * MINUTE))
        assert run.error is None
        assert fails


@pytest.mark.slow("waits for sockets in real time")
class TestARetryAfter:
    @pytest.mark.parametrize("seconds", [MINUTE, 15 * MINUTE])
    def test_does_not_delay_the_cancel(
        self,
        make: Make,
        simulator: Simulator,
        travel: TravelledClock,
        deferrable: bool,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
    ) -> None:
        asked: list[Any] = []
        pass_time = travel.sleep
        silence = {"Retry-After": str(int(seconds))}

        def sleep(passing: float) -> None:
            pass_time(passing)
            if travel.passed > 9 * MINUTE and not asked:
                asked.extend(
                    simulator.fail("status", status=429, headers=silence, route=route)
                    for route in ("get_job", "get_backfill")
                )

        monkeypatch.setattr(travel, "sleep", sleep)
        run = drive(lambda: make(deferrable=deferrable, poll_interval=9.5 * MINUTE))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "answered 429" in run.said
        (one,) = started(simulator)
        assert one.status in ENDED
        (job,) = jobs_of(simulator, one)[:1]
        assert (job.cancel_requested_at - BEGAN).total_seconds() == pytest.approx(10 * MINUTE, abs=5)


@pytest.mark.slow("waits for sockets in real time")
class TestAnExhaustedRateLimit:
    def test_does_not_delay_the_search_for_a_lost_start(
        self, make: Make, simulator: Simulator, deferrable: bool
    ) -> None:
        httpx.post(f"{simulator.url}/_simulator/settings", json={"rate_limit": 100})
        for _ in range(85):
            # Other processes use the key, too.
            httpx.get(f"{simulator.url}/api/v1/jobs", headers={"Authorization": f"Bearer {API_KEY}"})
        for route in ("trigger_sync", "trigger_backfill"):
            simulator.fail("reset", route=route, when="after")
        run = drive(lambda: make(deferrable=deferrable, timeout=20))
        assert isinstance(run.error, PlanasonixTimeoutError)
        (one,) = started(simulator)
        (job,) = jobs_of(simulator, one)[:1]
        assert (job.cancel_requested_at - BEGAN).total_seconds() == pytest.approx(20, abs=5)


def test_the_next_try_cancels_a_backfill_that_creates_its_jobs_late(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, travel: TravelledClock
) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_POLL_INTERVAL_SECONDS", 30.0)
    how: dict[str, Any] = {"jobs": 3, "parallel": 1, "job_seconds": 300 * MINUTE}
    simulator.plan_backfill(CONNECTION, **how, queued_seconds=30 * MINUTE)
    simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=MINUTE)
    notes: dict[str, Any] = {}
    first = drive(lambda: backfill(poll_interval=MINUTE, timeout=MINUTE), notes)
    assert isinstance(first.error, PlanasonixTimeoutError)
    second = drive(lambda: backfill(poll_interval=MINUTE), notes, try_number=2)
    assert second.error is None
    old, new = started(simulator)
    assert (old.status, second.result["backfill_id"]) == ("cancelled", new.id)
    assert travel.passed < 60 * MINUTE
