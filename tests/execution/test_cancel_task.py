from __future__ import annotations

import signal
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixServerError, PlanasonixTimeoutError
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import shared_client
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from tests.support.scenarios import CONNECTION, killed, meanwhile, ring, routes_asked
from tests.support.task_runs import Log, Run, context, drive, record

WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


def cancel(**parameters: Any) -> PlanasonixCancelJobOperator:
    return PlanasonixCancelJobOperator(**{"task_id": "stop", "poll_interval": 0.03, **parameters})


class TestAJob:
    def test_is_cancelled_and_waited_for(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=0.1)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: cancel(job_id=job.id))
        assert run.error is None
        assert simulator.job(job.id).status == "cancelled"
        assert (run.result["job_id"], run.result["status"]) == (job.id, "cancelled")
        assert run.xcoms["job_url"] == f"{simulator.url}/jobs/{job.id}"
        assert run.log.lines[0] == f"Job {job.id} was asked to cancel: it is cancelling."

    def test_is_not_waited_for_without_wait_for_completion(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: cancel(job_id=job.id, wait_for_completion=False))
        assert run.result["status"] == "cancelling"
        assert routes_asked(simulator) == ["cancel_job"]

    @pytest.mark.parametrize("outcome", ["succeeded", "failed"])
    def test_that_is_over_stays_as_it_is(self, simulator: Simulator, outcome: Any) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0, outcome=outcome)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: cancel(job_id=job.id))
        assert run.error is None
        assert (run.result["status"], run.result["metrics"]["rows_loaded"] is not None) == (outcome, True)
        assert run.log.lines == [f"Job {job.id} is over: it is {outcome}."]

    def test_that_does_not_exist_fails_the_task_without_a_retry(self, simulator: Simulator) -> None:
        run = drive(lambda: cancel(job_id="job_unknown"))
        assert isinstance(run.error, AirflowFailException)
        assert "POST /api/v1/jobs/job_unknown/cancel: answered 404" in str(run.error)

    def test_is_cancelled_through_faults(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        simulator.fail("reset", route="cancel_job", when="after", times=2)
        simulator.fail("status", route="get_job", status=503, times=3)
        assert drive(lambda: cancel(job_id=job.id)).error is None
        assert simulator.job(job.id).status == "cancelled"

    def test_is_left_to_the_retries_during_an_outage(self, simulator: Simulator) -> None:
        simulator.fail("status", route="cancel_job", status=503, times=None)
        assert isinstance(drive(lambda: cancel(job_id="job_1")).error, PlanasonixServerError)

    @pytest.mark.usefixtures("travel")
    def test_that_takes_too_long_to_end_fails_the_task(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: cancel(job_id=job.id, timeout=timedelta(seconds=0.2)))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert f"Job {job.id} was not over by" in str(run.error)


@pytest.mark.parametrize("given", ["None", "", " "])
@pytest.mark.parametrize("name", ["job_id", "backfill_id"])
def test_a_template_that_renders_to_nothing_sends_no_request(simulator: Simulator, name: str, given: str) -> None:
    task = cancel(**{name: "{{ ti.xcom_pull(task_ids='start', key='job_id') }}"})
    setattr(task, name, given)
    run = drive(lambda: task)
    assert isinstance(run.error, AirflowFailException)
    assert str(run.error) == (
        f"{name}: got {given!r}, allowed is an id as Planasonix gives it. A template that renders to nothing gives "
        "such a value: check the task and the key that it pulls from."
    )
    assert simulator.requests == []


def test_a_native_template_that_renders_to_none_sends_no_request(simulator: Simulator) -> None:
    task = cancel(job_id="{{ ti.xcom_pull(task_ids='start', key='job_id') }}")
    task.job_id = None
    run = drive(lambda: task)
    assert isinstance(run.error, AirflowFailException)
    assert "allowed is one of the two. A template that renders to nothing gives such a value" in str(run.error)
    assert simulator.requests == []


class TestABackfill:
    def test_is_cancelled_with_the_jobs_that_it_creates_later(self, simulator: Simulator) -> None:
        simulator.plan_backfill(
            CONNECTION, queued_seconds=0, jobs=9, job_seconds=60, jobs_after_cancel=3, cancelling_seconds=0.2
        )
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: cancel(backfill_id=backfill.id))
        assert run.error is None
        assert simulator.backfill(backfill.id).status == "cancelled"
        assert {job.status for job in simulator.jobs()} == {"cancelled"}
        assert (run.result["backfill_id"], run.result["status"]) == (backfill.id, "cancelled")

    def test_cancels_the_oldest_job_after_many_finished_ones(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=60, parallel=60, job_seconds=60)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        oldest, *others = simulator.backfill(backfill.id).job_ids or []
        for job_id in others:
            simulator.workspace.cancel(job_id)
        run = drive(lambda: cancel(backfill_id=backfill.id))
        assert run.error is None
        assert simulator.job(oldest).status == "cancelled"

    def test_cancels_each_job_once(self, simulator: Simulator) -> None:
        simulator.plan_backfill(
            CONNECTION, queued_seconds=0, jobs=30, parallel=30, job_seconds=60, cancelling_seconds=0.3
        )
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        assert drive(lambda: cancel(backfill_id=backfill.id)).error is None
        assert routes_asked(simulator).count("cancel_job") == 30

    @pytest.mark.usefixtures("travel")
    def test_without_jobs_is_waited_for(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0.2, jobs=2, job_seconds=60)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: cancel(backfill_id=backfill.id))
        assert run.result["status"] == "cancelled"
        assert "is queued and has made no jobs yet; they are cancelled as they come." in run.log.lines[0]

    def test_without_jobs_is_an_error_without_wait_for_completion(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=60)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: cancel(backfill_id=backfill.id, wait_for_completion=False))
        assert isinstance(run.error, PlanasonixConflictError)
        assert "has made no jobs yet, so there is nothing to cancel" in str(run.error)

    def test_that_is_over_stays_as_it_is(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: cancel(backfill_id=backfill.id))
        assert run.result["status"] == "completed"
        assert "cancel_job" not in routes_asked(simulator)

    def test_is_cancelled_once_without_wait_for_completion(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=2, job_seconds=60, cancelling_seconds=60)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: cancel(backfill_id=backfill.id, wait_for_completion=False))
        assert run.error is None
        assert {job.status for job in simulator.jobs()} == {"cancelling"}


def is_answered(simulator: Simulator) -> bool:
    return any(request.status for request in simulator.requests)


def test_a_kill_ends_the_wait(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
    operator = cancel(job_id=simulator.workspace.start_sync(CONNECTION).id, poll_interval=60)
    record(operator, Log())
    previous = signal.signal(signal.SIGALRM, lambda *_: operator.on_kill())
    try:
        with (
            pytest.raises(TaskKilledError, match="killed while it waited for the end of job"),
            meanwhile(ring, once=lambda: is_answered(simulator)),
        ):
            operator.execute(context(Run()))
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_a_kill_before_execute_ends_the_task_without_a_wait(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
    operator = cancel(job_id=simulator.workspace.start_sync(CONNECTION).id, poll_interval=60)
    record(operator, Log())
    operator.on_kill()
    with pytest.raises(TaskKilledError, match="killed while it waited for the end of job"):
        operator.execute(context(Run()))


def test_a_kill_before_the_cancel_is_confirmed_names_the_command_that_cancels(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.plan(CONNECTION, running_seconds=60)
    job = simulator.workspace.start_sync(CONNECTION)
    simulator.fail("status", route="cancel_job", status=503, times=None)
    monkeypatch.setattr(shared_client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: high))
    error, _ = killed(simulator, cancel(job_id=job.id), route="cancel_job")
    assert simulator.job(job.id).cancel_requested_at is None
    assert str(error) == (
        f"The task was killed before Planasonix had confirmed the cancel of job {job.id}. To end it: "
        f"`python -m planasonix_provider cancel {job.id} --conn-id planasonix_default`"
    )


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "job_id, backfill_id: got None and None, allowed is one of the two"),
        ({"job_id": "job_1", "backfill_id": "bf_1"}, "job_id, backfill_id: got 'job_1' and 'bf_1'"),
        ({"job_id": " "}, "job_id: got ' '"),
        ({"job_id": "job_1", "poll_interval": 0}, "poll_interval: got 0"),
        ({"job_id": "job_1", "timeout": "soon"}, "timeout: got 'soon'"),
    ],
)
def test_invalid_parameters_are_refused_when_the_dag_is_parsed(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cancel(**parameters)
