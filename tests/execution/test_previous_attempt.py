from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from planasonix_provider.execution import on_kill
from planasonix_provider.execution.attempt_store import RECORD_KEY
from planasonix_provider.execution.previous_attempt import SUCCESS_STATES
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from tests.support.attempts import (
    POINTS,
    Make,
    dies,
    id_of,
    show_nothing,
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
from tests.support.task_runs import Run, context, drive, record
from tests.support.time_travel import TravelledClock


@pytest.mark.usefixtures("travel")
class TestARetry:
    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("honours", [True, False], ids=["honoured key", "ignored key"])
    @pytest.mark.parametrize("shows", [True, False], ids=["metadata", "no metadata"])
    def test_of_a_try_that_was_killed_has_the_one_job(
        self, make: Make, simulator: Simulator, point: str, honours: bool, shows: bool, deferrable: bool
    ) -> None:
        simulator.workspace.configure(honour_idempotency=honours, show_metadata=shows, conflict="allowed")
        notes: dict[str, Any] = {}
        dies(make, point, notes, deferrable=deferrable)
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        assert run.error is None
        (one,) = started(simulator)
        assert id_of(run) == one.id
        assert starts(simulator) == 1

    def test_goes_on_with_what_still_runs(self, make: Make, simulator: Simulator, deferrable: bool) -> None:
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        (one,) = started(simulator)
        assert any(
            f"{one.id}, which try 1 has started, still runs: this try goes on with it." in line
            for line in run.log.lines
        )
        assert run.xcoms[f"{make().kind}_id"] == one.id

    def test_takes_over_what_has_succeeded(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        run = drive(make, notes, try_number=2)
        (one,) = started(simulator)
        assert id_of(run) == one.id
        assert "has succeeded: this try takes it over." in run.said

    def test_takes_over_at_once_what_is_over_however_seldom_it_looks(
        self, make: Make, simulator: Simulator, travel: TravelledClock
    ) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        began = travel.passed
        run = drive(lambda: make(poll_interval=600), notes, try_number=2)
        assert run.error is None
        assert travel.passed - began < 1

    def test_starts_anew_after_what_failed(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0, fails=True)
        notes: dict[str, Any] = {}
        first = drive(make, notes)
        assert first.error is not None
        take(simulator, 0)
        second = drive(make, notes, try_number=2)
        old, new = started(simulator)
        assert (old.status, id_of(second)) == ("failed", new.id)

    def test_whose_lost_start_has_failed_starts_anew_with_a_new_key(self, make: Make, simulator: Simulator) -> None:
        simulator.workspace.configure(honour_idempotency=True)
        take(simulator, 0, fails=True)
        notes: dict[str, Any] = {}
        dies(make, "after the answer", notes)
        take(simulator, 0)
        run = drive(make, notes, try_number=2)
        old, new = started(simulator)
        assert (old.status, id_of(run)) == ("failed", new.id)

    def test_waits_for_what_is_being_cancelled_and_starts_anew(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60, cancelling_seconds=0.3)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        simulator.workspace.cancel(started(simulator)[0].id)
        run = drive(sync, notes, try_number=2)
        old, new = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)
        assert "is being cancelled; waiting until it is over." in run.said

    def test_with_other_parameters_goes_on_and_says_so(self, simulator: Simulator) -> None:
        take(simulator, 0.3)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        run = drive(lambda: sync(pipeline_id="pl_other"), notes, try_number=2)
        (one,) = started(simulator)
        assert id_of(run) == one.id
        assert "was started with other parameters than the task has now" in run.said

    def test_of_what_is_not_seen_for_a_moment_goes_on_with_it(self, make: Make, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed")
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        simulator.fail("status", route=f"get_{make().kind}", status=404)
        run = drive(make, notes, try_number=2)
        (one,) = started(simulator)
        assert id_of(run) == one.id

    def test_of_what_is_not_there_any_more_starts_anew_with_a_warning(
        self, make: Make, simulator: Simulator, deferrable: bool
    ) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        simulator.fail("status", route=f"get_{make().kind}", status=404, times=3)
        run = drive(lambda: make(deferrable=deferrable), notes, try_number=2)
        assert run.error is None
        assert id_of(run) == started(simulator)[1].id
        assert "is not there any more, starting anew" in run.said


@pytest.mark.usefixtures("travel")
class TestAClear:
    @pytest.mark.parametrize("point", ["after the answer", "while it waited"])
    def test_ends_the_old_work_and_starts_afresh(self, make: Make, simulator: Simulator, point: str) -> None:
        take(simulator, 0.5)
        notes: dict[str, Any] = {}
        dies(make, point, notes)
        run = drive(make, notes, try_number=2, max_tries=3)
        old, new = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)

    def test_leaves_the_old_work_alone_where_it_is_not_to_be_cancelled(self, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 0.3)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        run = drive(lambda: sync(cancel_on_kill=False), notes, try_number=2, max_tries=3)
        old, new = started(simulator)
        assert (old.cancel_requested_at, id_of(run)) == (None, new.id)
        assert "runs on" in run.said

    def test_ends_nothing_of_several_that_do_not_say_whose_they_are(
        self, make: Make, simulator: Simulator, travel: TravelledClock
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 60)
        notes: dict[str, Any] = {}
        dies(make, "after the record", notes)
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

    def test_ends_what_a_late_list_shows_only_then(
        self, make: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 60)
        notes: dict[str, Any] = {}
        dies(make, "after the answer", notes)
        show_nothing(monkeypatch, looks=2)
        run = drive(make, notes, try_number=2, max_tries=3)
        old, new = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)

    def test_after_which_max_tries_is_the_same_starts_afresh(self, make: Make, simulator: Simulator) -> None:
        """The task has succeeded with ``retries=1``, which is 0 when it is cleared."""
        take(simulator, 0)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes, max_tries=1, retries=1)
        run = drive(make, notes, try_number=2, max_tries=1, retries=0, clear_number=1)
        old, new = started(simulator)
        assert (old.status in SUCCESS_STATES, id_of(run)) == (True, new.id)

    def test_of_what_is_over_just_starts_afresh(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        drive(make, notes)
        run = drive(make, notes, try_number=2, max_tries=3)
        assert id_of(run) == started(simulator)[1].id


@pytest.mark.usefixtures("travel")
class TestALaterTry:
    @pytest.mark.parametrize(
        ("ti", "why"),
        [
            ({"try_number": 2, "max_tries": 1}, "cleared with fewer retries than before"),
            ({"try_number": 1, "max_tries": 2}, "a DAG run that was deleted and made again"),
        ],
    )
    def test_that_is_no_retry_starts_afresh(self, simulator: Simulator, ti: dict[str, int], why: str) -> None:
        take(simulator, 0)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        run = drive(sync, notes, **ti)
        assert id_of(run) == started(simulator)[1].id, why

    def test_that_airflow_has_made_beyond_the_retries_goes_on(self, make: Make, simulator: Simulator) -> None:
        """As after the death of a scheduler: what ran with it is run again, and no retry is counted."""
        take(simulator, 0.5)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        run = drive(make, notes, try_number=4, max_tries=2)
        (one,) = started(simulator)
        assert (run.error, id_of(run)) == (None, one.id)
        assert not any(job.cancel_requested_at for job in simulator.jobs())

    def test_of_another_kind_ends_the_old_work_and_starts_its_own(self, simulator: Simulator) -> None:
        take(simulator, 0.5)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        run = drive(backfill, notes, try_number=2)
        new, old = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)

    def test_of_a_backfill_whose_window_has_moved_finds_the_old_one(self, simulator: Simulator) -> None:
        take(simulator, 0.2)
        notes: dict[str, Any] = {}
        dies(backfill, "after the answer", notes)
        run = drive(lambda: backfill(end_at="2025-03-01T00:05:00Z"), notes, try_number=2)
        (one,) = started(simulator)
        assert id_of(run) == one.id

    def test_of_a_user_who_names_an_attempt_of_his_own_finds_the_job(self, simulator: Simulator) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed")
        take(simulator, 0.2)
        notes: dict[str, Any] = {}

        def make() -> BaseOperator:
            return sync(metadata={"attempt": "1", "airflow_attempt": "mine"})

        operator = make()
        dies(lambda **_: operator, "after the answer", notes)
        assert id_of(drive(make, notes, try_number=2)) == started(simulator)[0].id
        assert len(started(simulator)) == 1


class TestAKillOfALaterTry:
    def test_before_its_first_look_cancels_what_the_record_names(self, simulator: Simulator) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes)
        simulator.fail("status", route="get_job", status=503, times=None)
        operator = sync()
        killed(simulator, operator, route="get_job", notes=notes, try_number=2)
        (one,) = started(simulator)
        assert one.cancel_requested_at is not None

    def test_before_the_connection_is_read_cancels_what_the_try_before_it_left(
        self, make: Make, simulator: Simulator
    ) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        dies(make, "while it waited", notes)
        operator = make()
        operator.on_kill()
        record(operator, (run := Run(notes=notes)).log)
        with pytest.raises(TaskKilledError, match="was killed"):
            operator.execute(context(run, try_number=2))
        assert all(job.cancel_requested_at for job in simulator.jobs())
        assert len(started(simulator)) == 1

    def test_of_an_edited_dag_names_the_connection_of_the_lost_start(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(on_kill, "SEARCH_TRIES", 0)
        notes: dict[str, Any] = {}
        dies(sync, "after the record", notes)
        operator = sync(connection_id="conn_edited")
        operator.on_kill()
        record(operator, (run := Run(notes=notes)).log)
        with pytest.raises(TaskKilledError, match=f"What was started on connection {CONNECTION} cannot be seen yet"):
            operator.execute(context(run, try_number=2))
        assert f"--connection-id {CONNECTION}" in run.said


@pytest.mark.usefixtures("travel")
class TestAMappedTask:
    def test_with_other_parameters_ends_the_old_work_and_starts_afresh(self, simulator: Simulator) -> None:
        take(simulator, 0.5)
        notes: dict[str, Any] = {}
        dies(sync, "while it waited", notes, map_index=3)
        run = drive(lambda: sync(pipeline_id="pl_other"), notes, try_number=2, map_index=3)
        old, new = started(simulator)
        assert (old.status, id_of(run)) == ("cancelled", new.id)


class TestADamagedRecord:
    @pytest.mark.parametrize("stored", ["nonsense", {"version": 2}, {"version": 1, "kind": "job"}, 7])
    def test_starts_nothing_and_says_how_to_clear_it(
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
