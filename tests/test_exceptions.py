"""The attributes of the exceptions that Airflow hands to ``on_failure_callback``: they name the work."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from planasonix_provider.api.errors import (
    DETAILS,
    PlanasonixJobFailedError,
    PlanasonixPermissionError,
    PlanasonixTimeoutError,
    add_details,
)
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator
from planasonix_provider.sensors.planasonix import PlanasonixBackfillSensor, PlanasonixJobSensor, PlanasonixSyncSensor
from planasonix_provider.simulator import Simulator
from tests.support.attempts import die_at
from tests.support.scenarios import CONNECTION, backfill, meanwhile, ring, sync
from tests.support.task_runs import Run, drive

WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})


pytestmark = pytest.mark.usefixtures("without_airflow", "travel")


def details_of(run: Run) -> dict[str, Any]:
    assert run.error is not None
    return {name: getattr(run.error, name) for name in DETAILS}


def job_of(simulator: Simulator, **fields: Any) -> dict[str, Any]:
    job_id = simulator.jobs()[0].id
    known = {
        "job_id": job_id,
        "backfill_id": None,
        "job_url": f"{simulator.url}/jobs/{job_id}",
        "connection_id": CONNECTION,
        "code": None,
    }
    return known | fields


class TestAnExceptionOfASync:
    def test_that_fails_names_its_job_and_the_code_of_the_api(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=0, outcome="failed", code="source_unreachable")
        run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert details_of(run) == job_of(simulator, code="source_unreachable")

    def test_at_a_timeout_names_its_job(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.5))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert details_of(run) == job_of(simulator)

    def test_that_ends_the_retries_has_the_same_attributes(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=0.2)
        simulator.fail("status", route="get_job_results", status=403, times=None)
        run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, AirflowFailException)
        assert details_of(run) == job_of(simulator, code="forbidden")

    def test_of_a_403_while_deferred_keeps_the_code(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        # The task itself sends the first request, before it defers.
        simulator.fail("status", route="get_job", status=403, times=None, skip=1)
        simulator.fail("status", route="list_jobs", status=403, times=None, skip=1)
        run = drive(lambda: sync(deferrable=True))
        assert run.deferrals == 1
        assert isinstance(run.error, AirflowFailException)
        assert details_of(run) == job_of(simulator, code="forbidden")

    def test_without_a_job_names_the_connection(self, simulator: Simulator) -> None:
        simulator.fail("status", route="trigger_sync", status=400)
        run = drive(sync)
        assert isinstance(run.error, AirflowFailException)
        assert details_of(run) | {"code": None} == dict.fromkeys(DETAILS) | {"connection_id": CONNECTION}
        assert details_of(run)["code"] == run.error.__context__.code  # type: ignore[union-attr]

    def test_of_airflow_itself_names_the_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)

        class AirflowTaskTimeout(BaseException):
            """Airflow raises it in a signal handler."""

        def handler(*_: object) -> None:
            raise AirflowTaskTimeout

        previous = signal.signal(signal.SIGALRM, handler)
        try:
            with (
                pytest.raises(AirflowTaskTimeout) as raised,
                meanwhile(ring, once=lambda: any(it.route == "get_job" and it.status for it in simulator.requests)),
            ):
                drive(sync)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert {name: getattr(raised.value, name) for name in DETAILS} == job_of(simulator)

    def test_of_a_retry_names_the_job_of_the_previous_try(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        notes = die_at(sync, "while it waited")
        simulator.fail("status", route="get_job", status=400, times=None)
        run = drive(sync, notes, try_number=2)
        assert details_of(run)["job_id"] == simulator.jobs()[0].id


class TestAnExceptionOfABackfill:
    def test_that_fails_names_the_first_job_that_failed(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(CONNECTION, jobs=3, queued_seconds=0, job_seconds=0.05, failing_jobs=[1])
        run = drive(lambda: backfill(deferrable=deferrable))
        (made,) = simulator.backfills()
        failed = (made.job_ids or [])[1]
        assert details_of(run) == {
            "job_id": failed,
            "backfill_id": made.id,
            "job_url": f"{simulator.url}/jobs/{failed}",
            "connection_id": CONNECTION,
            "code": "jobs_failed",
        }

    def test_at_a_timeout_names_its_first_job(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, queued_seconds=0, job_seconds=60, cancelling_seconds=0)
        run = drive(lambda: backfill(deferrable=deferrable, timeout=1))
        (made,) = simulator.backfills()
        first = (made.job_ids or [])[0]
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert (details_of(run)["backfill_id"], details_of(run)["connection_id"]) == (made.id, CONNECTION)
        assert details_of(run)["job_url"] in (None, f"{simulator.url}/jobs/{first}")


class TestAnExceptionOfACancel:
    def test_at_a_timeout_names_the_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60, cancelling_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: PlanasonixCancelJobOperator(task_id="stop", job_id=job.id, poll_interval=0.03, timeout=1))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert details_of(run) == job_of(simulator)

    def test_of_a_404_names_the_job(self, simulator: Simulator) -> None:
        run = drive(lambda: PlanasonixCancelJobOperator(task_id="stop", job_id="job_unknown"))
        assert isinstance(run.error, AirflowFailException)
        assert (details_of(run)["job_id"], details_of(run)["code"]) == ("job_unknown", "not_found")


class TestAnExceptionOfASensor:
    def test_names_the_job_that_failed(self, simulator: Simulator, mode: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=0.1, outcome="failed", code="source_unreachable")
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: PlanasonixJobSensor(task_id="wait", job_id=job.id, poke_interval=0.03, **mode))
        assert isinstance(run.error, AirflowFailException)
        assert details_of(run) == job_of(simulator, code="source_unreachable")

    @pytest.mark.parametrize(
        ("option", "kind"), [({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)]
    )
    def test_at_a_timeout_names_the_job(
        self, simulator: Simulator, mode: dict[str, Any], option: dict[str, Any], kind: type[Exception]
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(
            lambda: PlanasonixJobSensor(
                task_id="wait", job_id=job.id, poke_interval=0.03, timeout=0.5, **mode, **option
            )
        )
        assert isinstance(run.error, kind)
        assert details_of(run) == job_of(simulator)

    def test_names_the_backfill_that_failed(self, simulator: Simulator, mode: dict[str, Any]) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, queued_seconds=0, job_seconds=0.05, failing_jobs=[1])
        made = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: PlanasonixBackfillSensor(task_id="wait", backfill_id=made.id, poke_interval=0.03, **mode))
        failed = (simulator.backfills()[0].job_ids or [])[1]
        assert (details_of(run)["backfill_id"], details_of(run)["job_id"], details_of(run)["code"]) == (
            made.id,
            failed,
            "jobs_failed",
        )

    def test_names_the_connection_that_had_no_sync(self, simulator: Simulator, mode: dict[str, Any]) -> None:
        run = drive(
            lambda: PlanasonixSyncSensor(
                task_id="wait",
                connection_id=CONNECTION,
                since="2020-01-01T00:00:00Z",
                poke_interval=0.03,
                timeout=0.3,
                **mode,
            )
        )
        assert isinstance(run.error, AirflowSensorTimeout)
        assert details_of(run) == dict.fromkeys(DETAILS) | {"connection_id": CONNECTION}

    def test_names_the_sync_that_failed(self, simulator: Simulator, mode: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=0, outcome="failed", code="source_unreachable")
        simulator.workspace.start_sync(CONNECTION)
        run = drive(
            lambda: PlanasonixSyncSensor(
                task_id="wait",
                connection_id=CONNECTION,
                since="2020-01-01T00:00:00Z",
                on_failure="fail",
                poke_interval=0.03,
                **mode,
            )
        )
        assert details_of(run) == job_of(simulator, code="source_unreachable")


class TestDetails:
    def test_that_an_exception_has_are_kept(self) -> None:
        error = PlanasonixJobFailedError("It failed.", code="first")
        add_details(error, code="second", job_id="job_1")
        assert (error.code, error.job_id, error.connection_id) == ("first", "job_1", None)

    def test_of_its_cause_win_over_the_task(self) -> None:
        error = AirflowFailException("It was refused.")
        error.__cause__ = PlanasonixPermissionError("403", code="forbidden")
        add_details(error, code="other", job_id="job_1")
        assert {name: getattr(error, name) for name in DETAILS} == {
            "job_id": "job_1",
            "backfill_id": None,
            "job_url": None,
            "connection_id": None,
            "code": "forbidden",
        }

    def test_are_left_out_if_an_exception_accepts_none(self) -> None:
        class ClosedError(Exception):
            @property
            def code(self) -> int:
                return 3

        add_details(error := ClosedError(), code="second", job_id="job_1")
        assert (error.code, error.job_id) == (3, "job_1")  # type: ignore[attr-defined]
