from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
)
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from planasonix_provider.waiting.targets import JobTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.support.scenarios import CONNECTION, routes_asked, sync
from tests.support.task_runs import Log, Run, context, drive, record
from tests.support.time_travel import simulated_time


def api_server_is_down(*_: Any, **__: Any) -> None:
    raise ConnectionError("the API server is down")


@pytest.mark.usefixtures("travel")
class TestDeadline:
    @pytest.fixture(autouse=True)
    def _job_that_takes_a_minute(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)

    @pytest.mark.parametrize("timeout", [0.3, timedelta(seconds=0.3), "0.3"])
    def test_the_job_is_cancelled(self, simulator: Simulator, deferrable: bool, timeout: Any) -> None:
        run = drive(lambda: sync(deferrable=deferrable, timeout=timeout))
        job = simulator.jobs()[0]
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert re.fullmatch(
            rf"Job {job.id} was not over by \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, when the task's timeout was up; "
            r"it was (queued|running)\. It was asked to cancel\.",
            str(run.error),
        )
        assert job.status in ("cancelling", "cancelled")

    @pytest.mark.parametrize("timeouts", [{}, {"timeout": 3600}], ids=["alone", "before timeout"])
    def test_execution_timeout_ends_the_wait_a_little_early(self, deferrable: bool, timeouts: dict[str, Any]) -> None:
        run = drive(lambda: sync(deferrable=deferrable, execution_timeout=timedelta(seconds=1), **timeouts))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "when the task's execution_timeout was up" in str(run.error)

    def test_the_next_try_repeats_a_failed_cancel(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.fail("status", status=403, route="cancel_job", times=None)
        notes: dict[str, Any] = {}
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.3), notes)
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "It could not be cancelled and may still run" in str(run.error)
        second = drive(lambda: sync(deferrable=deferrable), notes, try_number=2)
        assert isinstance(second.error, AirflowFailException), "no further try can cancel it either"
        assert "could not be cancelled and may still run" in str(second.error)
        simulator.faults.clear()
        third = drive(lambda: sync(deferrable=deferrable), notes, try_number=3, max_tries=3)
        new, old = simulator.jobs()
        assert (old.status, third.result["job_id"]) == ("cancelled", new.id)

    def test_the_job_of_others_is_not_cancelled_by_the_next_try(self, simulator: Simulator, deferrable: bool) -> None:
        other = simulator.workspace.start_sync(CONNECTION)
        notes: dict[str, Any] = {}
        for number in (1, 2):
            run = drive(
                lambda: sync(deferrable=deferrable, on_conflict="attach", timeout=0.3), notes, try_number=number
            )
            assert isinstance(run.error, PlanasonixTimeoutError)
        assert simulator.job(other.id).cancel_requested_at is None
        assert len(simulator.jobs()) == 1

    def test_the_job_keeps_running_without_cancel_on_kill(self, simulator: Simulator, deferrable: bool) -> None:
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.3, cancel_on_kill=False))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert str(run.error).endswith("It was not cancelled, and runs on.")
        assert simulator.jobs()[0].status == "running"

    def test_a_record_that_cannot_be_written_is_logged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(AttemptStore, "give_up", api_server_is_down)
        run = drive(lambda: sync(timeout=0.1))
        assert run.log.lines[-1] == (
            "The timeout could not be recorded (ConnectionError('the API server is down')): if the job "
            "still runs, a retry goes on with it instead of cancelling it."
        )


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_job_that_ended_before_the_cancel_keeps_its_outcome(
    simulator: Simulator, deferrable: bool, outcome: Any
) -> None:
    with simulated_time():
        simulator.plan(CONNECTION, running_seconds=300, outcome=outcome, code="source_unreachable")
        run = drive(lambda: sync(deferrable=deferrable, timeout=400, poll_interval=600))
    if outcome == "failed":
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert "source_unreachable" in str(run.error)
    else:
        assert run.error is None
        assert run.result["status"] == "succeeded"
        assert run.result["metrics"]["rows_loaded"] == 44_802


class TestDeferral:
    @staticmethod
    def deferred(simulator: Simulator, waiting: dict[str, Any] | None = None, **parameters: Any) -> Any:
        """Return the deferral, and the arguments of its trigger."""
        simulator.plan(CONNECTION, running_seconds=60)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, **parameters).execute(waiting or context(Run()))
        return deferred.value, deferred.value.trigger.serialize()[1]

    def test_execution_timeout_counts_from_the_start_of_the_task(self, simulator: Simulator) -> None:
        waiting = context(Run())
        waiting["ti"].start_date = began = datetime.now(UTC) - timedelta(minutes=5)
        _, arguments = self.deferred(simulator, waiting, execution_timeout=timedelta(minutes=10))
        expected = began + timedelta(minutes=10) - timedelta(seconds=30)
        assert datetime.fromisoformat(arguments["deadline"]) == expected

    def test_airflow_gets_a_later_timeout(self, simulator: Simulator) -> None:
        deferred, _ = self.deferred(simulator, timeout=100)
        assert 100 + 60 < deferred.timeout.total_seconds() < 100 + 3600

    def test_the_trigger_waits_for_the_end_of_the_process(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(seconds=7))
        before = datetime.now(UTC)
        _, arguments = self.deferred(simulator)
        not_before = datetime.fromisoformat(arguments["not_before"])
        assert before + timedelta(seconds=7) <= not_before <= datetime.now(UTC) + timedelta(seconds=7)

    def test_without_a_timeout_there_is_no_deadline(self, simulator: Simulator) -> None:
        deferred, arguments = self.deferred(simulator)
        assert (deferred.timeout, arguments["deadline"]) == (None, None)


class TestFaults:
    @pytest.mark.parametrize(
        ("kind", "status", "headers"),
        [
            ("reset", None, {}),
            ("cut", None, {}),
            ("html", 200, {}),
            ("html", 502, {}),
            ("empty", None, {}),
            ("status", 500, {}),
            ("status", 503, {}),
            ("status", 429, {"Retry-After": "0"}),
        ],
    )
    def test_of_polls_are_logged_and_tolerated(
        self,
        simulator: Simulator,
        deferrable: bool,
        kind: Any,
        status: int | None,
        headers: dict[str, str],
    ) -> None:
        with simulated_time():
            simulator.plan(CONNECTION, running_seconds=300)
            simulator.fail(kind, route="get_job", status=status, headers=headers, times=3, skip=1)
            simulator.fail(kind, route="get_job_results", status=status, headers=headers, times=1)
            run = drive(lambda: sync(deferrable=deferrable, poll_interval=30))
        assert run.error is None
        assert len(simulator.jobs()) == 1
        assert any(line.startswith("No news of job") for line in run.log.lines)
        assert any(line.startswith("Planasonix answers again") for line in run.log.lines)

    @pytest.mark.parametrize(
        ("status", "words"), [(400, "Correct what the answer names"), (403, "lacks the scope"), (404, "check the id")]
    )
    def test_that_a_retry_cannot_fix_end_the_retries(self, simulator: Simulator, status: int, words: str) -> None:
        simulator.fail("status", route="trigger_sync", status=status)
        run = drive(sync)
        assert isinstance(run.error, AirflowFailException)
        assert f"POST /api/v1/connections/{CONNECTION}/sync: answered {status}" in str(run.error)
        assert words in str(run.error)

    @pytest.mark.usefixtures("simulator")
    def test_an_unknown_connection_is_named(self) -> None:
        run = drive(lambda: sync(connection_id="conn_unknown"))
        assert isinstance(run.error, AirflowFailException)
        assert "/connections/conn_unknown/sync: answered 404" in str(run.error)

    def test_a_wrong_key_is_retried_because_it_may_be_rotating(self, simulator: Simulator) -> None:
        simulator.fail("status", route="trigger_sync", status=401)
        assert isinstance(drive(sync).error, PlanasonixAuthenticationError)

    def test_a_key_rotation_before_the_results_is_tolerated(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.fail("status", status=401, route="get_job_results")
        assert drive(lambda: sync(deferrable=deferrable)).error is None

    def test_results_that_are_late_are_waited_for(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.fail("status", status=409, route="get_job_results", times=2)
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        assert run.result["tables_total"] >= 1
        assert routes_asked(simulator).count("get_job_results") == 3

    @pytest.mark.usefixtures("simulator")
    def test_an_xcom_that_cannot_be_written_is_logged(self) -> None:
        operator = sync()
        record(operator, log := Log())
        waiting = context(Run())
        waiting["ti"].xcom_push = api_server_is_down
        assert operator.execute(waiting)["status"] == "succeeded"
        assert any("could not be written" in line for line in log.lines)


needs_events_for_retries = pytest.mark.skipif(
    not deferral.HAS_STALE_EVENTS, reason="this Airflow keeps no events for retries"
)


# A job must not end before its task is deferred.
@pytest.mark.usefixtures("travel")
class TestTheEventOfAnEarlierTry:
    """Airflow 3.0 passes it to the retry of a deferred task."""

    @needs_events_for_retries
    def test_starts_a_new_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, outcome="failed", message="No route.")
        first = drive(lambda: sync(deferrable=True))
        assert isinstance(first.error, PlanasonixJobFailedError)
        simulator.plan(CONNECTION)
        run = Run(notes=first.notes)
        retry = sync(deferrable=True)
        record(retry, run.log)
        with pytest.raises(TaskDeferred):
            retry.execute_complete(context(run, try_number=2), first.event)
        assert len(simulator.jobs()) == 2
        assert "Airflow passed the event of try 1 to this try, which does not use it." in run.log.lines

    @needs_events_for_retries
    def test_of_conflicting_work_starts_a_new_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        other = simulator.workspace.start_sync(CONNECTION)
        event = WaitEvent.over(JobTarget(other.id), simulator.job(other.id)).model_copy(update={"try_number": 1})
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, on_conflict="wait", timeout=3600).execute_after_conflict(
                context(Run(), try_number=2), event.to_payload()
            )
        assert deferred.value.trigger.deadline is not None
        assert len(simulator.jobs()) == 2

    @pytest.mark.skipif(deferral.HAS_STALE_EVENTS, reason="this Airflow also keeps events for retries")
    def test_is_used_if_airflow_repeats_the_end_of_that_try(self, simulator: Simulator) -> None:
        first = drive(lambda: sync(deferrable=True))
        event = first.event | {"try_number": 1}
        retry = sync(deferrable=True)
        assert retry.execute_complete(context(Run(notes=first.notes), try_number=2), event) == first.result
        assert len(simulator.jobs()) == 1

    def test_without_a_try_number_is_used(self, simulator: Simulator) -> None:
        first = drive(lambda: sync(deferrable=True))
        event = {name: value for name, value in first.event.items() if name != "try_number"}
        result = sync(deferrable=True).execute_complete(context(Run(notes=first.notes), try_number=2), event)
        assert result == first.result
        assert len(simulator.jobs()) == 1
