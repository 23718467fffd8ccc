from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from threading import Lock, current_thread, main_thread
from typing import Any, TypeVar
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from pytest_mock import MockerFixture

from planasonix_provider.api import rate_limiter
from planasonix_provider.api.client import ClientConfig
from planasonix_provider.api.headers import clock_skew
from planasonix_provider.execution import on_kill
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import task_state as triggers_killed
from planasonix_provider.triggers.task_state import ApiServerHealth
from planasonix_provider.waiting import outages, stall_detector
from planasonix_provider.waiting.cancellation import cancel
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from planasonix_provider.waiting.targets import Work
from tests.support.airflow_health import ApiServer, serving
from tests.support.attempts import is_seen
from tests.support.hanging_responses import Hanging
from tests.support.scenarios import (
    CONNECTION,
    ENDED,
    backfill,
    is_asked,
    killed,
    meanwhile,
    ring,
    routes_asked,
    signal_handler,
    signalled,
    sync,
    the_one,
)
from tests.support.task_runs import Log, Run, context, record
from tests.support.time_travel import TravelledClock
from tests.support.webhook_target import until

IS_AIRFLOW_2 = version("apache-airflow").startswith("2.")
needs_a_fragile_supervisor = pytest.mark.skipif(
    AIRFLOW_V_3_2_PLUS, reason="from Airflow 3.2 on, the supervisor survives a request that has no response"
)
Operator = TypeVar("Operator", bound=BaseOperator)
WITH_SHORT_TIMEOUTS = ClientConfig.with_short_timeouts


class AirflowTimeout(BaseException):
    """Airflow's signal handlers raise such exceptions, which interrupt any code."""


def time_out() -> None:
    raise AirflowTimeout


def with_recorded_log(operator: Operator) -> Operator:
    """Make the operator write to a log of the test."""
    record(operator, Log())
    return operator


def start_without_wait() -> PlanasonixSyncOperator:
    """Return a task that has started its job, and does not wait for it."""
    operator = with_recorded_log(sync(wait_for_completion=False))
    operator.execute(context(Run()))
    return operator


class TestKill:
    def test_cancels_the_job_and_ends_the_task(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=3600)
        _, log = killed(simulator, sync(poll_interval=3600), route="trigger_sync")
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert f"The task was killed. Job {job.id} was asked to cancel." in log.lines

    def test_sends_the_cancel_first_and_retries_it(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        operator = start_without_wait()
        simulator.fail("status", status=503, times=2)
        before = len(simulator.requests)
        operator.on_kill()
        assert routes_asked(simulator)[before:] == ["cancel_job"] * 3
        assert simulator.jobs()[0].status in ENDED

    def test_during_the_fetch_of_results_keeps_the_retries(self, simulator: Simulator) -> None:
        simulator.fail("status", route="get_job_results", status=503, headers={"Retry-After": "1"}, times=None)
        killed(simulator, sync(), route="get_job_results")
        assert simulator.jobs()[0].status == "succeeded"

    @pytest.mark.parametrize("status", [403, 404])
    def test_retries_a_refused_cancel(self, simulator: Simulator, status: int) -> None:
        simulator.plan(CONNECTION, running_seconds=3600)
        simulator.fail("status", status=status, route="cancel_job", times=1)
        _, log = killed(simulator, sync(), route="get_job")
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_logs_the_job_that_cannot_be_cancelled(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_AFTER", 0.0)
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", status=403, route="cancel_job", times=None)
        error, log = killed(simulator, sync(), route="get_job")
        (job,) = simulator.jobs()
        assert f"The task was killed. Job {job.id} could not be cancelled and may still run: POST" in log.lines[-1]
        assert f"The task was killed. Job {job.id} cannot be cancelled yet, still trying: POST" in str(error)
        for line in (log.lines[-1], str(error)):
            assert f"cancel {job.id} --conn-id planasonix_default`" in line
        assert str(error) in log.lines

    def test_does_not_wait_for_a_cancel_that_hangs(self, simulator: Simulator, mocker: MockerFixture) -> None:
        hurries = mocker.patch.object(
            ClientConfig, "with_short_timeouts", autospec=True, side_effect=WITH_SHORT_TIMEOUTS
        )
        simulator.plan(CONNECTION, running_seconds=600)
        operator = start_without_wait()
        simulator.fail("hang", route="cancel_job", seconds=600)
        operator.on_kill()
        assert simulator.jobs()[0].status in ENDED, "the second cancel request succeeded"
        hurries.assert_called_once()

    @pytest.mark.usefixtures("travel")
    def test_sends_a_cancel_again_that_a_timeout_has_interrupted(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="cancel_job", seconds=600)
        operator = with_recorded_log(sync(timeout=0.1))
        with pytest.raises(AirflowTimeout), signalled(time_out, when=is_asked(simulator, "cancel_job")):
            operator.execute(context(Run()))
        operator.on_kill()
        assert simulator.jobs()[0].status in ENDED

    def test_between_two_sends_of_the_start_starts_nothing(self, simulator: Simulator) -> None:
        simulator.fail("status", route="trigger_sync", status=503, headers={"Retry-After": "60"})
        killed(simulator, sync(), route="trigger_sync")
        assert simulator.jobs() == []

    @pytest.mark.parametrize("parameters", [{"wait_for_completion": False}, {"deferrable": True}])
    def test_during_the_push_of_xcoms_cancels_the_job(self, simulator: Simulator, parameters: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        operator = with_recorded_log(sync(**parameters))
        pushing = context(Run())
        pushing["ti"].xcom_push = lambda key, value: operator.on_kill()
        with pytest.raises(TaskKilledError, match="was asked to cancel"):
            operator.execute(pushing)
        assert simulator.jobs()[0].status in ENDED

    def test_after_a_long_wait_does_not_call_airflow(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture, travel: TravelledClock
    ) -> None:
        goes_on = mocker.patch("planasonix_provider.execution.on_kill.runs_elsewhere", return_value=True)
        monkeypatch.setattr(on_kill, "StallDetector", partial(stall_detector.StallDetector, now=travel.monotonic))
        simulator.plan(CONNECTION, running_seconds=10_000_000)
        operator = with_recorded_log(sync(poll_interval=600))
        with (
            pytest.raises(TaskKilledError, match="was asked to cancel"),
            signalled(operator.on_kill, when=lambda: travel.passed > 1_000),
        ):
            operator.execute(context(Run()))
        goes_on.assert_not_called()

    def test_writes_no_log_in_the_signal_handler(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        operator = sync()
        record(operator, log := Log())
        written: list[int] = []

        def kill() -> None:
            before = len(log.lines)
            operator.on_kill()
            written.append(len(log.lines) - before)

        with pytest.raises(TaskKilledError), signalled(kill, when=is_asked(simulator, "get_job")):
            operator.execute(context(Run()))
        assert written == [0]

    def test_during_the_update_of_the_rate_limiter_cancels_the_job(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        operator = with_recorded_log(sync())
        states: list[str] = []

        def kill() -> None:
            operator.on_kill()
            states.append(simulator.jobs()[0].status)

        def ring_with_lock(headers: Mapping[str, str]) -> timedelta | None:
            if current_thread() is main_thread() and simulator.jobs():
                ring()
            return clock_skew(headers)

        monkeypatch.setattr(rate_limiter, "clock_skew", ring_with_lock)
        with pytest.raises(TaskKilledError) as raised, signal_handler(kill):
            operator.execute(context(Run()))
        assert states[0] in ENDED
        assert "was asked to cancel" in str(raised.value)
        assert "cannot be cancelled yet" not in str(raised.value)

    def test_during_a_log_line_cancels_the_job(self, simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", status=503, route="cancel_job", times=1)
        operator = with_recorded_log(sync())
        states: list[str] = []

        def kill() -> None:
            with caplog.handler.lock or nullcontext():
                operator.on_kill()
            states.append(simulator.jobs()[0].status)

        with (
            caplog.at_level("INFO", "planasonix_provider"),
            pytest.raises(TaskKilledError, match="was asked to cancel"),
            signalled(kill, when=is_asked(simulator, "get_job")),
        ):
            operator.execute(context(Run()))
        assert states[0] in ENDED

    def test_ends_the_signal_handler_if_the_interrupted_code_blocks_the_cancel(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", 0.0)
        monkeypatch.setattr(on_kill, "MAX_OVERRUN_SECONDS", 0.2)
        simulator.plan(CONNECTION, running_seconds=60)
        operator = with_recorded_log(sync())
        lock = Lock()

        async def cancel_with_lock(*arguments: Any, **options: Any) -> Work:
            with lock:
                return await cancel(*arguments, **options)

        def kill() -> None:
            with lock:
                operator.on_kill()

        monkeypatch.setattr(on_kill, "cancel", cancel_with_lock)
        with (
            pytest.raises(TaskKilledError, match=r"cannot be cancelled yet, still trying: no result within 0\.2 s\."),
            signalled(kill, when=is_asked(simulator, "get_job")),
        ):
            operator.execute(context(Run()))
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert operator.log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."
        # The blocked cancel is sent, too.
        until(lambda: routes_asked(simulator).count("cancel_job") == 2)

    def test_after_the_end_logs_the_cancel(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        operator = start_without_wait()
        operator.on_kill()
        (job,) = simulator.jobs()
        assert operator.log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_cancels_nothing_without_cancel_on_kill(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        error, _ = killed(simulator, sync(cancel_on_kill=False), route="trigger_sync")
        (job,) = simulator.jobs()
        # On a slow machine, the kill may come before the response to the start.
        assert str(error).endswith(f"Job {job.id} was not cancelled, and runs on.")
        assert "cancel_job" not in routes_asked(simulator)

    def test_before_the_start_is_no_error(self, simulator: Simulator) -> None:
        sync().on_kill()
        assert simulator.requests == []

    def test_during_the_start_cancels_the_started_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("hang", route="trigger_sync", seconds=0.5)
        killed(simulator, sync(), route="trigger_sync", is_answered=False)
        assert simulator.jobs()[0].status in ENDED

    @pytest.mark.parametrize("status", [302, 403, 404])
    def test_during_the_start_searches_again_if_a_proxy_refuses(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        monkeypatch.setattr(outages, "RETRY_INTERVAL_SECONDS", 0.2)
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", 0.1)
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("reset", route="trigger_sync", when="after")
        # The first request lists the existing jobs. The next ones, of the task's search and of its kill, are refused.
        simulator.fail("html", route="list_jobs", status=status, skip=1, times=4)
        killed(simulator, sync(), once=lambda: [one.route for one in simulator.requests].count("list_jobs") >= 2)
        assert simulator.jobs()[0].status in ENDED

    def test_after_the_end_of_the_job_cancels_nothing(self, simulator: Simulator) -> None:
        operator = with_recorded_log(sync())
        operator.execute(context(Run()))
        operator.on_kill()
        assert "cancel_job" not in routes_asked(simulator)


class TestKillAfterASuspension:
    """The process was suspended for longer than Airflow's heartbeat timeout: the next try may have the job."""

    @pytest.fixture(autouse=True)
    def _suspended(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stall_detector, "STALL_FRACTION", 0.1 / 300)
        simulator.plan(CONNECTION, running_seconds=600)
        simulator.fail("hang", route="get_job", seconds=0.3)

    @pytest.fixture
    def goes_on(self, mocker: MockerFixture) -> MagicMock:
        return mocker.patch("planasonix_provider.execution.on_kill.runs_elsewhere", return_value=True)

    def test_leaves_the_job_to_the_next_try(self, simulator: Simulator, goes_on: MagicMock) -> None:
        _, log = killed(simulator, sync(), route="get_job")
        self._assert_left(simulator, log)

    def test_at_the_deadline_leaves_the_job_to_the_next_try(
        self,
        simulator: Simulator,
        goes_on: MagicMock,
        travel: TravelledClock,
        hanging: Hanging,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(on_kill, "StallDetector", partial(stall_detector.StallDetector, now=travel.monotonic))
        operator = sync(timeout=300)
        record(operator, log := Log())
        sleep = travel.sleep

        def be_killed(seconds: float) -> None:
            ring()
            sleep(seconds)

        def suspend() -> None:
            hanging.begins()
            travel.sleep(400)
            monkeypatch.setattr(travel, "sleep", be_killed)
            hanging.ends()

        with (
            pytest.raises(TaskKilledError),
            signal_handler(operator.on_kill),
            meanwhile(suspend, once=is_asked(simulator, "get_job")),
        ):
            operator.execute(context(Run()))
        self._assert_left(simulator, log)

    @pytest.mark.slow("waits for signals in real time")
    def test_calls_airflow_after_the_signal_handler(self, simulator: Simulator, goes_on: MagicMock) -> None:
        called_in_handler: list[bool] = []

        def inspect_stack(_: Any) -> bool:
            called_in_handler.append("on_kill" in {frame.function for frame in inspect.stack()})
            return True

        goes_on.side_effect = inspect_stack
        killed(simulator, sync(), route="get_job")
        assert called_in_handler == [False]

    @pytest.mark.usefixtures("goes_on")
    def test_after_a_timeout_leaves_the_job_to_the_next_try(self, simulator: Simulator) -> None:
        operator = with_recorded_log(sync())
        with pytest.raises(AirflowTimeout), signalled(time_out, when=lambda: is_seen(simulator)):
            operator.execute(context(Run()))
        operator.on_kill()
        assert "cancel_job" not in routes_asked(simulator)

    def test_a_deferral_is_not_treated_as_a_kill(self, simulator: Simulator, goes_on: MagicMock) -> None:
        operator = sync(deferrable=True)
        record(operator, log := Log())
        with pytest.raises(TaskDeferred):
            operator.execute(context(Run()))
        goes_on.assert_not_called()
        assert not any("killed" in line for line in log.lines)

    def test_cancels_the_job_if_no_try_follows(self, simulator: Simulator, goes_on: MagicMock) -> None:
        goes_on.return_value = False
        _, log = killed(simulator, sync(), route="get_job")
        (job,) = simulator.jobs()
        assert job.status in ENDED
        assert log.lines.count(f"The task was killed. Job {job.id} was asked to cancel.") == 1

    def test_leaves_the_job_to_the_next_try_if_airflow_is_down(self, simulator: Simulator, goes_on: MagicMock) -> None:
        goes_on.return_value = None
        _, log = killed(simulator, sync(), route="get_job")
        assert "cancel_job" not in routes_asked(simulator)
        (job,) = simulator.jobs()
        assert log.lines[-1] == (
            "The task was killed. Its process had stood still. Airflow could not be asked for the task's state. Job "
            f"{job.id} was not cancelled: the next try goes on with it."
        )

    def test_of_the_last_try_cancels_the_job(self, simulator: Simulator, goes_on: MagicMock) -> None:
        killed(simulator, sync(), route="get_job", try_number=3, max_tries=2)
        assert simulator.jobs()[0].status in ENDED
        goes_on.assert_not_called()

    @staticmethod
    def _assert_left(simulator: Simulator, log: Log) -> None:
        assert "cancel_job" not in routes_asked(simulator)
        (job,) = simulator.jobs()
        assert log.lines[-1] == (
            f"The task was killed. Its process had stood still. Job {job.id} was not cancelled: the next try goes on "
            "with it."
        )


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has no API server that tasks depend on")
class TestKillWhileTheApiServerIsDown:
    """Airflow kills a task after three failed heartbeats."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> Iterator[ApiServer]:
        simulator.plan(CONNECTION, running_seconds=600)
        with serving() as server:
            monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", server.execution_url)
            # The kill sends the second request. On a slow machine, its response takes longer than MAX_HEALTH_SECONDS.
            monkeypatch.setattr(triggers_killed, "MAX_HEALTH_SECONDS", 30)
            monkeypatch.setattr(on_kill, "MAX_SIGKILL_WAIT_SECONDS", 0.01)
            yield server

    @pytest.fixture
    def goes_on(self, mocker: MockerFixture) -> MagicMock:
        """The call that asks Airflow whether another try follows; Airflow does not answer it."""
        return mocker.patch("planasonix_provider.execution.on_kill.runs_elsewhere", return_value=None)

    def _killed(
        self, server: ApiServer, simulator: Simulator, operator: BaseOperator, **how: Any
    ) -> tuple[BaseException, Log]:
        """Stop the server once the task has reached it, then kill the task."""

        def is_away() -> bool:
            if server.answered:
                server.status = 503
            return server.status == 503

        return killed(simulator, operator, route="get_job", once=is_away, **how)

    def test_leaves_the_job_to_the_retry(self, server: ApiServer, simulator: Simulator, goes_on: MagicMock) -> None:
        _, log = self._killed(server, simulator, sync())
        assert "cancel_job" not in routes_asked(simulator)
        (job,) = simulator.jobs()
        why = "Airflow's API server does not answer, and Airflow kills tasks after three failed heartbeats."
        assert log.warnings == [
            f"The task was killed. {why} Job {job.id} is left to the retry, unless Airflow answers now.",
            f"The task was killed. {why} Airflow could not be asked for the task's state. Job {job.id} was not "
            "cancelled: the next try goes on with it.",
        ]

    @pytest.fixture
    def events(self, goes_on: MagicMock, mocker: MockerFixture) -> list[object]:
        """The seconds of each sleep, and "request" for each request to the supervisor."""
        events: list[object] = []
        mocker.patch.object(on_kill, "sleep", events.append)
        goes_on.side_effect = lambda ti: events.append("request")
        return events

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="the supervisor of Airflow 3.0 and 3.1 does not survive it")
    def test_sends_the_request_at_once_to_a_supervisor_that_survives_it(
        self, server: ApiServer, simulator: Simulator, events: list[object]
    ) -> None:
        self._killed(server, simulator, sync())
        assert events == ["request"]

    @needs_a_fragile_supervisor
    def test_waits_for_the_sigkill_before_a_request_that_the_supervisor_does_not_survive(
        self, server: ApiServer, simulator: Simulator, events: list[object]
    ) -> None:
        # tests/system/test_deaths.py shows that the process ends.
        self._killed(server, simulator, sync())
        assert events == [on_kill.MAX_SIGKILL_WAIT_SECONDS, "request"]

    @needs_a_fragile_supervisor
    def test_sends_the_request_at_once_if_the_server_answers_again(
        self, server: ApiServer, simulator: Simulator, events: list[object], mocker: MockerFixture
    ) -> None:
        mocker.patch.object(ApiServerHealth, "is_lost", side_effect=[True, False])
        self._killed(server, simulator, sync())
        assert events == ["request"]

    @needs_a_fragile_supervisor
    def test_waits_for_the_sigkill_if_the_task_waits_for_the_job_of_another(
        self, server: ApiServer, simulator: Simulator, events: list[object]
    ) -> None:
        simulator.workspace.start_sync(CONNECTION)
        self._killed(server, simulator, sync(on_conflict="wait"))
        assert events == [on_kill.MAX_SIGKILL_WAIT_SECONDS]

    @pytest.mark.parametrize("has_next_try", [True, False])
    def test_obeys_the_response_of_airflow(
        self, server: ApiServer, simulator: Simulator, goes_on: MagicMock, has_next_try: bool
    ) -> None:
        goes_on.return_value = has_next_try
        _, log = self._killed(server, simulator, sync())
        (job,) = simulator.jobs()
        assert (job.status in ENDED) is not has_next_try
        if not has_next_try:
            assert log.lines[-1] == f"The task was killed. Job {job.id} was asked to cancel."

    def test_of_the_last_try_cancels_the_job(self, server: ApiServer, simulator: Simulator, goes_on: MagicMock) -> None:
        killed(simulator, sync(), route="get_job", try_number=3, max_tries=2)
        assert simulator.jobs()[0].status in ENDED
        assert server.paths == []
        goes_on.assert_not_called()

    def test_cancels_the_job_at_once_if_the_server_answers(
        self, server: ApiServer, simulator: Simulator, goes_on: MagicMock
    ) -> None:
        killed(simulator, sync(), route="get_job", once=lambda: server.answered == 1)
        assert simulator.jobs()[0].status in ENDED
        assert len(server.paths) == 2
        goes_on.assert_not_called()


class TestKillOfABackfill:
    def test_cancels_all_jobs_and_those_that_appear_later(self, simulator: Simulator) -> None:
        simulator.plan_backfill(
            CONNECTION,
            queued_seconds=0,
            jobs=9,
            parallel=4,
            job_seconds=60,
            jobs_after_cancel=2,
            cancelling_seconds=0.1,
        )
        _, log = killed(simulator, backfill(poll_interval=60), route="trigger_backfill")
        assert the_one(simulator).status == "cancelled"
        assert [job.status for job in simulator.jobs()] == ["cancelled"] * 6
        assert f"The task was killed. Backfill {the_one(simulator).id} was asked to cancel." in log.lines

    def test_cancels_known_jobs_first(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", 0.2)
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_AFTER", 0.0)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=2, job_seconds=60)
        # Only the first poll names the jobs.
        simulator.fail("status", route="get_backfill", status=503, skip=1, times=None)
        killed(simulator, backfill(poll_interval=0.05), route="get_backfill")
        one, other = simulator.jobs()
        assert {one.status, other.status} <= set(ENDED)

    def test_logs_that_the_backfill_may_go_on(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", 0.2)
        simulator.plan_backfill(CONNECTION, queued_seconds=60)
        _, log = killed(simulator, backfill(poll_interval=60), route="trigger_backfill")
        assert "may go on: its jobs so far were asked to cancel. To end it: `python -m" in log.lines[-1]

    def test_cancels_nothing_without_cancel_on_kill(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=60)
        killed(simulator, backfill(poll_interval=60, cancel_on_kill=False), route="trigger_backfill")
        assert "cancel_job" not in routes_asked(simulator)

    @pytest.mark.usefixtures("travel")
    def test_interrupts_the_cancel_at_the_deadline(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_kill, "CANCEL_SECONDS_IN_HANDLER", 1.0)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=4, job_seconds=60, cancelling_seconds=1_000_000)
        killed(simulator, backfill(timeout=0.3), route="cancel_job")
        assert {job.status for job in simulator.jobs()} <= set(ENDED)

    @pytest.mark.slow("waits for signals in real time")
    def test_interrupts_that_cancel_with_an_exception_of_airflow_2(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=22, parallel=22, job_seconds=60)
        simulator.fail("hang", route="cancel_job", skip=2, times=3, seconds=600)
        # Long enough for a slow machine to start.
        operator = with_recorded_log(backfill(timeout=5))

        def terminate() -> None:
            # Airflow 2 raises an exception of its own after ``on_kill``.
            operator.on_kill()
            time_out()

        with (
            pytest.raises(AirflowTimeout),
            signalled(terminate, when=lambda: routes_asked(simulator).count("cancel_job") >= 5),
        ):
            operator.execute(context(Run()))
        assert {job.status for job in simulator.jobs()} <= set(ENDED)
