from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from pytest_mock import MockerFixture

from planasonix_provider import metrics
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.errors import PlanasonixRateLimitError
from planasonix_provider.api.rate_limiter import MAX_DELAY_SECONDS, rate_limiter_for
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import base as triggers_base
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.triggers.deferral import DEFER_SETTLE_TIME
from planasonix_provider.triggers.planasonix import (
    PlanasonixBackfillTrigger,
    PlanasonixJobTrigger,
    PlanasonixSyncTrigger,
)
from planasonix_provider.waiting import outages
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.conftest import API_KEY
from tests.support.statsd import StatsdServer
from tests.support.task_runs import Log, Run, context, deserialize_trigger, first_event, record
from tests.support.time_travel import TravelledClock, simulated_time

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"


def start_job(connection_id: str = CONNECTION) -> str:
    with PlanasonixHook() as hook:
        return hook.trigger_sync(connection_id).id


def start_backfill() -> str:
    with PlanasonixHook() as hook:
        return hook.trigger_backfill(CONNECTION, start_at="2025-01-01", end_at="2025-03-01").id


def trigger(job_id: str, **arguments: Any) -> PlanasonixJobTrigger:
    return PlanasonixJobTrigger(
        job_id, **{"planasonix_conn_id": "planasonix_default", "poll_interval": 0.03, **arguments}
    )


def event_of(waiting: PlanasonixWaitTrigger, kind: str = "job") -> WaitEvent:
    """Run a trigger until it sends its event, and return the event."""
    return WaitEvent.from_payload(asyncio.run(first_event(waiting)), kind)


def owned_trigger(simulator: Simulator, **arguments: Any) -> PlanasonixJobTrigger:
    """Start a job of one minute, and return the trigger of the task that owns it."""
    simulator.plan(CONNECTION, running_seconds=60)
    return trigger(start_job(), cancel_on_kill=True, owned=True, **arguments)


OPTIONS = {
    "planasonix_conn_id": "eu",
    "poll_interval": 30,
    "deadline": "2025-03-27T00:00:00+00:00",
    "not_before": "2025-03-26T00:00:00+00:00",
    "status": "queued",
    "owned": True,
    "silent": True,
    "limit": "timeout",
}


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (PlanasonixJobTrigger, {"job_id": "job_1", "states": ["running"], "cancel_on_kill": True}),
        (PlanasonixBackfillTrigger, {"backfill_id": "bf_1", "states": [], "cancel_on_kill": False}),
        (
            PlanasonixSyncTrigger,
            {"connection_id": "c", "since": "2025-03-27T14:22:10+00:00", "by": "finished", "on_failure": "wait"},
        ),
        (
            PlanasonixWaitTrigger,
            {"target": {"kind": "job", "id": "job_1", "until": ["running"]}, "cancel_on_kill": True},
        ),
        (
            PlanasonixWaitTrigger,
            {
                "target": {
                    "kind": "sync",
                    "id": "c",
                    "since": "2025-03-27T14:22:10+00:00",
                    "by": "finished",
                    "on_failure": "wait",
                },
                "cancel_on_kill": False,
            },
        ),
    ],
)
def test_survives_being_stored(kind: type[PlanasonixWaitTrigger], arguments: dict[str, Any]) -> None:
    waiting = kind(**arguments, **OPTIONS)
    assert waiting.serialize() == (f"{kind.__module__}.{kind.__name__}", arguments | OPTIONS)
    assert json.loads(json.dumps(waiting.serialize()[1])) == waiting.serialize()[1]
    assert waiting.deadline == datetime(2025, 3, 27, tzinfo=UTC)


def test_public_triggers_have_the_target_of_the_generic_trigger() -> None:
    for waiting in (
        PlanasonixJobTrigger("job_1", states=["running"]),
        PlanasonixBackfillTrigger("bf_1"),
        PlanasonixSyncTrigger("c", "2025-03-27T14:22:10", by="finished"),
    ):
        target = PlanasonixWaitTrigger(waiting.target.serialize()).target
        assert (type(target), target.serialize()) == (type(waiting.target), waiting.target.serialize())


def test_a_sync_trigger_rejects_cancel_on_kill() -> None:
    with pytest.raises(ValueError, match="cancel_on_kill: a sync of connection c cannot be cancelled"):
        PlanasonixSyncTrigger("c", "2025-03-27", cancel_on_kill=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"job_id": ""}, "job_id: got ''"),
        ({"job_id": "job_1", "planasonix_conn_id": " "}, "planasonix_conn_id: got ' '"),
        ({"job_id": "job_1", "poll_interval": 0}, "poll_interval: got 0"),
        ({"job_id": "job_1", "deadline": "tomorrow"}, "deadline: got 'tomorrow', allowed is a time"),
        ({"job_id": "job_1", "deadline": 5}, "deadline: got 5"),
        ({"job_id": "job_1", "not_before": "soon"}, "not_before: got 'soon'"),
    ],
)
def test_rejects_invalid_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PlanasonixJobTrigger(**arguments)


def test_sends_the_finished_job(simulator: Simulator) -> None:
    job_id = start_job()
    event = event_of(trigger(job_id))
    assert event.outcome == "over"
    assert event.job.status == "succeeded"


def test_sends_one_event(simulator: Simulator) -> None:
    async def events() -> list[Any]:
        return [event async for event in trigger(start_job()).run()]

    assert len(asyncio.run(events())) == 1


def test_continues_in_another_triggerer(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
    first = trigger(start_job())

    async def killed() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first_event(first), 0.2)
        await first.cleanup()

    asyncio.run(killed())
    (job,) = simulator.jobs()
    assert job.status == "running", "a triggerer that stops cancels nothing"
    simulator.workspace.cancel(job.id)
    assert event_of(deserialize_trigger(first)).outcome == "over"


def test_delays_its_event_until_not_before(simulator: Simulator) -> None:
    not_before = datetime.now(UTC) + timedelta(seconds=0.5)
    event = asyncio.run(first_event(trigger(start_job(), not_before=not_before)))
    assert datetime.now(UTC) >= not_before
    assert WaitEvent.from_payload(event, "job").outcome == "over"


def test_delays_its_event_only_by_seconds_if_the_workers_clock_is_ahead(
    simulator: Simulator, travel: TravelledClock
) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
    an_hour_ahead = datetime.now(UTC) + timedelta(hours=1)
    event = travel.run(first_event(trigger(start_job(), poll_interval=10, not_before=an_hour_ahead)))
    assert WaitEvent.from_payload(event, "job").outcome == "over"
    assert travel.passed <= DEFER_SETTLE_TIME.total_seconds() + 0.1


def test_does_not_poll_while_its_event_is_delayed(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
    not_before = datetime.now(UTC) + timedelta(seconds=0.3)
    asyncio.run(first_event(trigger(start_job(), poll_interval=10, not_before=not_before)))
    polls = [request.at for request in simulator.requests if request.route == "get_job"]
    assert len(polls) == 1
    assert polls[0] >= not_before - timedelta(seconds=0.05)


def test_cancels_at_the_deadline_with_cancel_on_kill(simulator: Simulator) -> None:
    waiting = owned_trigger(simulator, deadline=datetime.now(UTC) + timedelta(seconds=0.2))
    event = asyncio.run(first_event(waiting))
    assert WaitEvent.from_payload(event, "job").is_out_of_time
    assert event["message"].endswith("It was asked to cancel.")
    assert simulator.jobs()[0].status in ("cancelling", "cancelled")


@pytest.mark.parametrize("cancelling_seconds", [0, 60])
def test_another_triggerer_neither_repeats_nor_counts_the_cancel(
    simulator: Simulator, statsd: StatsdServer, cancelling_seconds: float
) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60, cancelling_seconds=cancelling_seconds)
    late = trigger(start_job(), deadline=datetime.now(UTC), cancel_on_kill=True, owned=True)
    events = [event_of(deserialize_trigger(late)) for _ in range(2)]
    assert [event.is_out_of_time for event in events] == [True, True]
    assert [request.route for request in simulator.requests].count("cancel_job") == 1
    assert len(statsd.named(metrics.JOB_CANCELLED)) == 1


def test_polls_at_the_deadline_although_the_rate_limit_is_exhausted(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, running_seconds=0)
    job_id = start_job()
    headers = {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "0"}
    rate_limiter_for(simulator.url, SecretStr(simulator.api_key)).update(200, headers)
    deadline = datetime.now(UTC) + timedelta(seconds=0.3)
    began = time.monotonic()
    event = event_of(trigger(job_id, deadline=deadline, poll_interval=3600))
    assert event.outcome == "over"
    assert time.monotonic() - began < MAX_DELAY_SECONDS - 10, "it does not wait for the rate limiter"


def test_cancels_nothing_without_cancel_on_kill(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
    event = asyncio.run(first_event(trigger(start_job(), deadline=datetime.now(UTC) + timedelta(seconds=0.2))))
    assert WaitEvent.from_payload(event, "job").is_out_of_time
    assert simulator.jobs()[0].status == "running"


def test_reports_a_failed_cancel(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "RETRY_INTERVAL_SECONDS", 0.1)
    simulator.fail("status", status=403, route="cancel_job", times=None)
    waiting = owned_trigger(simulator, deadline=datetime.now(UTC) + timedelta(seconds=0.1))
    event = asyncio.run(first_event(waiting))
    assert "It could not be cancelled and may still run" in event["message"]
    assert "answered 403" in event["message"]


def test_reports_its_own_bug_in_its_event(simulator: Simulator, mocker: MockerFixture) -> None:
    # A mock, because no real fault causes an unexpected exception here.
    mocker.patch("planasonix_provider.triggers.base.WaitState", side_effect=ZeroDivisionError)
    waiting = trigger("job_1")
    record(waiting, Log())
    event = event_of(waiting)
    assert event.outcome == "error"
    assert "ZeroDivisionError" in str(event.message)


@pytest.mark.slow("simulates many waits")
def test_a_hundred_triggers_share_one_client_and_have_separate_logs(
    simulator: Simulator, mocker: MockerFixture
) -> None:
    connections = [f"conn_{number}" for number in range(100)]
    for connection_id in connections:
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, running_seconds=0.5)
    jobs = [start_job(connection_id) for connection_id in connections]
    clients = mocker.spy(AsyncClient, "__init__")
    logs = {job_id: Log() for job_id in jobs}

    async def wait_for_all() -> list[Any]:
        waiting = [trigger(job_id, poll_interval=0.3) for job_id in jobs]
        for one in waiting:
            record(one, logs[one.job_id])
        return await asyncio.gather(*(first_event(one) for one in waiting))

    events = asyncio.run(wait_for_all())
    assert {event["job"]["status"] for event in events} == {"succeeded"}
    assert clients.call_count == 1
    for job_id, log in logs.items():
        assert log.lines
        assert all(job_id in line for line in log.lines)


@pytest.mark.slow("simulates many waits")
def test_a_hundred_triggers_cost_one_page_per_poll(simulator: Simulator) -> None:
    connections = [f"conn_{number}" for number in range(100)]
    for connection_id in connections:
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, running_seconds=60, tables={"public.orders": 7})

    async def wait_for_all(jobs: list[str]) -> list[Any]:
        return await asyncio.gather(*(first_event(trigger(job_id, poll_interval=30)) for job_id in jobs))

    with simulated_time() as travel:
        jobs = [start_job(connection_id) for connection_id in connections]
        before = len(simulator.requests)
        events = travel.run(wait_for_all(jobs))
    assert {event["job"]["status"] for event in events} == {"succeeded"}
    # Pages of running jobs, one page of succeeded jobs at the end, and a few single jobs.
    assert len(simulator.requests) - before < 30
    operator = PlanasonixSyncOperator(task_id="load", connection_id=connections[0], deferrable=True)
    result = operator.execute_complete(context(Run()), events[0])
    assert result["finished_at"]
    assert result["duration_seconds"]
    assert result["metrics"]["rows_loaded"] == 7


def test_a_missing_connection_is_reported_in_the_event() -> None:
    event = event_of(trigger("job_1", planasonix_conn_id="nowhere"))
    assert event.error == "configuration"
    assert "There is no Airflow connection 'nowhere'" in str(event.message)


def test_contains_no_key(simulator: Simulator) -> None:
    waiting = trigger(start_job())
    event = asyncio.run(first_event(waiting))
    assert API_KEY not in json.dumps([waiting.serialize(), event, repr(waiting)])


class TestABackfill:
    def test_is_polled_like_a_job(self, simulator: Simulator) -> None:
        backfill_id = start_backfill()
        event = asyncio.run(first_event(PlanasonixBackfillTrigger(backfill_id, poll_interval=0.03)))
        read = WaitEvent.from_payload(event, "backfill")
        assert (read.work.id, read.work.status) == (backfill_id, "completed")
        assert {request.route for request in simulator.requests} == {"trigger_backfill", "get_backfill"}

    def test_of_thousands_of_jobs_is_polled_without_requests_for_its_jobs(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, jobs=5_000, parallel=5_000, queued_seconds=0, job_seconds=0.5)
        event = asyncio.run(first_event(PlanasonixBackfillTrigger(start_backfill(), poll_interval=0.1)))
        asked = [request.route for request in simulator.requests]
        assert asked.count("get_backfill") <= 8
        assert set(asked) == {"trigger_backfill", "get_backfill"}
        assert len(json.dumps(event)) < 1_000


class TestASync:
    def test_that_ends_while_no_triggerer_runs_is_not_missed(self, simulator: Simulator) -> None:
        since = datetime.now(UTC)
        first = PlanasonixSyncTrigger(CONNECTION, since, poll_interval=0.03)

        async def killed() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(first_event(first), 0.1)

        asyncio.run(killed())
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        job_id = start_job()
        event = event_of(deserialize_trigger(first), "sync")
        assert event.work.id == job_id


SUCCESS = "The task was marked success by hand"


class TestAKill:
    """Airflow calls ``on_kill`` in the triggerer, and cancels it each second until it returns."""

    @pytest.fixture
    def state(self, mocker: MockerFixture) -> Any:
        """Replace Airflow's answer, because there is no supervisor here."""
        return mocker.patch("planasonix_provider.triggers.base.kill_reason", return_value=SUCCESS)

    def test_cancels_the_job_of_a_task_that_owns_it(self, simulator: Simulator, state: Any) -> None:
        waiting = owned_trigger(simulator)
        record(waiting, log := Log())
        asyncio.run(waiting.on_kill())
        assert simulator.jobs()[0].status in ("cancelling", "cancelled")
        why = "The task was marked success by hand, so its job is cancelled."
        assert log.lines[0] == f"{why} Job {waiting.job_id} is being cancelled."
        assert log.lines[1].startswith(f"{why} Job {waiting.job_id} was asked to cancel: it is cancel")
        assert log.lines[1].endswith(" With cancel_on_kill=False, the job would run on.")

    def test_cancels_the_jobs_of_a_backfill_until_it_is_over(
        self, simulator: Simulator, state: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("planasonix_provider.waiting.cancellation.CANCEL_POLL_INTERVAL_SECONDS", 0.02)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=9, job_seconds=60, jobs_after_cancel=2)
        backfill_id = start_backfill()
        asyncio.run(PlanasonixBackfillTrigger(backfill_id, cancel_on_kill=True, owned=True).on_kill())
        assert simulator.backfill(backfill_id).status == "cancelled"

    def test_cancels_despite_retry_after(self, simulator: Simulator, state: Any) -> None:
        simulator.fail("status", route="get_job", status=429, headers={"Retry-After": "900"})
        waiting = owned_trigger(simulator)
        with PlanasonixHook() as hook, pytest.raises(PlanasonixRateLimitError):
            hook.get_job(waiting.job_id)
        asyncio.run(waiting.on_kill())
        assert simulator.jobs()[0].status in ("cancelling", "cancelled")

    def test_survives_being_cancelled_repeatedly(self, simulator: Simulator, state: Any) -> None:
        waiting = owned_trigger(simulator)
        simulator.fail("hang", route="cancel_job", seconds=0.5)

        async def main() -> None:
            task = asyncio.create_task(waiting.on_kill())
            while not task.done():
                await asyncio.sleep(0.05)
                task.cancel()
            await task

        asyncio.run(main())
        assert simulator.jobs()[0].status in ("cancelling", "cancelled")

    def test_cancels_nothing_of_a_task_that_still_waits(self, simulator: Simulator, state: Any) -> None:
        state.return_value = None
        asyncio.run(owned_trigger(simulator).on_kill())
        assert "cancel_job" not in {request.route for request in simulator.requests}

    def test_cancels_nothing_without_cancel_on_kill_either(self, simulator: Simulator, state: Any) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        asyncio.run(trigger(start_job()).on_kill())
        assert state.call_count == 0
        assert simulator.jobs()[0].cancel_requested_at is None

    def test_cancels_nothing_if_airflow_does_not_answer(self, simulator: Simulator, state: Any) -> None:
        state.side_effect = RuntimeError("no connection")
        waiting = owned_trigger(simulator)
        record(waiting, log := Log())
        asyncio.run(waiting.on_kill())
        assert "cancel_job" not in {request.route for request in simulator.requests}
        assert log.warnings == [
            "The task was killed, and Airflow cannot be asked why: RuntimeError('no connection'). Job "
            f"{waiting.job_id} was not cancelled and may still run. To end it: "
            f"`python -m planasonix_provider cancel {waiting.job_id} --conn-id planasonix_default`"
        ]

    def test_logs_a_failed_cancel(self, simulator: Simulator, state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outages, "RETRY_INTERVAL_SECONDS", 0.1)
        simulator.fail("status", status=403, route="cancel_job", times=None)
        waiting = owned_trigger(simulator)
        record(waiting, log := Log())
        asyncio.run(waiting.on_kill())
        assert "could not be cancelled and may still run" in log.lines[-1]


class TestACancelWithoutAReason:
    """Airflow before 3.3 cancels a trigger in the same way if it was killed, if it moves, and at a shutdown."""

    @pytest.fixture(autouse=True)
    def without_on_kill(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("planasonix_provider.triggers.base.HAS_ON_KILL", False)

    @pytest.fixture(params=[True, False], ids=["killed", "moved"])
    def is_killed(self, request: pytest.FixtureRequest, mocker: MockerFixture) -> bool:
        reason = "The task was cleared" if request.param else None
        mocker.patch("planasonix_provider.triggers.base.kill_reason", return_value=reason)
        return bool(request.param)

    @staticmethod
    async def until(has_come: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not has_come():  # noqa: ASYNC110 - another thread fulfils the condition
                await asyncio.sleep(0.01)

    @staticmethod
    def has_polled(simulator: Simulator) -> bool:
        return any(request.method == "GET" for request in simulator.requests)

    async def cancelled(self, waiting: PlanasonixJobTrigger, simulator: Simulator) -> None:
        """Cancel a wait after its first poll."""
        task = asyncio.create_task(first_event(waiting))
        await self.until(lambda: self.has_polled(simulator))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    def test_cancels_the_job_if_the_task_was_killed(self, simulator: Simulator, is_killed: bool) -> None:
        waiting = owned_trigger(simulator)
        record(waiting, log := Log())

        async def main() -> None:
            await self.cancelled(waiting, simulator)
            last = "was asked to cancel" if is_killed else "The task is still waiting, or waits again."
            await self.until(lambda: last in log.lines[-1])

        asyncio.run(main())
        assert (simulator.jobs()[0].cancel_requested_at is not None) == is_killed

    @pytest.mark.parametrize("is_killed", [True], indirect=True)
    def test_cancels_nothing_without_cancel_on_kill(self, simulator: Simulator, is_killed: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)

        async def main() -> None:
            await self.cancelled(trigger(start_job()), simulator)
            assert not triggers_base._CANCEL_TASKS
            # Its current poll ends a moment later.
            await self.until(lambda: len(asyncio.all_tasks()) == 1)

        asyncio.run(main())
        assert simulator.jobs()[0].cancel_requested_at is None

    @pytest.mark.parametrize("is_killed", [True], indirect=True)
    def test_cancels_nothing_at_the_shutdown_of_the_triggerer(self, simulator: Simulator, is_killed: bool) -> None:
        waits = [owned_trigger(simulator)]
        waits += [deserialize_trigger(waits[0]) for _ in range(5)]
        running: list[asyncio.Task[Any]] = []
        for wait in waits:
            record(wait, Log())

        async def main() -> None:
            running.extend(asyncio.create_task(first_event(wait)) for wait in waits)
            await self.until(lambda: self.has_polled(simulator))

        asyncio.run(main())
        assert all(task.cancelled() for task in running)
        assert not triggers_base._CANCEL_TASKS
        assert simulator.jobs()[0].cancel_requested_at is None
