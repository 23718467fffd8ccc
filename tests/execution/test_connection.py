"""An Airflow connection that is missing for a while, and an API key that is replaced or revoked while tasks wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from pytest_mock import MockerFixture

from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixConfigurationError
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import outages
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.conftest import API_KEY
from tests.support.attempts import check_only_work
from tests.support.scenarios import CONNECTION, ENDED, backfill, killed, routes_asked, sync
from tests.support.task_runs import Run, context, deserialize_trigger, drive, first_event
from tests.support.time_travel import TravelledClock, simulated_time, steps_while_asleep

MINUTE = 60.0
NEW_KEY = "plnx_test_rotated"
NAME = "AIRFLOW_CONN_PLANASONIX_DEFAULT"
#: The Planasonix connections of tasks that share a triggerer and a poller.
CONNECTIONS = [f"conn_{number}" for number in range(40)]


@pytest.fixture
def travel(simulator: Simulator) -> Iterator[TravelledClock]:
    how: dict[str, Any] = {"times": None, "queued_seconds": 0}
    simulator.plan_backfill(CONNECTION, **how, jobs=1, job_seconds=20 * MINUTE)
    for connection_id in (CONNECTION, *CONNECTIONS):
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, **how, running_seconds=20 * MINUTE)
    with simulated_time() as travel:
        yield travel


@pytest.fixture
def _a_minute_of_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tolerate a missing connection for as long as users' tasks do; the minute passes at once here."""
    monkeypatch.setattr(outages, "MAX_REFUSAL", timedelta(minutes=1))


def three_minutes(travel: TravelledClock) -> Callable[[], bool]:
    return lambda: travel.passed > 3 * MINUTE


def statuses(simulator: Simulator) -> list[int | None]:
    return [request.status for request in simulator.requests]


class Connection:
    """The Airflow connection, and its key in Planasonix."""

    def __init__(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self._simulator = simulator
        self._monkeypatch = monkeypatch

    def revoke_key(self) -> None:
        self._simulator.workspace.keys.revoke(API_KEY)

    def replace_key(self) -> None:
        self._simulator.workspace.keys.add(NEW_KEY)
        self._monkeypatch.setenv(NAME, json.dumps({**self._simulator.airflow_connection(), "password": NEW_KEY}))

    def delete(self) -> None:
        """Delete the connection, and revoke its key, so that waiting tasks read the connection again."""
        self._monkeypatch.delenv(NAME)
        self.revoke_key()


@pytest.fixture
def connection(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Connection:
    return Connection(simulator, monkeypatch)


def defer_all() -> list[Any]:
    triggers = []
    for number, connection_id in enumerate(CONNECTIONS):
        task = context(Run(), map_index=number)
        with pytest.raises(TaskDeferred) as deferred:
            sync(connection_id=connection_id, deferrable=True, poll_interval=10).execute(task)
        triggers.append(deserialize_trigger(deferred.value.trigger))
    return triggers


def wait(travel: TravelledClock, triggers: list[Any], *steps: tuple[float, Callable[[], None]]) -> list[WaitEvent]:
    """Run the triggers, call each step after its number of seconds, and return the events."""

    async def main() -> list[Any]:
        for seconds, act in steps:
            asyncio.get_running_loop().call_later(seconds, act)
        return await asyncio.gather(*map(first_event, triggers))

    return [WaitEvent.from_payload(payload, "job") for payload in travel.run(main())]


@pytest.mark.slow("simulates many tasks for hours")
@pytest.mark.usefixtures("_a_minute_of_refusals")
class TestManyDeferredTasksWithoutTheirConnection:
    @pytest.mark.parametrize("missing", [3, 45])
    def test_survive_less_than_a_minute(self, travel: TravelledClock, connection: Connection, missing: float) -> None:
        steps = ((3 * MINUTE, connection.delete), (3 * MINUTE + missing, connection.replace_key))
        events = wait(travel, defer_all(), *steps)
        assert {event.outcome for event in events} == {"over"}

    def test_survive_a_restart_of_the_triggerer(self, travel: TravelledClock, connection: Connection) -> None:
        triggers = defer_all()
        connection.delete()
        events = wait(travel, triggers, (45, connection.replace_key))
        assert {event.outcome for event in events} == {"over"}

    def test_fail_after_more_than_a_minute_and_leave_their_jobs_to_a_retry(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection
    ) -> None:
        events = wait(travel, defer_all(), (3 * MINUTE, connection.delete))
        assert {event.error for event in events} == {PlanasonixConfigurationError.kind}
        assert travel.passed <= 3 * MINUTE + 2 * MINUTE
        assert all("There is no Airflow connection 'planasonix_default'" in str(event.message) for event in events)
        assert all("a retry goes on with it" in str(event.message) for event in events)
        assert "cancel_job" not in routes_asked(simulator)


@pytest.mark.slow("simulates many tasks for hours")
class TestManyDeferredTasksWhoseKeyIsRevoked:
    def test_survive_a_rotation_with_one_read_of_the_connection(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection, mocker: MockerFixture
    ) -> None:
        reads = mocker.spy(PlanasonixHook, "async_settings")

        def rotate() -> None:
            assert reads.call_count == 1
            connection.replace_key()
            connection.revoke_key()

        events = wait(travel, defer_all(), (3 * MINUTE, rotate))
        assert {event.outcome for event in events} == {"over"}
        assert reads.call_count == 2
        assert set(statuses(simulator)) == {200, 202, 401}

    def test_fail_within_two_intervals_without_another_key(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection
    ) -> None:
        triggers = defer_all()
        began = travel.passed
        events = wait(travel, triggers, (3 * MINUTE, connection.revoke_key))
        assert travel.passed - began <= 3 * MINUTE + 2 * 10 + 1
        assert {event.error for event in events} == {PlanasonixAuthenticationError.kind}
        for said in [str(event.message) for event in events]:
            assert "answered 401" in said
            assert "which is its password, is missing, mistyped or revoked" in said
            assert "was not cancelled and may still run: a retry goes on with it" in said
            assert API_KEY not in said
        assert all(job.cancel_requested_at is None for job in simulator.jobs())


@pytest.mark.usefixtures("_a_minute_of_refusals")
class TestATaskWithoutItsConnection:
    @pytest.mark.parametrize("make", [sync, backfill], ids=["sync", "backfill"])
    def test_survives_during_the_wait(
        self, make: Any, simulator: Simulator, travel: TravelledClock, connection: Connection, deferrable: bool
    ) -> None:
        back = 3 * MINUTE + 45
        steps = ((three_minutes(travel), connection.delete), (lambda: travel.passed >= back, connection.replace_key))
        with steps_while_asleep(travel, *steps):
            run = drive(lambda: make(poll_interval=10, deferrable=deferrable))
        check_only_work(run, simulator)

    @pytest.mark.parametrize("make", [sync, backfill], ids=["sync", "backfill"])
    def test_survives_when_it_resumes(
        self, make: Any, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = json.dumps(simulator.airflow_connection())
        steps = (
            (lambda: travel.passed >= 20 * MINUTE, lambda: monkeypatch.delenv(NAME)),
            (lambda: travel.passed >= 20 * MINUTE + 45, lambda: monkeypatch.setenv(NAME, connection)),
        )
        with steps_while_asleep(travel, *steps):
            run = drive(lambda: make(poll_interval=10, deferrable=True))
        assert run.error is None
        assert "the Airflow connection cannot be read yet, still trying: There is no Airflow connection" in run.said

    def test_survives_if_it_is_a_sensor_that_has_seen_its_job(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection, mode: dict[str, Any]
    ) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        back = 3 * MINUTE + 45
        steps = ((three_minutes(travel), connection.delete), (lambda: travel.passed >= back, connection.replace_key))
        with steps_while_asleep(travel, *steps):
            run = drive(lambda: PlanasonixJobSensor(task_id="wait", job_id=job.id, poke_interval=20, **mode))
        assert run.error is None

    def test_fails_at_once_if_it_starts(self, travel: TravelledClock, connection: Connection, deferrable: bool) -> None:
        connection.delete()
        run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, PlanasonixConfigurationError)
        assert travel.passed == 0


@pytest.mark.slow("simulates hours of polls")
@pytest.mark.parametrize("make", [sync, backfill], ids=["sync", "backfill"])
class TestATaskWhoseKeyIsRevoked:
    def test_continues_its_work_in_the_next_try_with_a_valid_key(
        self, make: Any, simulator: Simulator, travel: TravelledClock, connection: Connection, deferrable: bool
    ) -> None:
        notes: dict[str, Any] = {}
        with steps_while_asleep(travel, (three_minutes(travel), connection.revoke_key)):
            first = drive(lambda: make(deferrable=deferrable, poll_interval=10), notes)
        assert isinstance(first.error, PlanasonixAuthenticationError), "a key can be repaired, so Airflow retries"
        assert 3 * MINUTE < travel.passed <= 3 * MINUTE + 2 * 10 + 1
        assert "a retry goes on with it" in str(first.error)
        connection.replace_key()
        second = drive(lambda: make(deferrable=deferrable, poll_interval=10), notes, try_number=2)
        check_only_work(second, simulator)
        assert "cancel_job" not in routes_asked(simulator)
        assert API_KEY not in first.said + second.said
        assert NEW_KEY not in first.said + second.said

    @pytest.mark.parametrize("is_replaced_first", [True, False], ids=["replaced before", "replaced just after"])
    def test_survives_a_rotation(
        self,
        make: Any,
        simulator: Simulator,
        travel: TravelledClock,
        connection: Connection,
        deferrable: bool,
        is_replaced_first: bool,
    ) -> None:
        if is_replaced_first:
            steps = ((three_minutes(travel), connection.replace_key), (lambda: True, connection.revoke_key))
        else:
            is_refused = lambda: 401 in statuses(simulator)  # noqa: E731
            steps = ((three_minutes(travel), connection.revoke_key), (is_refused, connection.replace_key))
        with steps_while_asleep(travel, *steps):
            run = drive(lambda: make(deferrable=deferrable, poll_interval=10))
        check_only_work(run, simulator)
        if is_replaced_first:
            assert statuses(simulator).count(401) == 1


class TestATaskThatIsKilledBeforeItsNextPoll:
    """The task still has the old key."""

    @pytest.fixture
    def late(
        self, simulator: Simulator, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> PlanasonixSyncOperator:
        monkeypatch.setattr("planasonix_provider.execution.on_kill.CANCEL_SECONDS_AFTER", 0.0)
        simulator.plan(CONNECTION, running_seconds=60)
        operator = sync(poll_interval=60)
        whole = operator.on_kill

        def on_kill() -> None:
            connection.revoke_key()
            whole()

        operator.on_kill = on_kill  # type: ignore[method-assign]
        return operator

    def test_reads_the_connection_again_and_cancels(
        self,
        simulator: Simulator,
        connection: Connection,
        late: PlanasonixSyncOperator,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = OnKillHandler._read_key_again

        def replaced(self: OnKillHandler) -> None:
            connection.replace_key()
            whole(self)

        monkeypatch.setattr(OnKillHandler, "_read_key_again", replaced)
        _, log = killed(simulator, late, route="trigger_sync")
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_logs_the_job_that_may_still_run_if_there_is_no_other_key(
        self, simulator: Simulator, late: PlanasonixSyncOperator
    ) -> None:
        _, log = killed(simulator, late, route="trigger_sync")
        (job,) = simulator.jobs()
        assert job.cancel_requested_at is None
        assert f"The task was killed. Job {job.id} could not be cancelled and may still run: POST" in log.lines[-1]
        assert API_KEY not in " ".join(log.lines)
