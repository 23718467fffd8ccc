"""Outages of the API: a task waits until they end, or fails so that the next try continues."""

from __future__ import annotations

import json
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from dev.processes import free_port
from planasonix_provider.__main__ import main
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
    PlanasonixTransportError,
)
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.deferral import DEFER_TIMEOUT_MARGIN
from planasonix_provider.waiting.cancellation import CANCEL_TIMEOUT_SECONDS
from tests.conftest import API_KEY
from tests.support.attempts import check_only_work, die_at, id_of, old_work
from tests.support.hanging_responses import Hanging
from tests.support.outages import KINDS, MINUTE, PROXY_STATUSES, outage
from tests.support.scenarios import CONNECTION, ENDED, backfill, killed, routes_asked, started, starts, sync
from tests.support.task_runs import Log, drive
from tests.support.time_travel import BEGAN, TravelledClock, simulated_time, steps_while_asleep

HOUR = 60 * MINUTE
Make = Callable[..., BaseOperator]


def first_is_quick(cases: Iterable[str | int]) -> list[Any]:
    """Return the cases as parameters of a fixture; only the tests of the first are part of ``make test``."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow("repeats an hour of polls")) for case in others)]


@pytest.fixture
def travel(simulator: Simulator) -> Iterator[TravelledClock]:
    with simulated_time() as travel:
        yield travel


@pytest.fixture(params=[sync, backfill], ids=["sync", "backfill"])
def make(request: pytest.FixtureRequest, deferrable: bool) -> Make:
    return lambda **more: request.param(**{"deferrable": deferrable, "poll_interval": 2 * MINUTE, **more})


@pytest.fixture(params=first_is_quick(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=first_is_quick(PROXY_STATUSES))
def status(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=first_is_quick([*KINDS, *PROXY_STATUSES]))
def any_kind(request: pytest.FixtureRequest) -> str | int:
    """An outage, or a proxy that refuses requests. Its response says nothing about the work itself."""
    kind: str | int = request.param
    return kind


@pytest.fixture(autouse=True)
def _a_short_refusal() -> None:
    """Override the fixture of the package: time is simulated here, so a minute of refusals passes at once."""


def take(simulator: Simulator, seconds: float) -> None:
    """Plan how long all work runs; it ends five seconds after its cancel."""
    how: dict[str, Any] = {"times": None, "queued_seconds": 0, "cancelling_seconds": 5}
    simulator.plan(CONNECTION, **how, running_seconds=seconds)
    simulator.plan_backfill(CONNECTION, **how, jobs=1, job_seconds=seconds)


class TestOutageOfFortyMinutes:
    def test_during_the_wait(
        self, make: Make, simulator: Simulator, travel: TravelledClock, any_kind: str | int
    ) -> None:
        take(simulator, HOUR)
        with outage(travel, any_kind, after=5 * MINUTE, seconds=40 * MINUTE):
            run = drive(make)
        check_only_work(run, simulator)
        assert "still waiting" in run.said
        assert any(re.match(r"Planasonix answers again, after (39|40) min", line) for line in run.log.lines)
        assert "cancel_job" not in routes_asked(simulator)

    def test_during_a_start(self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str) -> None:
        take(simulator, MINUTE)
        # The first request gets a response, so the host cannot be mistyped.
        with outage(travel, kind, after=lambda: bool(routes_asked(simulator)), seconds=40 * MINUTE):
            run = drive(make)
        one = check_only_work(run, simulator)
        assert starts(simulator) == 1
        assert one.created_at - BEGAN >= timedelta(minutes=39)

    def test_during_the_next_try(
        self, make: Make, simulator: Simulator, travel: TravelledClock, any_kind: str | int
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        notes = state_after_outage(make, simulator, travel)
        with outage(travel, any_kind, after=travel.passed, seconds=40 * MINUTE):
            run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)

    @pytest.mark.slow("simulates an hour of polls")
    def test_during_the_cancel_of_a_cleared_task(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str
    ) -> None:
        take(simulator, 3 * HOUR)
        notes: dict[str, Any] = {}
        first = drive(lambda: make(timeout=MINUTE, cancel_on_kill=False), notes)
        assert isinstance(first.error, PlanasonixTimeoutError)
        take(simulator, MINUTE)
        with outage(travel, kind, after=travel.passed, seconds=40 * MINUTE, route="/cancel"):
            run = drive(make, notes, try_number=2, max_tries=3)
        assert old_work(run, simulator).status == "cancelled"
        assert "yet, still trying" in run.said

    def test_during_the_fetch_of_results(
        self, make: Make, simulator: Simulator, travel: TravelledClock, any_kind: str | int
    ) -> None:
        take(simulator, 10 * MINUTE)
        with outage(travel, any_kind, after=lambda: is_over(simulator), seconds=40 * MINUTE, route="/results"):
            run = drive(make)
        assert run.error is None
        assert id_of(run) == started(simulator)[0].id
        assert travel.passed > 45 * MINUTE

    def test_does_not_mistake_work_of_others_for_its_own(self, simulator: Simulator, travel: TravelledClock) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, MINUTE)
        simulator.fail("reset", route="trigger_sync", when="before")
        theirs: list[str] = []

        def start_theirs() -> None:
            theirs.append(simulator.workspace.start_sync(CONNECTION).id)

        # Planasonix's own schedule starts syncs during the outage.
        is_down = outage(travel, "refused", after=lambda: bool(routes_asked(simulator)), seconds=40 * MINUTE)
        with is_down, steps_while_asleep(travel, (lambda: travel.passed > 30 * MINUTE, start_theirs)):
            run = drive(lambda: sync(poll_interval=MINUTE))
        assert run.error is None
        assert id_of(run) not in theirs

    def test_a_start_that_may_have_been_lost_keeps_its_key(self, simulator: Simulator, travel: TravelledClock) -> None:
        simulator.fail("reset", route="trigger_sync", when="before")
        with outage(travel, "refused", after=lambda: starts(simulator) > 0, seconds=20 * MINUTE, route="/sync"):
            run = drive(lambda: sync(poll_interval=MINUTE))
        assert run.error is None
        assert travel.passed > 20 * MINUTE
        sent = [one.headers["idempotency-key"] for one in simulator.requests if one.route == "trigger_sync"]
        assert len(sent) == 2
        assert len(set(sent)) == 1


@pytest.mark.slow("simulates an hour of polls")
@pytest.mark.parametrize("minutes", [40, 90])
def test_a_restart_of_the_server_neither_loses_nor_doubles_work(
    make: Make, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    with Simulator(api_key=API_KEY, port=free_port()) as server, simulated_time() as travel:
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(server.airflow_connection()))
        take(server, 2 * HOUR)
        end = (5 + minutes) * MINUTE
        steps = ((lambda: travel.passed > 5 * MINUTE, server.stop), (lambda: travel.passed > end, server.start))
        notes: dict[str, Any] = {}
        with steps_while_asleep(travel, *steps):
            run = drive(make, notes)
            if minutes > 60:
                assert isinstance(run.error, PlanasonixOutageError)
                run = drive(make, notes, try_number=2)
        work = server.backfills() or server.jobs()
    assert run.error is None
    assert [one.id for one in work] == [id_of(run)]
    assert travel.passed > end


def is_over(simulator: Simulator) -> bool:
    return bool(started(simulator)) and started(simulator)[0].is_over


def state_after_outage(
    make: Make, simulator: Simulator, travel: TravelledClock, kind: str = "503", takes: float = 4 * HOUR
) -> dict[str, Any]:
    """Run a try that an outage ends, and return its state store."""
    take(simulator, takes)
    notes: dict[str, Any] = {}
    with outage(travel, kind, after=5 * MINUTE, seconds=2 * HOUR):
        run = drive(make, notes)
        assert HOUR < travel.passed < 1.5 * HOUR
    assert isinstance(run.error, PlanasonixOutageError)
    assert re.search(
        r"No news of (job|backfill) \w+ since 2025-03-27 14:2\d:\d\d UTC, for more than 1 h", str(run.error)
    )
    assert "was not cancelled and may still run: a retry goes on with it" in str(run.error)
    assert "cancel_job" not in routes_asked(simulator)
    travel.sleep(2 * HOUR)
    return notes


class TestHostThatNeverAnswered:
    """It may be mistyped, so a task does not try for an hour."""

    @pytest.fixture
    def closed_url(self, travel: TravelledClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # bound and not listening: it refuses connections, and the port is taken
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            connection = {"conn_type": "planasonix", "host": url, "password": API_KEY}
            monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(connection))
            yield url

    def test_fails_a_start_within_two_minutes(
        self, make: Make, closed_url: str, travel: TravelledClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        notes: dict[str, Any] = {}
        # Only simulates the pauses between retries; the host itself refuses connections.
        with outage(travel, "refused", seconds=0):
            run = drive(make, notes)
        assert isinstance(run.error, PlanasonixTransportError)
        assert 100 < travel.passed <= 2 * MINUTE
        assert f"connection refused at {closed_url}. Check the host and port of Airflow connection" in str(run.error)
        assert "Nothing has ever answered there" in str(run.error)
        lines = [*run.log.lines, *(one.message for one in caplog.records if "Trying again" in one.message)]
        assert len([line for line in lines if closed_url in line]) <= 3
        assert notes == {}, "the next try has nothing to search for"

    @pytest.mark.parametrize("poke_interval", [10, 600])
    def test_fails_a_sensor_within_two_minutes(
        self, closed_url: str, travel: TravelledClock, mode: dict[str, Any], poke_interval: float
    ) -> None:
        run = drive(lambda: PlanasonixJobSensor(task_id="wait", job_id="job_1", poke_interval=poke_interval, **mode))
        assert isinstance(run.error, PlanasonixTransportError)
        assert 100 < travel.passed <= 2 * MINUTE
        assert f"connection refused at {closed_url}. Check the host and port of Airflow connection" in str(run.error)
        assert len(run.log.lines) <= 4

    @pytest.mark.slow("simulates an hour of polls")
    def test_a_retry_waits_for_a_host_that_answered_the_previous_try(
        self, make: Make, simulator: Simulator, travel: TravelledClock
    ) -> None:
        notes = state_after_outage(make, simulator, travel)
        with outage(travel, "refused", after=travel.passed, seconds=40 * MINUTE):
            run = drive(make, notes, try_number=2)
        assert run.error is None
        assert len(started(simulator)) == 1


class TestProxyThatRefuses:
    @pytest.mark.slow("simulates an hour of polls")
    def test_during_the_cancel_of_a_cleared_task(
        self, make: Make, simulator: Simulator, travel: TravelledClock, status: int
    ) -> None:
        simulator.workspace.configure(conflict="allowed")
        notes = state_after_outage(make, simulator, travel)
        take(simulator, MINUTE)
        with outage(travel, status, after=travel.passed, seconds=5 * MINUTE):
            run = drive(make, notes, try_number=2, max_tries=3)
        assert old_work(run, simulator).status == "cancelled"

    @pytest.mark.slow("simulates an hour of polls")
    def test_during_the_search_for_a_lost_start(
        self, make: Make, simulator: Simulator, travel: TravelledClock, status: int
    ) -> None:
        take(simulator, HOUR)
        notes = die_at(make, "after the answer")
        with outage(travel, status, after=travel.passed, seconds=5 * MINUTE):
            run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)


@pytest.mark.slow("simulates an hour of polls")
class TestRefusalByTheApi:
    """Replicas restart, and keys are rotated, so a refusal counts only after a minute."""

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_of_half_a_minute_is_tolerated(self, simulator: Simulator, travel: TravelledClock, status: int) -> None:
        simulator.workspace.configure(conflict="allowed")
        take(simulator, HOUR)
        notes = die_at(sync, "while it waited")
        simulator.fail("status", route="get_job", status=status, times=3)
        run = drive(lambda: sync(poll_interval=10), notes, try_number=2)
        check_only_work(run, simulator)

    @pytest.mark.parametrize("is_clear", [False, True])
    def test_that_persists_means_that_the_work_is_gone(
        self, simulator: Simulator, travel: TravelledClock, is_clear: bool
    ) -> None:
        take(simulator, HOUR)
        notes = die_at(sync, "while it waited")
        simulator.workspace.configure(conflict="allowed")
        simulator.fail("status", route="get_job", status=404, times=7)
        run = drive(lambda: sync(poll_interval=10), notes, try_number=2, max_tries=3 if is_clear else 2)
        assert run.error is None
        assert "is not there any more, starting again" in run.said
        assert id_of(run) == started(simulator)[1].id


class TestOutageOfMoreThanAnHour:
    @pytest.mark.slow("simulates an hour of polls")
    @pytest.mark.parametrize(
        ("takes", "outcome"),
        [
            (4 * HOUR, "which try 1 has started, still runs: this try goes on with it."),
            (2 * HOUR, "has succeeded: this try takes it over."),
        ],
        ids=["still runs", "has succeeded"],
    )
    def test_the_next_try_uses_the_work(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str, takes: float, outcome: str
    ) -> None:
        notes = state_after_outage(make, simulator, travel, kind, takes)
        run = drive(make, notes, try_number=2)
        check_only_work(run, simulator)
        assert outcome in run.said

    def test_fails_a_start_with_the_time_of_its_beginning(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str
    ) -> None:
        take(simulator, MINUTE)
        notes: dict[str, Any] = {}
        with outage(travel, kind, after=lambda: bool(routes_asked(simulator)), seconds=2 * HOUR):
            run = drive(make, notes)
        assert HOUR < travel.passed < 1.5 * HOUR
        assert isinstance(run.error, PlanasonixError)
        assert not isinstance(run.error, AirflowFailException), "Airflow retries"
        assert re.search(r"since 2025-03-27 14:2\d:\d\d UTC", str(run.error))
        assert started(simulator) == []
        travel.sleep(2 * HOUR)
        second = drive(make, notes, try_number=2)
        check_only_work(second, simulator)

    def test_during_the_fetch_of_results(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str
    ) -> None:
        take(simulator, MINUTE)
        notes: dict[str, Any] = {}
        with outage(travel, kind, after=lambda: is_over(simulator), seconds=2 * HOUR, route="/results"):
            run = drive(make, notes)
        assert isinstance(run.error, PlanasonixOutageError)
        travel.sleep(2 * HOUR)
        second = drive(make, notes, try_number=2)
        check_only_work(second, simulator)

    @pytest.mark.parametrize("minutes", [0.5, 1, 10])
    def test_ends_a_start_at_its_deadline(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str, minutes: float
    ) -> None:
        # A host that has never answered ends the start sooner.
        with outage(travel, kind, after=lambda: bool(simulator.requests), seconds=2 * HOUR):
            run = drive(lambda: make(timeout=minutes * MINUTE))
        assert isinstance(run.error, PlanasonixError)
        # A start without a response is searched for, because the work would keep running.
        more = 3 * MINUTE if kind == "silence" else MINUTE
        assert minutes * MINUTE <= travel.passed < minutes * MINUTE + more
        assert started(simulator) == []


def test_a_slow_list_of_existing_work_starts_nothing_after_the_deadline(
    make: Make, simulator: Simulator, travel: TravelledClock
) -> None:
    with (
        outage(travel, "silence", seconds=20, route="/v1/jobs"),
        outage(travel, "silence", seconds=20, route="/v1/backfills"),
    ):
        run = drive(lambda: make(timeout=20))
    assert isinstance(run.error, PlanasonixTimeoutError)
    assert starts(simulator) == 0
    assert run.notes == {}, "the next try has nothing to search for"


class TestOutageAtTheDeadline:
    @pytest.mark.slow("simulates an hour of polls")
    @pytest.mark.parametrize("seconds", [30, 5 * MINUTE])
    def test_delays_the_cancel(
        self, make: Make, simulator: Simulator, travel: TravelledClock, any_kind: str | int, seconds: float
    ) -> None:
        take(simulator, 5 * HOUR)
        with outage(travel, any_kind, after=30 * MINUTE - 1, seconds=seconds):
            run = drive(lambda: make(timeout=30 * MINUTE))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert str(run.error).endswith(("It was asked to cancel.", "It was cancelled."))
        (one,) = started(simulator)
        assert one.status in ENDED
        assert travel.passed < 30 * MINUTE + seconds + 3 * MINUTE

    @pytest.mark.slow("simulates an hour of polls")
    def test_that_is_too_long_ends_with_the_cancel_command(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str
    ) -> None:
        take(simulator, 5 * HOUR)
        with outage(travel, kind, after=30 * MINUTE - 1, seconds=HOUR):
            run = drive(lambda: make(timeout=30 * MINUTE))
        tried = travel.passed - 30 * MINUTE
        assert CANCEL_TIMEOUT_SECONDS - MINUTE < tried < DEFER_TIMEOUT_MARGIN.total_seconds(), (
            "before Airflow ends the deferral"
        )
        assert isinstance(run.error, PlanasonixTimeoutError)
        (one,) = started(simulator)
        assert one.status not in ENDED
        assert f"{one.id} was not over by" in str(run.error)
        assert "It could not be cancelled and may still run: " in str(run.error)
        assert any("cannot be cancelled yet, still trying: " in line and one.id in line for line in run.log.lines)
        travel.sleep(HOUR)
        assert run_printed_command(str(run.error)) == 0
        assert started(simulator)[0].status in ENDED


class TestClearDuringAnOutage:
    @pytest.mark.slow("simulates an hour of polls")
    def test_leaves_the_old_work_to_the_next_try(
        self, make: Make, simulator: Simulator, travel: TravelledClock, kind: str
    ) -> None:
        notes = state_after_outage(make, simulator, travel, kind, 9 * HOUR)
        take(simulator, MINUTE)
        with outage(travel, kind, after=travel.passed, seconds=2 * HOUR, route="/cancel"):
            run = drive(make, notes, try_number=2, max_tries=3)
        (one,) = started(simulator)
        assert f"{one.id} could not be cancelled and may still run: " in str(run.error)
        assert "To end it: `python -m" in str(run.error)
        assert not isinstance(run.error, AirflowFailException)
        travel.sleep(HOUR)
        third = drive(make, notes, try_number=3, max_tries=3)
        assert old_work(third, simulator).status == "cancelled"


class TestKillDuringAnOutage:
    @pytest.fixture(autouse=True)
    def _little_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("planasonix_provider.execution.on_kill.CANCEL_SECONDS_AFTER", 0.0)

    def kill_after_the_start(self, simulator: Simulator) -> tuple[BaseException, Log]:
        operator: Any = sync(poll_interval=60)
        return killed(simulator, operator, once=lambda: any("Started job" in line for line in operator._log.lines))

    def test_cancels_after_the_signal_handler(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", route="cancel_job", status=503, times=None)
        monkeypatch.setattr(OnKillHandler, "_read_key_again", lambda _: simulator.faults.clear())
        error, log = self.kill_after_the_start(simulator)
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert f"The task was killed. Job {job.id} cannot be cancelled yet, still trying: POST" in str(error)
        assert log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_logs_the_cancel_command(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", route="cancel_job", status=503, times=20)
        error, _ = self.kill_after_the_start(simulator)
        simulator._pipeline.faults.clear()
        assert run_printed_command(str(error)) == 0
        assert simulator.jobs()[0].status in ENDED

    def test_of_a_start_logs_the_command_that_lists_its_work(
        self, simulator: Simulator, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="trigger_sync", when="after")
        simulator.fail("status", route="list_jobs", status=503, times=None, skip=1)
        operator = sync()
        on_kill = operator.on_kill

        def kill() -> None:
            on_kill()
            hanging.ends()

        monkeypatch.setattr(operator, "on_kill", kill)
        error, log = killed(simulator, operator, route="trigger_sync", is_answered=False)
        said = " ".join([str(error), *log.lines])
        assert f"The work started on connection {CONNECTION} cannot be cancelled yet, still trying: " in said
        look = f"`python -m planasonix_provider jobs --connection-id {CONNECTION} --conn-id planasonix_default`"
        assert f"Check whether work of this task runs there, and cancel it: {look}" in said


def run_printed_command(message: str) -> int:
    """Run the command that a message contains, and return its exit code."""
    found = re.search(r"To end it: `(python -m planasonix_provider [^`]+)`", message)
    assert found, message
    return main(shlex.split(found[1])[3:])
