"""An API key that is replaced or revoked while tasks wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred
from pytest_mock import MockerFixture

from planasonix_provider.api.errors import PlanasonixAuthenticationError
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.conftest import API_KEY
from tests.support.scenarios import CONNECTION, ENDED, backfill, killed, routes_asked, started, sync
from tests.support.task_runs import Run, context, deserialize_trigger, drive, first_event
from tests.support.time_travel import TravelledClock, travelling

MINUTE = 60.0
WAITS = 50
NEW_KEY = "plnx_test_rotated"


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> Iterator[TravelledClock]:
    how: dict[str, Any] = {"times": None, "queued_seconds": 0}
    simulator.plan_backfill(CONNECTION, **how, jobs=1, job_seconds=20 * MINUTE)
    for connection_id in (CONNECTION, *connections()):
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, **how, running_seconds=20 * MINUTE)
    with travelling(monkeypatch) as travel:
        yield travel


def connections() -> list[str]:
    return [f"conn_{number}" for number in range(WAITS)]


#: A condition, and what happens as soon as it is true.
Step = tuple[Callable[[], bool], Callable[[], None]]


def three_minutes(travel: TravelledClock) -> Callable[[], bool]:
    return lambda: travel.passed > 3 * MINUTE


def statuses(simulator: Simulator) -> list[int | None]:
    return [request.status for request in simulator.requests]


class Keys:
    """The key in Planasonix and in the Airflow connection."""

    def __init__(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self._planasonix = simulator
        self._monkeypatch = monkeypatch

    def revoke(self) -> None:
        self._planasonix.workspace.keys.revoke(API_KEY)

    def replace(self) -> None:
        self._planasonix.workspace.keys.add(NEW_KEY)
        connection = {**self._planasonix.airflow_connection(), "password": NEW_KEY}
        self._monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))


@pytest.fixture
def keys(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(simulator, monkeypatch)


class TestFiftyDeferredTasks:
    """They share a triggerer and a poller."""

    @staticmethod
    def wait(travel: TravelledClock, after_three_minutes: Callable[[], None]) -> list[tuple[WaitEvent, float]]:
        """Start and defer all; return each event, and how many seconds after the change it came."""
        triggers = []
        for number, connection_id in enumerate(connections()):
            task = context(Run(), map_index=number)
            with pytest.raises(TaskDeferred) as deferred:
                sync(connection_id=connection_id, deferrable=True, poll_interval=10).execute(task)
            triggers.append(deserialize_trigger(deferred.value.trigger))
        happened = travel.passed + 3 * MINUTE

        async def event(trigger: Any) -> tuple[WaitEvent, float]:
            payload = await first_event(trigger)
            return WaitEvent.from_payload(payload, "job"), travel.passed - happened

        async def main() -> list[tuple[WaitEvent, float]]:
            asyncio.get_running_loop().call_later(3 * MINUTE, after_three_minutes)
            return await asyncio.gather(*map(event, triggers))

        return travel.run(main())

    def test_survive_a_rotation_with_one_read_of_the_connection(
        self, simulator: Simulator, travel: TravelledClock, keys: Keys, mocker: MockerFixture
    ) -> None:
        reads = mocker.spy(PlanasonixHook, "async_settings")

        def rotate() -> None:
            assert reads.call_count == 1
            keys.replace()
            keys.revoke()

        events = self.wait(travel, rotate)
        assert [event.outcome for event, _ in events] == ["over"] * WAITS
        assert reads.call_count == 2
        assert set(statuses(simulator)) == {200, 202, 401}

    def test_fail_within_two_intervals_if_the_key_is_only_revoked(
        self, simulator: Simulator, travel: TravelledClock, keys: Keys
    ) -> None:
        events = self.wait(travel, keys.revoke)
        for event, after in events:
            assert after <= 2 * 10 + 1
            assert event.error == PlanasonixAuthenticationError.kind
            said = str(event.message)
            assert "answered 401" in said
            assert "which is its password, is missing, mistyped or revoked" in said
            assert "was not cancelled and may still run: a retry goes on with it" in said
            assert API_KEY not in said
        assert all(job.cancel_requested_at is None for job in simulator.jobs())


@pytest.mark.parametrize("make", [sync, backfill], ids=["sync", "backfill"])
class TestOneTask:
    @staticmethod
    def drive(
        make: Callable[..., BaseOperator], deferrable: bool, travel: TravelledClock, *steps: Step, **how: Any
    ) -> Run:
        """Run a task while the steps happen one after the other."""
        left = list(steps)
        pass_time = travel.sleep

        def sleep(seconds: float) -> None:
            pass_time(seconds)
            if left and left[0][0]():
                left.pop(0)[1]()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(travel, "sleep", sleep)
            run = drive(lambda: make(deferrable=deferrable, poll_interval=10), **how)
        assert left == [], "all steps have happened"
        return run

    def test_continues_its_work_in_the_next_try_with_a_valid_key(
        self, make: Any, simulator: Simulator, travel: TravelledClock, keys: Keys, deferrable: bool
    ) -> None:
        notes: dict[str, Any] = {}
        first = self.drive(make, deferrable, travel, (three_minutes(travel), keys.revoke), notes=notes)
        assert isinstance(first.error, PlanasonixAuthenticationError), "a key can be repaired, so Airflow retries"
        assert 3 * MINUTE < travel.passed <= 3 * MINUTE + 2 * 10 + 1
        assert "a retry goes on with it" in str(first.error)
        keys.replace()
        second = drive(lambda: make(deferrable=deferrable, poll_interval=10), notes, try_number=2)
        assert second.error is None
        (one,) = started(simulator)
        assert one.id in (second.result.get("job_id"), second.result.get("backfill_id"))
        assert "cancel_job" not in routes_asked(simulator)
        assert API_KEY not in first.said + second.said
        assert NEW_KEY not in first.said + second.said

    def test_survives_a_key_that_is_replaced_before_it_is_revoked(
        self, make: Any, simulator: Simulator, travel: TravelledClock, keys: Keys, deferrable: bool
    ) -> None:
        steps = ((three_minutes(travel), keys.replace), (lambda: True, keys.revoke))
        run = self.drive(make, deferrable, travel, *steps)
        assert run.error is None
        assert len(started(simulator)) == 1
        assert statuses(simulator).count(401) == 1

    def test_survives_a_key_that_is_replaced_just_after_it_was_revoked(
        self, make: Any, simulator: Simulator, travel: TravelledClock, keys: Keys, deferrable: bool
    ) -> None:
        steps = ((three_minutes(travel), keys.revoke), (lambda: 401 in statuses(simulator), keys.replace))
        run = self.drive(make, deferrable, travel, *steps)
        assert run.error is None
        assert len(started(simulator)) == 1


class TestATaskThatIsKilledBeforeItsNextPoll:
    """It still has the old key."""

    @pytest.fixture
    def late(self, simulator: Simulator, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> PlanasonixSyncOperator:
        monkeypatch.setattr("planasonix_provider.execution.on_kill.CANCEL_SECONDS_AFTER", 0.0)
        simulator.plan(CONNECTION, running_seconds=60)
        operator = sync(poll_interval=60)
        whole = operator.on_kill

        def on_kill() -> None:
            keys.revoke()
            whole()

        operator.on_kill = on_kill  # type: ignore[method-assign]
        return operator

    def test_reads_the_connection_again_and_cancels(
        self, simulator: Simulator, keys: Keys, late: PlanasonixSyncOperator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = OnKillHandler._read_key_again

        def replaced(self: OnKillHandler) -> None:
            keys.replace()
            whole(self)

        monkeypatch.setattr(OnKillHandler, "_read_key_again", replaced)
        _, log = killed(simulator, late, route="trigger_sync")
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_logs_what_may_still_run_if_there_is_no_other_key(
        self, simulator: Simulator, late: PlanasonixSyncOperator
    ) -> None:
        _, log = killed(simulator, late, route="trigger_sync")
        (job,) = simulator.jobs()
        assert job.cancel_requested_at is None
        assert f"The task was killed. Job {job.id} could not be cancelled and may still run: POST" in log.lines[-1]
        assert API_KEY not in " ".join(log.lines)
