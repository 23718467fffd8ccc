"""The parameter ``on_cancelled``: the reaction of a task if a person cancels its job."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import PlanasonixJobCancelledError, PlanasonixTimeoutError
from planasonix_provider.simulator import Simulator
from tests.support.attempts import Make, die_at, id_of, take
from tests.support.scenarios import CONNECTION, killed, meanwhile, started, starts, sync
from tests.support.task_runs import drive

MESSAGE_START = "No retry follows, because on_cancelled='fail'; to start again, clear the task. "


def cancel_all(simulator: Simulator) -> None:
    """Cancel all jobs as a person does in Planasonix."""
    for job in simulator.jobs():
        simulator.workspace.cancel(job.id)


def is_running(simulator: Simulator) -> bool:
    return any(job.status == "running" for job in simulator.jobs())


@pytest.mark.usefixtures("travel")
class TestATryWhoseWorkAPersonCancels:
    def test_fails_without_a_retry_with_fail(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        take(simulator, 60)
        with meanwhile(lambda: cancel_all(simulator), once=lambda: is_running(simulator)):
            run = drive(lambda: make(on_cancelled="fail", deferrable=deferrable))
        (one,) = started(simulator)
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error).startswith(MESSAGE_START)
        assert f"{one.id} was cancelled before it was done." in str(run.error)
        assert getattr(run.error, f"{make().kind}_id") == one.id  # type: ignore[attr-defined]

    def test_is_retried_by_default(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        with meanwhile(lambda: cancel_all(simulator), once=lambda: is_running(simulator)):
            first = drive(lambda: make(deferrable=deferrable), notes)
        assert isinstance(first.error, PlanasonixJobCancelledError)
        assert "on_cancelled" not in str(first.error)
        take(simulator, 0)
        second = drive(make, notes, try_number=2)
        assert id_of(second) == started(simulator)[1].id


@pytest.mark.usefixtures("travel")
class TestARetryThatFindsItsWorkCancelled:
    def test_fails_with_fail_and_starts_nothing(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        take(simulator, 60)
        notes = die_at(make, "while it waited")
        cancel_all(simulator)
        run = drive(lambda: make(on_cancelled="fail", deferrable=deferrable), notes, try_number=2)
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error).startswith(MESSAGE_START)
        assert starts(simulator) == 1

    def test_first_waits_until_the_cancel_is_done(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60, cancelling_seconds=0.3)
        notes = die_at(sync, "while it waited")
        cancel_all(simulator)
        run = drive(lambda: sync(on_cancelled="fail"), notes, try_number=2)
        assert isinstance(run.error, AirflowFailException)
        assert "is being cancelled; waiting until it is over." in run.said
        assert starts(simulator) == 1

    def test_restarts_failed_work(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0, fails=True)
        notes: dict[str, Any] = {}
        drive(lambda: make(on_cancelled="fail"), notes)
        take(simulator, 0)
        run = drive(lambda: make(on_cancelled="fail"), notes, try_number=2)
        assert (run.error, id_of(run)) == (None, started(simulator)[1].id)


class TestARetryOfATryThatCancelledItsOwnWork:
    @pytest.mark.usefixtures("travel")
    def test_at_a_timeout_starts_again(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        first = drive(lambda: make(on_cancelled="fail", timeout=0.3, deferrable=deferrable), notes)
        assert isinstance(first.error, PlanasonixTimeoutError)
        take(simulator, 0)
        run = drive(lambda: make(on_cancelled="fail"), notes, try_number=2)
        assert (run.error, id_of(run)) == (None, started(simulator)[1].id)

    def test_after_a_kill_starts_again(self, simulator: Simulator) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        killed(simulator, sync(on_cancelled="fail"), route="get_job", notes=notes)
        (one,) = started(simulator)
        assert one.cancel_requested_at is not None
        take(simulator, 0)
        run = drive(lambda: sync(on_cancelled="fail"), notes, try_number=2)
        assert (run.error, id_of(run)) == (None, started(simulator)[1].id)

    @pytest.mark.parametrize(
        "ti",
        [
            pytest.param({"max_tries": 3}, id="after it had ended"),
            pytest.param({"clear_number": 1}, id="while it ran"),
        ],
    )
    def test_after_a_clear_starts_again(self, make: Make, simulator: Simulator, ti: dict[str, int]) -> None:
        take(simulator, 60)
        notes = die_at(make, "while it waited")
        cancel_all(simulator)
        while not started(simulator)[0].is_over:
            time.sleep(0.01)
        take(simulator, 0)
        run = drive(lambda: make(on_cancelled="fail"), notes, try_number=2, **ti)
        assert (run.error, id_of(run)) == (None, started(simulator)[1].id)
