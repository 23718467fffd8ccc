from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
)
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.support.scenarios import CONNECTION, is_asked, meanwhile, routes_asked, sync
from tests.support.task_runs import Log, Run, context, drive, record
from tests.support.time_travel import travelling


class TestASyncThatDoesNotSucceed:
    def test_fails_with_the_code_and_message_of_the_api(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route to the source")
        run = drive(lambda: sync(deferrable=deferrable))
        job = simulator.jobs()[0]
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert str(run.error) == (
            f"Job {job.id} failed: source_unreachable: No route to the source. See {simulator.url}/jobs/{job.id}"
        )
        assert "get_job_results" not in routes_asked(simulator)

    def test_fails_when_somebody_cancels_its_job(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with meanwhile(lambda: simulator.workspace.cancel(simulator.jobs()[0].id), once=is_asked(simulator, "get_job")):
            run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, PlanasonixJobCancelledError)

    @pytest.mark.parametrize("limit", [{"timeout": 0.3}, {"timeout": timedelta(seconds=0.3)}, {"timeout": "0.3"}])
    @pytest.mark.usefixtures("travel")
    def test_is_cancelled_when_its_time_is_up(
        self, simulator: Simulator, deferrable: bool, limit: dict[str, Any]
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, **limit))
        job = simulator.jobs()[0]
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert re.fullmatch(
            rf"Job {job.id} was not over by \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, when the task's timeout was up; "
            r"it was (queued|running)\. It was asked to cancel\.",
            str(run.error),
        )
        assert job.status in ("cancelling", "cancelled")

    @pytest.mark.usefixtures("travel")
    def test_gives_up_at_the_earlier_of_both_limits(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        run = drive(
            lambda: sync(deferrable=True, timeout=3600, execution_timeout=timedelta(seconds=0.3)),
        )
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "when the task's execution_timeout was up" in str(run.error)

    @pytest.mark.usefixtures("travel")
    def test_ends_its_execution_timeout_a_little_early_the_same_way_on_a_worker(
        self, simulator: Simulator, deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, execution_timeout=timedelta(seconds=1)))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "when the task's execution_timeout was up" in str(run.error)

    def test_counts_its_execution_timeout_from_the_tasks_start_as_airflow_does(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        waiting = context(Run())
        waiting["ti"].start_date = began = datetime.now(UTC) - timedelta(minutes=5)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, execution_timeout=timedelta(minutes=10)).execute(waiting)
        deadline = datetime.fromisoformat(deferred.value.trigger.serialize()[1]["deadline"])
        assert deadline == began + timedelta(minutes=10) - timedelta(seconds=30)

    @pytest.mark.usefixtures("travel")
    def test_leaves_it_to_the_next_try_if_it_could_not_be_cancelled(
        self, simulator: Simulator, deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
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

    @pytest.mark.usefixtures("travel")
    def test_ends_nothing_of_others_in_the_next_try(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        other = simulator.workspace.start_sync(CONNECTION)
        notes: dict[str, Any] = {}
        for number in (1, 2):
            run = drive(
                lambda: sync(deferrable=deferrable, on_conflict="attach", timeout=0.3), notes, try_number=number
            )
            assert isinstance(run.error, PlanasonixTimeoutError)
        assert simulator.job(other.id).cancel_requested_at is None
        assert len(simulator.jobs()) == 1

    def test_that_failed_just_before_the_cancel_still_tells_why(
        self, simulator: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=300, outcome="failed", code="source_unreachable")
            run = drive(lambda: sync(deferrable=deferrable, timeout=400, poll_interval=600))
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert "source_unreachable" in str(run.error)

    @pytest.mark.usefixtures("travel")
    def test_runs_on_after_the_deadline_where_the_user_says_so(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.3, cancel_on_kill=False))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert str(run.error).endswith("It was not cancelled, and runs on.")
        assert simulator.jobs()[0].status == "running"

    def test_succeeds_if_it_was_over_when_the_cancel_came(
        self, simulator: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=300)
            run = drive(lambda: sync(deferrable=deferrable, timeout=400, poll_interval=600))
        assert run.error is None
        assert run.result["status"] == "succeeded"
        assert run.result["metrics"]["rows_loaded"] == 44_802

    def test_hands_airflow_a_later_timeout_as_a_backstop(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, timeout=100).execute(context(Run()))
        assert deferred.value.timeout is not None
        assert 100 + 60 < deferred.value.timeout.total_seconds() < 100 + 3600

    def test_gives_airflow_time_to_see_it_go(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(seconds=7))
        simulator.plan(CONNECTION, running_seconds=60)
        before = datetime.now(UTC)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True).execute(context(Run()))
        not_before = datetime.fromisoformat(deferred.value.trigger.serialize()[1]["not_before"])
        assert before + timedelta(seconds=7) <= not_before <= datetime.now(UTC) + timedelta(seconds=7)

    def test_has_no_deadline_unless_one_is_asked_for(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True).execute(context(Run()))
        assert deferred.value.timeout is None
        assert deferred.value.trigger.serialize()[1]["deadline"] is None


class TestFaultsMeanwhile:
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
    def test_that_pass_are_waited_out(
        self,
        simulator: Simulator,
        deferrable: bool,
        kind: Any,
        status: int | None,
        headers: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with travelling(monkeypatch):
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
    def test_that_no_retry_can_mend_end_the_retries(self, simulator: Simulator, status: int, words: str) -> None:
        simulator.fail("status", route="trigger_sync", status=status)
        run = drive(sync)
        assert isinstance(run.error, AirflowFailException)
        assert f"POST /api/v1/connections/{CONNECTION}/sync: answered {status}" in str(run.error)
        assert words in str(run.error)

    def test_an_unknown_connection_is_named(self, simulator: Simulator) -> None:
        run = drive(lambda: sync(connection_id="conn_unknown"))
        assert isinstance(run.error, AirflowFailException)
        assert "/connections/conn_unknown/sync: answered 404" in str(run.error)

    def test_a_wrong_key_leaves_the_retries_for_it_may_be_being_rotated(self, simulator: Simulator) -> None:
        simulator.fail("status", route="trigger_sync", status=401)
        run = drive(sync)
        assert isinstance(run.error, PlanasonixAuthenticationError)

    def test_a_key_that_is_rotated_before_the_results_fails_nothing(
        self, simulator: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.fail("status", status=401, route="get_job_results")
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None

    def test_an_xcom_that_cannot_be_written_abandons_no_job(self, simulator: Simulator) -> None:
        operator = sync()
        record(operator, log := Log())
        waiting = context(Run())

        def down(key: str, value: str) -> None:
            raise ConnectionError("the API server is down")

        waiting["ti"].xcom_push = down
        assert operator.execute(waiting)["status"] == "succeeded"
        assert any("could not be written" in line for line in log.lines)

    @pytest.mark.usefixtures("travel")
    def test_an_unwritable_record_at_the_deadline_does_not_promise_a_running_job(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def down(_: AttemptStore) -> None:
            raise ConnectionError("the API server is down")

        monkeypatch.setattr(AttemptStore, "give_up", down)
        simulator.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(timeout=0.1))
        assert run.log.lines[-1] == (
            "That the time is up could not be written down (ConnectionError('the API server is down')): if the job "
            "still runs, a retry goes on with it instead of cancelling it."
        )

    def test_a_job_that_is_gone_fails_the_task(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.fail("status", status=404, route="get_job", times=None)
        run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, AirflowFailException)
        assert "answered 404" in str(run.error)

    def test_results_that_are_late_are_waited_for(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.fail("status", status=409, route="get_job_results", times=2)
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        assert run.result["tables_total"] >= 1
        assert routes_asked(simulator).count("get_job_results") == 3
