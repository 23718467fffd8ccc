from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixConflictError,
    PlanasonixTimeoutError,
)
from planasonix_provider.simulator import Simulator
from tests.support.attempts import (
    at_that_moment,
    id_of,
    is_seen,
    start_theirs,
)
from tests.support.scenarios import (
    CONNECTION,
    killed,
    meanwhile,
    started,
    sync,
)
from tests.support.task_runs import Run, context, deserialize_trigger, drive, first_event
from tests.support.time_travel import TravelledClock


class TestConflict:
    @pytest.fixture(params=["named", "unnamed"])
    def other(self, request: pytest.FixtureRequest, simulator: Simulator) -> str:
        simulator.workspace.configure(conflict=request.param, show_metadata=True)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        return start_theirs(simulator)

    @pytest.fixture
    def ends_once_met(self, simulator: Simulator, other: str) -> Iterator[None]:
        """End the other sync after the conflict and one poll."""
        with meanwhile(lambda: simulator.workspace.cancel(other), once=lambda: is_seen(simulator)):
            yield

    def test_fails_the_task(self, simulator: Simulator, other: str) -> None:
        run = drive(sync)
        assert isinstance(run.error, PlanasonixConflictError)
        assert str(run.error).endswith("Or let the task do so: on_conflict='wait', 'attach' or 'skip'.")
        assert len(started(simulator)) == 1

    def test_skips_the_task(self, simulator: Simulator, other: str) -> None:
        run = drive(lambda: sync(on_conflict="skip"))
        assert isinstance(run.error, AirflowSkipException)
        assert str(run.error).startswith("Skipped, as on_conflict='skip' says. POST ")

    @pytest.mark.usefixtures("travel")
    def test_attaches_to_the_job_and_logs_its_owner(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.workspace.configure(show_metadata=True)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=2)
        other = start_theirs(simulator)
        run = drive(lambda: sync(on_conflict="attach", deferrable=deferrable))
        assert id_of(run) == other
        assert f"Job {other} is in the way (of task load of DAG theirs" in run.said
        if run.trigger_arguments:
            assert (run.trigger_arguments["owned"], run.trigger_arguments["cancel_on_kill"]) == (False, False)

    @pytest.mark.usefixtures("travel")
    def test_does_not_attach_to_a_job_that_is_being_cancelled(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60, cancelling_seconds=2)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.2)
        simulator.workspace.cancel(start_theirs(simulator))
        run = drive(lambda: sync(on_conflict="attach", deferrable=deferrable))
        assert run.error is None
        assert id_of(run) == started(simulator)[1].id

    def test_never_cancels_the_job_that_the_task_attached_to(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        other = start_theirs(simulator)
        notes: dict[str, Any] = {}
        for try_number in (1, 2):
            killed(simulator, sync(on_conflict="attach"), route="get_job", notes=notes, try_number=try_number)
            assert simulator.job(other).cancel_requested_at is None

    @pytest.mark.usefixtures("travel", "other")
    def test_is_waited_for(self, simulator: Simulator, deferrable: bool) -> None:
        run = drive(lambda: sync(on_conflict="wait", deferrable=deferrable, poll_interval=10))
        assert run.error is None
        assert id_of(run) == started(simulator)[1].id
        assert run.deferrals == (2 if deferrable else 0)

    @pytest.mark.usefixtures("travel")
    def test_is_waited_for_repeatedly(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, times=3, queued_seconds=0, running_seconds=0.2)
        at_that_moment(monkeypatch, lambda: start_theirs(simulator), times=3)
        run = drive(lambda: sync(on_conflict="wait", deferrable=deferrable))
        assert run.error is None
        assert id_of(run) == started(simulator)[3].id
        assert len(started(simulator)) == 4

    @pytest.mark.usefixtures("travel")
    def test_is_waited_for_until_the_deadline(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        other = start_theirs(simulator)
        run = drive(lambda: sync(on_conflict="wait", timeout=0.3, deferrable=deferrable))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert simulator.job(other).cancel_requested_at is None
        assert len(started(simulator)) == 1

    def test_that_lists_do_not_show_is_waited_for_until_the_deadline(
        self, simulator: Simulator, travel: TravelledClock, deferrable: bool
    ) -> None:
        simulator.workspace.configure(conflict="unnamed")
        simulator.plan(CONNECTION, queued_seconds=0, cancelling_seconds=3_600)
        # Work that is being cancelled is in no list of active work.
        simulator.workspace.cancel(start_theirs(simulator))
        run = drive(lambda: sync(on_conflict="wait", timeout=60, poll_interval=600, deferrable=deferrable))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert travel.passed == pytest.approx(60, abs=2)

    @pytest.mark.usefixtures("travel")
    def test_without_an_id_in_the_response_is_the_running_job_not_a_queued_one(self, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed")
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.5)
        simulator.plan(CONNECTION, queued_seconds=60)
        running, _ = start_theirs(simulator), start_theirs(simulator)
        simulator.workspace.configure(conflict="unnamed")
        assert drive(lambda: sync(on_conflict="attach")).result["job_id"] == running

    @pytest.mark.usefixtures("travel")
    def test_keeps_the_deadline_of_a_deferred_task(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.2)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        start_theirs(simulator)
        began = datetime.now(UTC)
        run = drive(lambda: sync(on_conflict="wait", timeout=3, deferrable=True))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert run.deferrals == 2
        deadline = datetime.fromisoformat(run.trigger_arguments["deadline"])
        # Not three seconds after the end of the other sync.
        assert (deadline - began).total_seconds() < 3.2
        assert started(simulator)[1].cancel_requested_at

    @pytest.mark.usefixtures("travel")
    def test_that_disappears_during_the_deferral_is_over(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.2)
        start_theirs(simulator)
        simulator.fail("status", status=404, route="get_job", skip=2, times=None)
        operator = sync(on_conflict="wait", deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(Run()))
        event = asyncio.run(first_event(deserialize_trigger(deferred.value.trigger)))
        simulator.faults.clear()
        simulator.workspace.configure(conflict="allowed")
        with pytest.raises(TaskDeferred):
            sync(deferrable=True).execute_after_conflict(context(Run()), event)
        assert len(started(simulator)) == 2

    @pytest.mark.usefixtures("ends_once_met")
    def test_that_disappears_is_over(self, simulator: Simulator) -> None:
        simulator.fail("status", status=404, route="get_job", times=2)
        run = drive(lambda: sync(on_conflict="wait"))
        assert run.error is None

    def test_that_can_no_longer_be_polled_fails_the_task(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        start_theirs(simulator)
        simulator.fail("status", status=403, route="get_job", skip=2, times=None)
        run = drive(lambda: sync(on_conflict="wait", deferrable=True))
        assert isinstance(run.error, AirflowFailException)
        assert len(started(simulator)) == 1

    def test_is_not_cancelled_by_a_kill(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        start_theirs(simulator)
        with pytest.raises(TaskDeferred) as deferred:
            sync(on_conflict="wait", deferrable=True).execute(context(Run()))
        arguments = deferred.value.trigger.serialize()[1]
        assert (arguments["owned"], arguments["cancel_on_kill"]) == (False, False)
        assert deferred.value.method_name == "execute_after_conflict"

    def test_on_conflict_has_four_values(self) -> None:
        with pytest.raises(ValueError, match="on_conflict: got 'queue', allowed is fail, attach, wait, skip"):
            sync(on_conflict="queue")
