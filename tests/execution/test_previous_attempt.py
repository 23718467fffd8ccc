from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from planasonix_provider.execution import on_kill
from planasonix_provider.execution.previous_attempt import SUCCESS_STATES
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import RECORD_KEY
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from tests.support.attempts import (
    POINTS,
    Make,
    at_that_moment,
    check_only_work,
    die_at,
    id_of,
    old_work,
    show_nothing,
    start_theirs,
    start_theirs_of,
    take,
)
from tests.support.scenarios import (
    CONNECTION,
    backfill,
    killed,
    started,
    starts,
    sync,
)
from tests.support.task_runs import HAS_NOTES, Run, context, drive, record
from tests.support.time_travel import TravelledClock


@pytest.mark.usefixtures("travel")
class TestRetry:
    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("honours", [True, False], ids=["honoured key", "ignored key"])
    @pytest.mark.parametrize("shows", [True, False], ids=["metadata", "no metadata"])
    def test_of_a_killed_try_finds_the_only_job(
        self, make: Make, simulator: Simulator, point: str, honours: bool, shows: bool, deferrable: bool
    ) -> None:
        simulator.workspace.configure(honour_idempotency=honours, show_metadata=shows, conflict="allowed")
        notes = die_at(make, point, deferrable=deferrable)
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        check_only_work(run, simulator)
        assert starts(simulator) == 1

    def test_takes_the_job_of_another_task_if_no_metadata_distinguishes_it(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(honour_idempotency=False, show_metadata=False, conflict="unnamed")
        notes = die_at(sync, "after the record")
        at_that_moment(monkeypatch, lambda: start_theirs(simulator))
        run = drive(lambda: sync(on_conflict="wait"), notes, try_number=2)
        (theirs,) = started(simulator)
        assert (run.error, id_of(run)) == (None, theirs.id)
        assert "Try 1 was about to start a job when it ended; looking for that job." in run.said
        assert f"Started job {theirs.id}" in run.said

    def test_continues_running_work(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        notes = die_at(make, "while it waited")
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        (one,) = started(simulator)
        assert any(
            f"{one.id}, which try 1 has started, still runs: this try goes on with it." in line
            for line in run.log.lines
        )
        assert run.xcoms[f"{make().kind}_id"] == one.id

    @pytest.mark.skipif(not HAS_NOTES, reason="before Airflow 3.3, the record is deleted with the work")
    def test_stores_a_changed_cancel_on_kill(self, make: Make, simulator: Simulator) -> None:
        notes = die_at(make, "while it waited")
        drive(lambda: make(cancel_on_kill=False), notes, try_number=2)
        assert starts(simulator) == 1
        assert notes[RECORD_KEY]["cancel_on_kill"] is False

    def test_takes_over_finished_work_at_once(self, make: Make, simulator: Simulator, travel: TravelledClock) -> None:
        take(simulator, 0)
        notes = die_at(make, "while it waited")
        began = travel.passed
        run = drive(lambda: make(poll_interval=600), notes, try_number=2)
        check_only_work(run, simulator)
        assert "has succeeded: this try takes it over." in run.said
        assert travel.passed - began < 1

    def test_after_a_failure_starts_again(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0, fails=True)
        notes: dict[str, Any] = {}
        first = drive(make, notes)
        assert first.error is not None
        take(simulator, 0)
        second = drive(make, notes, try_number=2)
        assert old_work(second, simulator).status == "failed"

    def test_after_the_failure_of_a_lost_start_uses_a_new_key(self, make: Make, simulator: Simulator) -> None:
        simulator.workspace.configure(honour_idempotency=True)
        take(simulator, 0, fails=True)
        notes = die_at(make, "after the answer")
        take(simulator, 0)
        run = drive(make, notes, try_number=2)
        assert old_work(run, simulator).status == "failed"

    def test_after_a_cancel_in_progress_starts_again(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60, cancelling_seconds=0.3)
        notes = die_at(sync, "while it waited")
        simulator.workspace.cancel(started(simulator)[0].id)
        run = drive(sync, notes, try_number=2)
        assert old_work(run, simulator).status == "cancelled"
        assert "is being cancelled; waiting until it is over." in run.said

    def test_with_other_parameters_warns_and_continues(self, simulator: Simulator) -> None:
        take(simulator, 0.3)
        notes = die_at(sync, "while it waited")
        run = drive(lambda: sync(pipeline_id="pl_other"), notes, try_number=2)
        check_only_work(run, simulator)
        assert "was started with other parameters than the task has now" in run.said

    def test_tolerates_one_404(self, make: Make, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed")
        notes = die_at(make, "while it waited")
        simulator.fail("status", route=f"get_{make().kind}", status=404)
        run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)

    def test_after_many_404s_warns_and_starts_again(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        take(simulator, 0)
        notes = die_at(make, "while it waited")
        simulator.fail("status", route=f"get_{make().kind}", status=404, times=3)
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        assert run.error is None
        assert id_of(run) == started(simulator)[1].id
        assert "is not there any more, starting again" in run.said


@pytest.mark.usefixtures("travel")
class TestClear:
    @pytest.mark.parametrize("point", ["after the answer", "while it waited"])
    def test_cancels_the_old_work_and_starts_again(self, make: Make, simulator: Simulator, point: str) -> None:
        take(simulator, 0.5)
        notes = die_at(make, point)
        run = drive(make, notes, try_number=2, max_tries=3)
        assert old_work(run, simulator).status == "cancelled"

    def test_keeps_the_old_work_without_cancel_on_kill(self, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 0.3)
        notes = die_at(sync, "while it waited")
        run = drive(lambda: sync(cancel_on_kill=False), notes, try_number=2, max_tries=3)
        assert old_work(run, simulator).cancel_requested_at is None
        assert "runs on" in run.said

    @pytest.mark.slow("simulates hours of polls")
    def test_cancels_none_of_several_candidates(self, make: Make, simulator: Simulator, travel: TravelledClock) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 60)
        notes = die_at(make, "after the record")
        for _ in range(2):
            travel.sleep(20)
            start_theirs_of(make, simulator)
        run = drive(make, notes, try_number=2, max_tries=3)
        assert isinstance(run.error, AirflowFailException)
        assert all(work.id in str(run.error) for work in started(simulator))
        assert len(started(simulator)) == 2
        assert not any(job.cancel_requested_at for job in simulator.jobs())
        travel.sleep(600)
        assert drive(make, notes, try_number=3, max_tries=5).error is None

    @pytest.mark.slow("simulates hours of polls")
    def test_cancels_work_that_lists_show_late(
        self, make: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 60)
        notes = die_at(make, "after the answer")
        show_nothing(monkeypatch, looks=2)
        run = drive(make, notes, try_number=2, max_tries=3)
        assert old_work(run, simulator).status == "cancelled"

    def test_with_the_same_max_tries_starts_again(self, make: Make, simulator: Simulator) -> None:
        """The task has succeeded with ``retries=1``, and is cleared with 0."""
        take(simulator, 0)
        notes = die_at(make, "while it waited", max_tries=1, retries=1)
        run = drive(make, notes, try_number=2, max_tries=1, retries=0, clear_number=1)
        old, new = started(simulator)
        assert (old.status in SUCCESS_STATES, id_of(run)) == (True, new.id)

    def test_after_finished_work_starts_again(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        drive(make, notes)
        run = drive(make, notes, try_number=2, max_tries=3)
        assert id_of(run) == started(simulator)[1].id


@pytest.mark.usefixtures("travel")
class TestLaterTry:
    @pytest.mark.parametrize(
        ("ti", "why"),
        [
            ({"try_number": 2, "max_tries": 1}, "cleared with fewer retries than before"),
            ({"try_number": 1, "max_tries": 2}, "a DAG run that was deleted and made again"),
        ],
    )
    def test_that_is_no_retry_starts_again(self, simulator: Simulator, ti: dict[str, int], why: str) -> None:
        take(simulator, 0)
        notes = die_at(sync, "while it waited")
        run = drive(sync, notes, **ti)
        assert id_of(run) == started(simulator)[1].id, why

    def test_beyond_the_retries_continues(self, make: Make, simulator: Simulator) -> None:
        """After a scheduler has died, Airflow runs its tasks again without counting a retry."""
        take(simulator, 0.5)
        notes = die_at(make, "while it waited")
        run = drive(make, notes, try_number=4, max_tries=2)
        check_only_work(run, simulator)
        assert not any(job.cancel_requested_at for job in simulator.jobs())

    @pytest.mark.parametrize("map_index", [0, 3])
    def test_of_a_mapped_task_with_other_parameters_cancels_the_old_work(
        self, simulator: Simulator, map_index: int
    ) -> None:
        take(simulator, 0.5)
        notes = die_at(sync, "while it waited", map_index=map_index)
        run = drive(lambda: sync(pipeline_id="pl_other"), notes, try_number=2, map_index=map_index)
        assert old_work(run, simulator).status == "cancelled"

    def test_of_another_kind_cancels_the_old_work(self, simulator: Simulator) -> None:
        take(simulator, 0.5)
        notes = die_at(sync, "while it waited")
        run = drive(backfill, notes, try_number=2)
        new, old = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)

    def test_with_another_window_finds_the_lost_backfill(self, simulator: Simulator) -> None:
        take(simulator, 0.2)
        notes = die_at(backfill, "after the answer")
        run = drive(lambda: backfill(end_at="2025-03-01T00:05:00Z"), notes, try_number=2)
        check_only_work(run, simulator)

    def test_with_a_user_metadata_key_of_the_same_name_finds_the_job(self, simulator: Simulator) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed")
        take(simulator, 0.2)

        def make() -> BaseOperator:
            return sync(metadata={"attempt": "1", "airflow_attempt": "mine"})

        operator = make()
        notes = die_at(lambda **_: operator, "after the answer")
        assert id_of(drive(make, notes, try_number=2)) == started(simulator)[0].id
        assert len(started(simulator)) == 1


class TestKillOfLaterTry:
    def test_before_its_first_poll_cancels_the_work(self, simulator: Simulator) -> None:
        take(simulator, 60)
        notes = die_at(sync, "while it waited")
        simulator.fail("status", route="get_job", status=503, times=None)
        operator = sync()
        killed(simulator, operator, route="get_job", notes=notes, try_number=2)
        (one,) = started(simulator)
        assert one.cancel_requested_at is not None

    def test_before_the_connection_is_read_cancels_the_work(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 60)
        notes = die_at(make, "while it waited")
        operator = make()
        operator.on_kill()
        record(operator, (run := Run(notes=notes)).log)
        with pytest.raises(TaskKilledError, match="was killed"):
            operator.execute(context(run, try_number=2))
        assert all(job.cancel_requested_at for job in simulator.jobs())
        assert len(started(simulator)) == 1

    def test_of_an_edited_dag_names_the_old_connection(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(on_kill, "SEARCH_TRIES", 0)
        notes = die_at(sync, "after the record")
        operator = sync(connection_id="conn_edited")
        operator.on_kill()
        record(operator, (run := Run(notes=notes)).log)
        with pytest.raises(TaskKilledError, match=f"The work started on connection {CONNECTION} cannot be seen yet"):
            operator.execute(context(run, try_number=2))
        assert f"--connection-id {CONNECTION}" in run.said


class TestDamagedRecord:
    @pytest.mark.parametrize("stored", ["nonsense", {"version": 2}, {"version": 1, "kind": "job"}, 7])
    def test_fails_the_task_and_names_the_record(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, stored: Any
    ) -> None:
        notes = {RECORD_KEY: stored}
        if "task_state_store" not in context(Run()):
            from planasonix_provider.state_store import VariableStateStore

            monkeypatch.setattr(VariableStateStore, "get", lambda *_: stored)
        run = drive(sync, notes, try_number=2)
        assert isinstance(run.error, AirflowFailException)
        assert RECORD_KEY in str(run.error)
        assert "clear the task" in str(run.error)
        assert starts(simulator) == 0
