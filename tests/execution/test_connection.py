"""An Airflow connection that is missing for a while: deleted and created again, or its secrets backend is down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.conftest import API_KEY
from tests.support.scenarios import CONNECTION, backfill, routes_asked, started, sync
from tests.support.task_runs import Run, context, deserialize_trigger, drive, first_event
from tests.support.time_travel import TravelledClock, travelling

MINUTE = 60.0
WAITS = 40
NEW_KEY = "plnx_test_rotated"
NAME = "AIRFLOW_CONN_PLANASONIX_DEFAULT"


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Do not shorten the tolerated time: a minute passes at once here."""


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


class Connection:
    """The Airflow connection."""

    def __init__(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self._simulator = simulator
        self._monkeypatch = monkeypatch

    def delete(self) -> None:
        """Delete it, and revoke its key, so that the waits read it again."""
        self._monkeypatch.delenv(NAME)
        self._simulator.workspace.keys.revoke(API_KEY)

    def create(self) -> None:
        self._simulator.workspace.keys.add(NEW_KEY)
        self._monkeypatch.setenv(NAME, json.dumps({**self._simulator.airflow_connection(), "password": NEW_KEY}))


@pytest.fixture
def connection(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Connection:
    return Connection(simulator, monkeypatch)


class TestManyDeferredTasks:
    @staticmethod
    def defer_all() -> list[Any]:
        triggers = []
        for number, connection_id in enumerate(connections()):
            task = context(Run(), map_index=number)
            with pytest.raises(TaskDeferred) as deferred:
                sync(connection_id=connection_id, deferrable=True, poll_interval=10).execute(task)
            triggers.append(deserialize_trigger(deferred.value.trigger))
        return triggers

    @staticmethod
    def wait(travel: TravelledClock, triggers: list[Any], *steps: tuple[float, Callable[[], None]]) -> list[WaitEvent]:
        async def main() -> list[Any]:
            for seconds, act in steps:
                asyncio.get_running_loop().call_later(seconds, act)
            return await asyncio.gather(*map(first_event, triggers))

        return [WaitEvent.from_payload(payload, "job") for payload in travel.run(main())]

    @pytest.mark.parametrize("missing", [3, 45])
    def test_survive_less_than_a_minute_without_it(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection, missing: float
    ) -> None:
        steps = ((3 * MINUTE, connection.delete), (3 * MINUTE + missing, connection.create))
        events = self.wait(travel, self.defer_all(), *steps)
        assert [event.outcome for event in events] == ["over"] * WAITS

    def test_survive_a_restart_of_the_triggerer_without_it(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection
    ) -> None:
        triggers = self.defer_all()
        connection.delete()
        events = self.wait(travel, triggers, (45, connection.create))
        assert [event.outcome for event in events] == ["over"] * WAITS

    def test_fail_after_more_than_a_minute_and_leave_their_jobs_to_a_retry(
        self, simulator: Simulator, travel: TravelledClock, connection: Connection
    ) -> None:
        events = self.wait(travel, self.defer_all(), (3 * MINUTE, connection.delete))
        assert {event.error for event in events} == {PlanasonixConfigurationError.kind}
        assert travel.passed <= 3 * MINUTE + 2 * MINUTE
        assert all("There is no Airflow connection 'planasonix_default'" in str(event.message) for event in events)
        assert all("a retry goes on with it" in str(event.message) for event in events)
        assert "cancel_job" not in routes_asked(simulator)


@pytest.mark.parametrize("make", [sync, backfill], ids=["sync", "backfill"])
class TestOneTask:
    @staticmethod
    def drive(make: Any, travel: TravelledClock, *steps: tuple[float, Callable[[], None]], **how: Any) -> Run:
        left, pass_time = list(steps), travel.sleep

        def sleep(seconds: float) -> None:
            pass_time(seconds)
            if left and travel.passed >= left[0][0]:
                left.pop(0)[1]()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(travel, "sleep", sleep)
            run = drive(lambda: make(poll_interval=10, **how))
        assert left == [], "all steps have happened"
        return run

    def test_survives_during_the_wait(
        self, make: Any, simulator: Simulator, travel: TravelledClock, connection: Connection, deferrable: bool
    ) -> None:
        steps = ((3 * MINUTE, connection.delete), (3 * MINUTE + 45, connection.create))
        run = self.drive(make, travel, *steps, deferrable=deferrable)
        assert run.error is None
        assert len(started(simulator)) == 1

    def test_survives_when_it_resumes(
        self, make: Any, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = (
            (20 * MINUTE, lambda: monkeypatch.delenv(NAME)),
            (20 * MINUTE + 45, lambda: monkeypatch.setenv(NAME, json.dumps(simulator.airflow_connection()))),
        )
        run = self.drive(make, travel, *steps, deferrable=True)
        assert run.error is None
        assert "the Airflow connection cannot be read yet, still trying: There is no Airflow connection" in run.said


@pytest.mark.parametrize("way", [{}, {"mode": "reschedule"}, {"deferrable": True}], ids=str)
def test_a_sensor_that_has_seen_its_job_survives(
    simulator: Simulator, travel: TravelledClock, connection: Connection, way: dict[str, Any]
) -> None:
    job = simulator.workspace.start_sync(CONNECTION)
    left, pass_time = [(3 * MINUTE, connection.delete), (3 * MINUTE + 45, connection.create)], travel.sleep

    def sleep(seconds: float) -> None:
        pass_time(seconds)
        if left and travel.passed >= left[0][0]:
            left.pop(0)[1]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travel, "sleep", sleep)
        run = drive(lambda: PlanasonixJobSensor(task_id="wait", job_id=job.id, poke_interval=20, **way))
    assert left == []
    assert run.error is None


def test_a_task_that_starts_fails_at_once(
    simulator: Simulator, travel: TravelledClock, connection: Connection, deferrable: bool
) -> None:
    connection.delete()
    run = drive(lambda: sync(deferrable=deferrable))
    assert isinstance(run.error, PlanasonixConfigurationError)
    assert travel.passed == 0
