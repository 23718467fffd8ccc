from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from planasonix_provider.api import rate_limiter
from planasonix_provider.api.errors import (
    PlanasonixConflictError,
    PlanasonixTimeoutError,
    PlanasonixTransportError,
)
from planasonix_provider.execution import api_session, conflicts
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import lost_start_search, outages
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from tests.support.attempts import (
    Make,
    at_that_moment,
    check_only_work,
    dates_are_ahead,
    die_at,
    id_of,
    list_the_oldest_backfills_first,
    nothing,
    show_nothing,
    start_earlier_backfills,
    start_theirs,
    start_theirs_of,
    take,
)
from tests.support.scenarios import (
    CONNECTION,
    START_ROUTES,
    Killed,
    backfill,
    fail_starts,
    killed,
    signalled,
    started,
    starts,
    sync,
)
from tests.support.task_runs import Run, context, drive, record
from tests.support.time_travel import TravelledClock


@pytest.mark.usefixtures("travel")
class TestLostResponse:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [("reset", None), ("cut", None), ("empty", None), ("html", 502), ("status", 500), ("status", 504)],
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("honours", [True, False], ids=["honoured key", "ignored key"])
    def test_neither_doubles_nor_loses_work(
        self, make: Make, simulator: Simulator, kind: Any, status: int | None, when: Any, honours: bool
    ) -> None:
        simulator.workspace.configure(honour_idempotency=honours, conflict="allowed")
        fail_starts(simulator, kind, status=status, when=when)
        run = drive(lambda: make(deferrable=True))
        check_only_work(run, simulator)
        assert starts(simulator) == (1 if when == "after" else 2)

    def test_is_not_mistaken_for_work_with_metadata_of_others(self, simulator: Simulator) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed", honour_idempotency=False)
        simulator.fail("reset", route="trigger_sync", when="before")
        other = start_theirs(simulator)
        run = drive(lambda: sync(wait_for_completion=False))
        assert id_of(run) not in (None, other)

    def test_of_two_candidates_fails_and_names_them(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 60)
        simulator.fail("reset", route="trigger_sync", when="after")
        at_that_moment(monkeypatch, lambda: start_theirs(simulator))
        run = drive(sync)
        assert isinstance(run.error, AirflowFailException)
        assert len(started(simulator)) == 2
        assert all(job.id in str(run.error) for job in started(simulator))

    def test_is_not_mistaken_for_work_that_existed(self, simulator: Simulator) -> None:
        simulator.workspace.configure(conflict="allowed", honour_idempotency=False)
        take(simulator, 0.3)
        simulator.fail("reset", route="trigger_sync", when="before")
        theirs = start_theirs(simulator)
        run = drive(sync)
        assert run.error is None
        assert id_of(run) != theirs

    def test_is_found_by_the_conflict_if_lists_are_late(self, simulator: Simulator) -> None:
        take(simulator, 0.5)
        simulator.workspace.configure(honour_idempotency=False)
        simulator.fail("reset", route="trigger_sync", when="after")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lost_start_search, "_candidates", nothing)
            run = drive(sync)
        check_only_work(run, simulator)

    def test_is_left_to_the_next_try_if_lists_are_refused(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take(simulator, 0.3)
        simulator.fail("reset", route="trigger_sync", when="after")
        simulator.fail("status", route="list_jobs", status=403, skip=1, times=2)
        monkeypatch.setattr(outages, "RETRY_INTERVAL_SECONDS", 0.1)
        notes: dict[str, Any] = {}
        first = drive(sync, notes)
        assert "So it is unknown whether a job was started: look at connection" in str(first.error)
        second = drive(sync, notes, try_number=2)
        check_only_work(second, simulator)

    def test_of_a_backfill_is_not_a_conflicting_sync(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.fail("reset", route="trigger_backfill", when="before")
        simulator.fail("status", route="trigger_backfill", status=409)
        # In the simulator, no sync conflicts with a backfill.
        monkeypatch.setattr(
            conflicts.ConflictHandler, "named_by", lambda *_: simulator.workspace.start_sync(CONNECTION)
        )
        run = drive(backfill)
        assert isinstance(run.error, PlanasonixConflictError)

    def test_is_found_by_the_clock_of_the_server(
        self, make: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(conflict="allowed", honour_idempotency=False)
        monkeypatch.setattr(rate_limiter, "_rate_limiters", {})
        # The server's clock is behind.
        now = simulator.workspace._journal._clock
        monkeypatch.setattr(simulator.workspace._journal, "_clock", lambda: now() - timedelta(seconds=10))
        for route in ("list_jobs", "list_backfills"):
            simulator.fail("reset", route=route)
        fail_starts(simulator, "reset", when="after")
        run = drive(lambda: make(wait_for_completion=False))
        check_only_work(run, simulator)

    @pytest.mark.parametrize("seconds", [5, 300])
    @pytest.mark.parametrize("point", [None, "after the answer"], ids=["same try", "next try"])
    def test_is_found_by_its_mark_if_created_at_is_behind_the_date_header(
        self,
        make: Make,
        simulator: Simulator,
        monkeypatch: pytest.MonkeyPatch,
        seconds: int,
        point: str | None,
    ) -> None:
        simulator.workspace.configure(show_metadata=True, conflict="allowed", honour_idempotency=False)
        dates_are_ahead(monkeypatch, seconds)
        notes = die_at(make, point) if point else {}
        if not point:
            fail_starts(simulator, "reset", when="after")
        run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)

    @pytest.mark.slow("simulates hours of polls")
    def test_of_a_backfill_is_found_after_hundreds_of_others(
        self, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(honour_idempotency=False)
        list_the_oldest_backfills_first(monkeypatch)
        start_earlier_backfills(simulator, CONNECTION, 600)
        travel.sleep(3600)
        simulator.fail("reset", route="trigger_backfill", when="after")
        run = drive(lambda: backfill(wait_for_completion=False))
        assert (run.error, len(simulator.backfills())) == (None, 601)
        assert starts(simulator) == 1

    def test_is_not_mistaken_for_work_created_just_before(
        self, make: Make, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.workspace.configure(conflict="allowed", honour_idempotency=False)
        start_theirs_of(make, simulator)
        travel.sleep(60)
        for route in ("list_jobs", "list_backfills"):
            # Existing work cannot be listed.
            simulator.fail("status", route=route, status=403)
        fail_starts(simulator, "reset", when="before")
        run = drive(make)
        _, own = started(simulator)
        assert (run.error, id_of(run)) == (None, own.id)

    @pytest.mark.slow("simulates hours of polls")
    def test_is_not_mistaken_for_a_conflict_with_metadata_of_others(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        simulator.workspace.configure(show_metadata=True, honour_idempotency=False)
        take(simulator, 5)
        simulator.fail("reset", route="trigger_sync", when="before")
        at_that_moment(monkeypatch, lambda: start_theirs(simulator))
        run = drive(lambda: sync(on_conflict="wait", deferrable=deferrable))
        theirs, ours = started(simulator)
        assert (id_of(run), theirs.status) == (ours.id, "succeeded")

    @pytest.mark.slow("simulates hours of polls")
    @pytest.mark.parametrize("on_conflict", ["fail", "attach", "wait", "skip"])
    @pytest.mark.parametrize("shows", [True, False], ids=["metadata", "no metadata"])
    def test_is_found_if_it_conflicts_and_lists_show_it_late(
        self,
        simulator: Simulator,
        monkeypatch: pytest.MonkeyPatch,
        on_conflict: str,
        shows: bool,
    ) -> None:
        simulator.workspace.configure(conflict="unnamed", honour_idempotency=False, show_metadata=shows)
        take(simulator, 5)
        simulator.fail("reset", route="trigger_sync", when="after")
        show_nothing(monkeypatch, looks=1 + len(api_session.SEARCH_DELAY_SECONDS))
        run = drive(lambda: sync(on_conflict=on_conflict))
        check_only_work(run, simulator)
        assert "attaching to it" not in run.said

    @pytest.mark.parametrize("on_conflict", ["attach", "wait", "skip"])
    def test_that_no_list_shows_is_left_to_the_next_try(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, on_conflict: str
    ) -> None:
        simulator.workspace.configure(conflict="unnamed", honour_idempotency=False)
        take(simulator, 5)
        simulator.fail("reset", route="trigger_sync", when="after")
        notes: dict[str, Any] = {}
        with monkeypatch.context() as patch:
            patch.setattr(conflicts, "ACTIVE_STATES", ())
            show_nothing(patch, looks=100)
            first = drive(lambda: sync(on_conflict=on_conflict), notes)
        assert "Tried 3 times, and looked for a job each time" in str(first.error)
        assert not isinstance(first.error, (AirflowFailException, AirflowSkipException))
        second = drive(lambda: sync(on_conflict=on_conflict), notes, try_number=2)
        check_only_work(second, simulator)

    def test_is_repeated_with_the_same_body_by_another_version_of_the_dag(
        self, make: Make, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The API rejects a key that comes with another body.
        simulator.workspace.configure(conflict="allowed")
        fail_starts(simulator, "reset", when="after", times=3)
        show_nothing(monkeypatch, looks=100)
        notes: dict[str, Any] = {}
        first = drive(make, notes, dag_version=1)
        assert "Tried 3 times" in str(first.error)
        second = drive(make, notes, try_number=2, dag_version=2)
        check_only_work(second, simulator)
        assert starts(simulator) == 4

    @pytest.mark.parametrize("shows", [True, False], ids=["metadata", "no metadata"])
    def test_is_found_although_the_record_is_hours_old(
        self, make: Make, simulator: Simulator, travel: TravelledClock, shows: bool
    ) -> None:
        simulator.workspace.configure(conflict="allowed", honour_idempotency=False, show_metadata=shows)
        notes = die_at(make, "after the record")
        travel.sleep(4 * 3600)
        theirs = start_theirs(simulator)
        fail_starts(simulator, "reset", when="after")
        run = drive(make, notes, try_number=2)
        assert run.error is None
        (one,) = [work for work in started(simulator) if work.id != theirs]
        assert id_of(run) == one.id

    def test_of_a_killed_task_is_found_and_cancelled(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api_session, "SEARCH_DELAY_SECONDS", (5.0,))
        take(simulator, 60)
        simulator.fail("reset", route="trigger_sync", when="after")
        error, log = killed(simulator, sync(), route="get_job")
        (one,) = started(simulator)
        assert one.cancel_requested_at is not None
        assert "was asked to cancel" in " ".join([str(error), *log.lines])

    def test_three_times_fails_the_try(self, simulator: Simulator) -> None:
        simulator.fail("reset", route="trigger_sync", when="before", times=3)
        run = drive(sync)
        assert isinstance(run.error, PlanasonixTransportError)
        assert "Tried 3 times, and looked for a job each time" in str(run.error)

    def test_is_found_after_an_outage(self, simulator: Simulator) -> None:
        take(simulator, 0)
        simulator.fail("reset", route="trigger_sync", when="after")
        simulator.fail("status", route="list_jobs", status=503, times=2)
        run = drive(sync)
        assert run.error is None
        assert id_of(run) == started(simulator)[0].id


@pytest.mark.parametrize("deferrable", [False, True])
def test_nothing_is_started_after_the_deadline(make: Make, simulator: Simulator, deferrable: bool) -> None:
    operator = make(execution_timeout=timedelta(seconds=10), deferrable=deferrable)
    late = context(Run())
    late["ti"].start_date = datetime.now(UTC) - timedelta(seconds=9.5)
    with pytest.raises(PlanasonixTimeoutError, match=r"was up before a (job|backfill) could be started"):
        operator.execute(late)
    assert started(simulator) == []


def test_nothing_is_started_if_storing_the_record_took_too_long(
    make: Make, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    whole = AttemptStore.write

    def slow(records: AttemptStore, record: Any) -> None:
        travel.sleep(20)
        whole(records, record)

    monkeypatch.setattr(AttemptStore, "write", slow)
    run = drive(lambda: make(timeout=15, deferrable=deferrable))
    assert isinstance(run.error, PlanasonixTimeoutError)
    assert starts(simulator) == 0
    assert run.notes == {}, "the next try has nothing to search for"


@pytest.mark.usefixtures("travel")
class TestRefusedStart:
    """It has started nothing, so the next try must not mistake the work of others for its own."""

    @pytest.mark.parametrize("on_conflict", ["fail", "skip"])
    def test_after_a_conflict_does_not_claim_the_conflicting_work(self, simulator: Simulator, on_conflict: str) -> None:
        take(simulator, 60)
        notes: dict[str, Any] = {}
        theirs = start_theirs(simulator)
        drive(lambda: sync(on_conflict=on_conflict), notes)
        second = drive(lambda: sync(on_conflict=on_conflict, timeout=0.2), notes, try_number=2)
        assert isinstance(second.error, (PlanasonixConflictError, AirflowSkipException))
        third = drive(lambda: sync(on_conflict=on_conflict), notes, try_number=3, max_tries=5)
        assert isinstance(third.error, (PlanasonixConflictError, AirflowSkipException))
        assert simulator.job(theirs).cancel_requested_at is None

    @pytest.mark.parametrize("status", [400, 401, 403])
    def test_does_not_claim_later_work(self, simulator: Simulator, status: int) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, 0.2)
        notes: dict[str, Any] = {}
        simulator.fail("status", route="trigger_sync", status=status)
        assert drive(sync, notes).error is not None
        theirs = start_theirs(simulator)
        run = drive(sync, notes, try_number=2)
        assert run.error is None
        assert id_of(run) != theirs


class TestKillDuringTheStart:
    def test_cancels_the_work(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 60)
        fail_starts(simulator, "hang", when="after", seconds=0.5)
        killed(simulator, make(), route=START_ROUTES[make is backfill], is_answered=False)
        (one,) = started(simulator)
        assert one.status in ("cancelling", "cancelled")

    def test_by_a_timeout_cancels_the_work(self, make: Make, simulator: Simulator) -> None:
        take(simulator, 60)
        fail_starts(simulator, "hang", when="after", seconds=0.5)

        def time_out() -> None:
            raise Killed

        operator = make()
        with pytest.raises(Killed), signalled(time_out, when=lambda: starts(simulator) == 1):
            operator.execute(context(Run()))
        # As Airflow does at the end of execution_timeout.
        operator.on_kill()
        (one,) = started(simulator)
        assert one.status in ("cancelling", "cancelled")

    def test_with_a_slow_api_ends_within_five_seconds(
        self, simulator: Simulator, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take(simulator, 60)
        operator, took = sync(), []
        record(operator, (run := Run()).log)

        async def slow(*_: object) -> list[Any]:
            await asyncio.sleep(1.2)
            return []

        def kill() -> None:
            began = travel.passed
            operator.on_kill()
            took.append(travel.passed - began)

        monkeypatch.setattr("planasonix_provider.execution.on_kill.search", slow)
        at_that_moment(monkeypatch, kill)
        with pytest.raises(TaskKilledError, match="cannot be seen yet"):
            operator.execute(context(run))
        assert took[0] < 5 - 1
        assert started(simulator)[0].cancel_requested_at
