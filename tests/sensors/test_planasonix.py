from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from planasonix_provider.api.client import Client
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.sensors import planasonix as sensors
from planasonix_provider.sensors.base import PlanasonixSensor
from planasonix_provider.sensors.planasonix import PlanasonixBackfillSensor, PlanasonixJobSensor, PlanasonixSyncSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.conftest import API_KEY
from tests.support.task_runs import HAS_NOTES, Run, context, drive
from tests.support.time_travel import travelling

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})
LONG_AGO = "2020-01-01T00:00:00Z"


def job_sensor(job_id: str, **parameters: Any) -> PlanasonixJobSensor:
    return PlanasonixJobSensor(**{"task_id": "wait", "job_id": job_id, "poke_interval": 0.03, **parameters})


def sync_sensor(**parameters: Any) -> PlanasonixSyncSensor:
    return PlanasonixSyncSensor(
        **{"task_id": "fresh", "connection_id": CONNECTION, "since": LONG_AGO, "poke_interval": 0.03, **parameters}
    )


def routes_asked(simulator: Simulator) -> list[str]:
    return [request.route for request in simulator.requests]


class TestAJobThatAListIsAheadOf:
    """A poller learns of ends from lists, and a list may be served by another part of the API than the job is."""

    @staticmethod
    def resumed(simulator: Simulator, lags: int | None, **parameters: Any) -> tuple[Any, str]:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        job = simulator.workspace.start_sync(CONNECTION)
        behind = {"status": "running", "finished_at": None, "metrics": None}
        simulator.fail("odd", route="get_job", times=lags, fields=behind)
        listed = {"id": job.id, "status": "succeeded", "created_at": "2025-03-27T14:22:10Z"}
        payload = {"version": 1, "kind": "job", "id": job.id, "outcome": "over", "job": listed}
        return job_sensor(job.id, deferrable=True, **parameters).execute_complete(context(Run()), payload), job.id

    @pytest.mark.parametrize("failed", [None, ["failed", "running"]])
    def test_is_asked_for_again(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, failed: list[str] | None
    ) -> None:
        with travelling(monkeypatch):
            result, job_id = self.resumed(simulator, 2, failed_states=failed)
        assert (result["job_id"], result["status"]) == (job_id, "succeeded")
        assert result["metrics"]["rows_loaded"] == 44_802
        assert routes_asked(simulator) == ["get_job"] * 3

    def test_counts_as_the_list_has_it_if_it_still_lags_behind(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            result, job_id = self.resumed(simulator, None)
        assert (result["job_id"], result["status"], result["metrics"]) == (job_id, "succeeded", None)
        assert 2 <= len(simulator.requests) <= 5


class TestAJob:
    def test_that_succeeds_is_told_of_without_its_results(self, simulator: Simulator, way: dict[str, Any]) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, **way))
        assert run.error is None
        assert (run.result["job_id"], run.result["status"]) == (job.id, "succeeded")
        assert run.result["metrics"]["rows_loaded"] == 44_802
        assert run.xcoms == {"job_url": f"{simulator.url}/jobs/{job.id}"}
        assert set(routes_asked(simulator)) == {"get_job"}

    def test_that_fails_does_so_without_a_retry_whatever_silent_fail_says(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route.")
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, silent_fail=True, **way))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error) == (
            f"Job {job.id} failed: source_unreachable: No route. See {simulator.url}/jobs/{job.id}"
        )

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_that_fails_skips_the_task_where_it_is_told_so(
        self, simulator: Simulator, way: dict[str, Any], option: str
    ) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route.")
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, **{option: True}, **way))
        assert isinstance(run.error, AirflowSkipException)
        assert str(run.error).startswith(f"Job {job.id} failed: source_unreachable: No route.")

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.usefixtures("travel")
    def test_that_is_not_over_in_time_skips_the_task_where_it_is_told_so(
        self, simulator: Simulator, way: dict[str, Any], option: str
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, timeout=0.2, **{option: True}, **way))
        assert isinstance(run.error, AirflowSkipException)
        assert f"Job {job.id} was not over by" in str(run.error)

    @pytest.mark.usefixtures("travel")
    def test_that_is_not_over_in_time_is_left_alone(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, timeout=0.2, **way))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert simulator.job(job.id).status == "running"
        assert set(routes_asked(simulator)) == {"get_job"}

    def test_that_ended_just_before_the_time_was_up_is_in_time(
        self, simulator: Simulator, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=700)
            job = simulator.workspace.start_sync(CONNECTION)
            run = drive(lambda: job_sensor(job.id, poke_interval=600, timeout=900, **way))
        assert run.error is None
        assert run.result["status"] == "succeeded"

    def test_that_outlives_the_execution_timeout_leaves_the_retries(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        limit = timedelta(seconds=0.3)
        run = drive(lambda: job_sensor(job.id, deferrable=True, execution_timeout=limit))
        assert isinstance(run.error, PlanasonixTimeoutError)
        run = drive(lambda: job_sensor(job.id, deferrable=True, execution_timeout=limit, soft_fail=True))
        assert isinstance(run.error, AirflowSkipException)

    def test_that_nobody_knows_fails_the_task_at_once(self, simulator: Simulator, way: dict[str, Any]) -> None:
        run = drive(lambda: job_sensor("job_unknown", silent_fail=True, **way))
        assert isinstance(run.error, AirflowFailException)
        assert "GET /api/v1/jobs/job_unknown: answered 404" in str(run.error)
        assert routes_asked(simulator) == ["get_job"]

    def test_is_waited_for_through_faults(self, simulator: Simulator, way: dict[str, Any]) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        simulator.fail("status", route="get_job", status=503, times=3)
        simulator.fail("html", route="get_job", times=1)
        run = drive(lambda: job_sensor(job.id, **way))
        assert run.error is None

    def test_may_be_waited_for_in_any_of_its_states(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        assert drive(lambda: job_sensor(job.id, allowed_states=["running"], **way)).result["status"] == "running"
        simulator.workspace.cancel(job.id)
        assert drive(lambda: job_sensor(job.id, allowed_states=["cancelled"], **way)).result["status"] == "cancelled"

    def test_that_ends_otherwise_than_it_may_fails_the_task(self, simulator: Simulator, way: dict[str, Any]) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, allowed_states=["cancelled"], **way))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error) == f"Job {job.id} is succeeded for good, and allowed_states has only cancelled."

    def test_that_comes_into_a_failed_state_fails_the_task(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, queued_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, failed_states=["queued"], **way))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error) == f"Job {job.id} is queued, which is one of failed_states."

    def test_a_key_that_is_refused_fails_the_task_and_leaves_its_retries(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.workspace.keys.revoke(API_KEY)
        run = drive(lambda: job_sensor("job_1", soft_fail=True, **way))
        assert isinstance(run.error, PlanasonixAuthenticationError)
        run = drive(lambda: job_sensor("job_1", never_fail=True, **way))
        assert isinstance(run.error, AirflowSkipException)

    def test_a_key_that_is_refused_is_waited_out_with_silent_fail(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        job = simulator.workspace.start_sync(CONNECTION)
        # Two for each look: a key that is refused is tried again, for it may have been rotated.
        simulator.fail("status", status=401, route="get_job", times=2)
        run = drive(lambda: job_sensor(job.id, silent_fail=True, **way))
        assert run.error is None
        assert any(line.startswith(f"No news of job {job.id}, still waiting: GET") for line in run.log.lines)

    def test_an_airflow_connection_that_is_missing_says_so(self, way: dict[str, Any]) -> None:
        run = drive(lambda: job_sensor("job_1", planasonix_conn_id="nowhere", **way))
        assert isinstance(run.error, PlanasonixConfigurationError)


class TestPoking:
    def test_takes_one_client_for_all_looks(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        clients: list[Client] = []
        make = Client.__init__

        def count(client: Client, *arguments: Any, **more: Any) -> None:
            clients.append(client)
            make(client, *arguments, **more)

        monkeypatch.setattr(Client, "__init__", count)
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=300)
            job = simulator.workspace.start_sync(CONNECTION)
            drive(lambda: job_sensor(job.id, poke_interval=30))
        assert routes_asked(simulator).count("get_job") >= 5
        assert len(clients) == 1

    def test_may_be_done_by_hand(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        job = simulator.workspace.start_sync(CONNECTION)
        assert not job_sensor(job.id).poke(context(Run()))
        assert job_sensor(job.id, allowed_states=["running", "queued"]).poke(context(Run()))

    def test_counts_its_timeout_from_the_first_look_of_all(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch) as travel:
            simulator.plan(CONNECTION, running_seconds=86_400)
            job = simulator.workspace.start_sync(CONNECTION)
            run = drive(lambda: job_sensor(job.id, mode="reschedule", poke_interval=300, timeout=3_000))
            assert isinstance(run.error, AirflowSensorTimeout)
            assert travel.passed == pytest.approx(3_000, abs=301)
            assert len(run.executions) == 11

    @pytest.mark.skipif(not HAS_NOTES, reason="this Airflow keeps no notes from one process to the next")
    def test_remembers_an_outage_from_one_process_to_the_next(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=7_200)
            job = simulator.workspace.start_sync(CONNECTION)
            simulator.fail("status", route="get_job", status=503, times=3, skip=2)
            run = drive(lambda: job_sensor(job.id, mode="reschedule", poke_interval=600))
        assert run.error is None
        assert "Planasonix answers again, after 30 min 0 s." in run.log.lines
        assert run.notes == {}

    @pytest.mark.skipif(not HAS_NOTES, reason="this Airflow keeps no notes from one process to the next")
    def test_forgets_the_outage_of_the_try_before(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        run = Run()
        run.notes["planasonix_unseen_since"] = {"try": 1, "since": "2025-03-27T00:00:00+00:00"}
        with travelling(monkeypatch):
            job = simulator.workspace.start_sync(CONNECTION)
            simulator.fail("status", route="get_job", status=503)
            sensor = job_sensor(job.id, mode="reschedule")
            run.executions.append(datetime.now(UTC))
            assert not sensor.poke(context(run, try_number=2))
        assert run.notes["planasonix_unseen_since"]["try"] == 2

    def test_looks_at_nothing_while_the_api_wants_to_be_left_alone(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=900)
            job = simulator.workspace.start_sync(CONNECTION)
            simulator.fail("status", route="get_job", status=429, headers={"Retry-After": "600"})
            run = drive(lambda: job_sensor(job.id, poke_interval=5))
        assert run.error is None
        assert len(simulator.requests) < 70

    def test_looks_less_often_where_the_rate_limit_runs_short(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch, datetime.now(UTC).replace(second=1)):
            # In the minute of the looks, and not in the one before.
            simulator.rate_limit.configure(60)
            for _ in range(50):
                simulator.rate_limit.consume(simulator.api_key)
            simulator.plan(CONNECTION, running_seconds=50)
            job = simulator.workspace.start_sync(CONNECTION)
            run = drive(lambda: job_sensor(job.id, poke_interval=2))
        assert run.error is None
        assert [request.status for request in simulator.requests] == [200] * len(simulator.requests)
        assert len(simulator.requests) < 10

    def test_lets_airflow_notice_the_end_of_one_process_before_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(seconds=7))
        now = datetime.now(UTC)
        arguments = (now, lambda: 1.0, 1)
        assert job_sensor("job_1", mode="reschedule", poke_interval=2)._get_next_poke_interval(*arguments) == 7
        assert job_sensor("job_1", mode="reschedule", poke_interval=60)._get_next_poke_interval(*arguments) == 60
        assert job_sensor("job_1", poke_interval=2)._get_next_poke_interval(*arguments) == 2

    def test_says_that_backing_off_is_not_for_deferred_sensors(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=0.3)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: job_sensor(job.id, deferrable=True, exponential_backoff=True))
        assert any(line.startswith("exponential_backoff and max_wait do not apply") for line in run.log.lines)


class TestABackfill:
    def test_that_completes_is_told_of(self, simulator: Simulator, way: dict[str, Any]) -> None:
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(
            lambda: PlanasonixBackfillSensor(task_id="wait", backfill_id=backfill.id, poke_interval=0.03, **way)
        )
        assert run.error is None
        assert (run.result["backfill_id"], run.result["status"]) == (backfill.id, "completed")
        assert run.result["rows_processed"] == 5_000_000

    def test_that_fails_names_the_jobs_that_did(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan_backfill(CONNECTION, failing_jobs=[1], code="source_unreachable", message="No route.")
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(
            lambda: PlanasonixBackfillSensor(task_id="wait", backfill_id=backfill.id, poke_interval=0.03, **way)
        )
        failed = (simulator.backfill(backfill.id).job_ids or [])[1]
        assert isinstance(run.error, AirflowFailException)
        assert f"What failed of it: job {failed}: source_unreachable: No route." in str(run.error)
        assert run.xcoms["job_url"].endswith(failed)

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_that_fails_for_reasons_that_cannot_be_had_fails_all_the_same(
        self, simulator: Simulator, way: dict[str, Any], option: str
    ) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0, failing_jobs=[1])
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        simulator.fail("status", status=403, route="get_backfill", times=None, skip=1)
        how = {"task_id": "wait", "backfill_id": backfill.id, "poke_interval": 0.03, **way}
        run = drive(lambda: PlanasonixBackfillSensor(**how))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error).startswith(f"Backfill {backfill.id} failed: jobs_failed")
        simulator.faults.clear()
        simulator.fail("status", status=403, route="get_backfill", times=None, skip=1)
        run = drive(lambda: PlanasonixBackfillSensor(**{option: True}, **how))
        assert isinstance(run.error, AirflowSkipException)
        assert str(run.error).startswith(f"Backfill {backfill.id} failed: jobs_failed")

    def test_that_was_cancelled_for_reasons_that_cannot_be_had_is_told_of_in_english(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=60, cancelling_seconds=0)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        for job in simulator.jobs():
            simulator.workspace.cancel(job.id)
        simulator.fail("status", status=403, route="get_backfill", times=None, skip=1)
        run = drive(
            lambda: PlanasonixBackfillSensor(task_id="wait", backfill_id=backfill.id, poke_interval=0.03, **way)
        )
        assert str(run.error) == f"Backfill {backfill.id} was cancelled before it was done."
        assert any(f"Why backfill {backfill.id} was cancelled cannot be found out: " in line for line in run.log.lines)


class TestASync:
    def test_that_succeeds_after_a_while_is_told_of(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, running_seconds=0.3)
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync_sensor(**way))
        assert run.error is None
        assert (run.result["job_id"], run.result["status"]) == (job.id, "succeeded")

    @pytest.mark.usefixtures("travel")
    def test_that_ended_before_does_not_count(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        old = simulator.workspace.start_sync(CONNECTION)
        assert old.created_at is not None
        since = old.created_at + timedelta(milliseconds=1)
        run = drive(lambda: sync_sensor(since=since, timeout=0.2, **way))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert str(run.error).startswith(f"No sync of connection {CONNECTION} that was created since ")

    def test_that_was_created_before_and_finished_since_counts_if_the_sensor_says_so(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.3)
        job = simulator.workspace.start_sync(CONNECTION)
        assert job.created_at is not None
        since = job.created_at + timedelta(milliseconds=100)
        run = drive(lambda: sync_sensor(since=since, by="finished", **way))
        assert run.error is None
        assert run.result["job_id"] == job.id

    def test_that_fails_fails_the_task(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route.")
        job = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync_sensor(**way))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error).startswith(f"Job {job.id} failed: source_unreachable")

    def test_that_fails_is_passed_over_where_the_next_one_is_waited_for(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0, outcome="failed")
        simulator.workspace.start_sync(CONNECTION)
        simulator.plan(CONNECTION, running_seconds=0.3)
        following = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync_sensor(on_failure="wait", **way))
        assert run.error is None
        assert run.result["job_id"] == following.id

    def test_that_failed_before_another_succeeded_fails_nothing(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0, outcome="failed")
        simulator.workspace.start_sync(CONNECTION)
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        following = simulator.workspace.start_sync(CONNECTION)
        assert drive(lambda: sync_sensor(**way)).result["job_id"] == following.id

    @pytest.mark.usefixtures("travel")
    def test_of_another_connection_does_not_count_nor_does_a_backfill(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        simulator.plan("conn_demo_01", queued_seconds=0, running_seconds=0)
        simulator.workspace.start_sync("conn_demo_01")
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0)
        simulator.workspace.start_backfill(CONNECTION, WINDOW)
        assert isinstance(drive(lambda: sync_sensor(timeout=0.15, **way)).error, AirflowSensorTimeout)

    def test_that_only_the_list_takes_for_ended_is_waited_for(self, simulator: Simulator, way: dict[str, Any]) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
        job = simulator.workspace.start_sync(CONNECTION)
        simulator.fail("status", status=404, route="get_job", times=2)
        run = drive(lambda: sync_sensor(**way))
        assert run.error is None
        assert run.result["job_id"] == job.id

    def test_that_finished_is_not_sought_among_all_of_the_day_before(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch) as travel:
            simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=30)
            for _ in range(300):
                simulator.workspace.start_sync(CONNECTION)
                travel.sleep(60)
            simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=7_200)
            since = simulator.workspace.clock()
            late = simulator.workspace.start_sync(CONNECTION)
            how = {"by": "finished", "since": since + timedelta(seconds=1), "poke_interval": 60, "deferrable": True}
            run = drive(lambda: sync_sensor(**how))
        assert run.error is None
        assert run.result["job_id"] == late.id
        looks = 120
        assert len(simulator.requests) < looks * 6, "three lists, the sync that runs, and now and then the newest"

    def test_takes_its_moment_along_as_it_was_rendered(self, simulator: Simulator) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            sync_sensor(since="2025-03-27T16:22:10+02:00", deferrable=True).execute(context(Run()))
        arguments = deferred.value.trigger.serialize()[1]
        assert arguments["since"] == "2025-03-27T14:22:10+00:00"
        assert json.loads(json.dumps(arguments)) == arguments

    def test_costs_one_request_a_look_where_failures_are_waited_out(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with travelling(monkeypatch):
            simulator.plan(CONNECTION, running_seconds=60)
            simulator.workspace.start_sync(CONNECTION)
            run = drive(lambda: sync_sensor(on_failure="wait", timeout=12, poke_interval=5))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert len(simulator.requests) == 4


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: job_sensor(""), "job_id: got ''"),
            (
                lambda: job_sensor("job_1", allowed_states=["done"]),
                r"allowed_states: got \['done'\], allowed is a list",
            ),
            (lambda: job_sensor("job_1", allowed_states=["completed"]), "allowed_states: got"),
            (lambda: job_sensor("job_1", allowed_states=[]), r"allowed_states: got \[\]"),
            (lambda: job_sensor("job_1", allowed_states="succeeded"), "allowed_states: got 'succeeded'"),
            (lambda: job_sensor("job_1", failed_states=["broken"]), r"failed_states: got \['broken'\]"),
            (lambda: job_sensor("job_1", failed_states=["succeeded"]), "failed_states: got succeeded, allowed is what"),
            (lambda: job_sensor("job_1", poke_interval=0), "poke_interval: got 0.0"),
            (lambda: PlanasonixBackfillSensor(task_id="w", backfill_id=" "), "backfill_id: got ' '"),
            (
                lambda: PlanasonixBackfillSensor(task_id="w", backfill_id="bf_1", allowed_states=["succeeded"]),
                r"allowed_states: got \['succeeded'\], allowed is a list of cancelled, completed, failed, queued, ru",
            ),
            (lambda: sync_sensor(since="yesterday"), "since: got 'yesterday', allowed is a time"),
            (lambda: sync_sensor(since=None), "since: got None"),
            (lambda: sync_sensor(since="0001-01-01T05:00:00", by="finished"), "since: got '0001-01-01T05:00:00'"),
            (lambda: job_sensor("job_1", timeout=10**12), "timeout: got 1000000000000.0, allowed is a number of"),
            (lambda: job_sensor("job_1", deferrable="yes"), "deferrable: got 'yes', allowed is True or False"),
            (lambda: sync_sensor(by="started"), "by: got 'started', allowed is created, finished"),
            (lambda: sync_sensor(on_failure="ignore"), "on_failure: got 'ignore', allowed is fail, wait"),
            (lambda: sync_sensor(connection_id=""), "connection_id: got ''"),
        ],
    )
    def test_is_refused_when_the_dag_is_parsed(self, make: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            make()

    def test_is_refused_before_any_request_where_a_template_decides(
        self, simulator: Simulator, way: dict[str, Any]
    ) -> None:
        sensor = job_sensor("{{ ti.xcom_pull(task_ids='start', key='job_id') }}", **way)
        sensor.job_id = None  # type: ignore[assignment]
        with pytest.raises(AirflowFailException, match="job_id: got None, allowed is an id"):
            sensor.execute(context(Run()))
        assert simulator.requests == []

    def test_an_event_of_another_kind_is_refused(self, simulator: Simulator) -> None:
        event = {"version": 1, "kind": "backfill", "id": "bf_1", "outcome": "error", "error": "a", "message": "b"}
        with pytest.raises(Exception, match="kind: it is of a backfill"):
            job_sensor("job_1").execute_complete(context(Run()), event)


SENSORS = [job_sensor("job_1"), sync_sensor(), PlanasonixBackfillSensor(task_id="w", backfill_id="bf_1")]


def test_every_sensor_is_tried_here() -> None:
    public = {kind for name, kind in vars(sensors).items() if name.startswith("Planasonix") and isinstance(kind, type)}
    assert public - {PlanasonixSensor} == {type(sensor) for sensor in SENSORS}


@pytest.mark.parametrize("sensor", SENSORS)
def test_all_parameters_of_a_sensors_own_are_templates(sensor: PlanasonixSensor) -> None:
    assert set(sensor.template_fields) == set(sensor.checks) >= {"planasonix_conn_id"}


def test_the_key_is_in_nothing_that_a_person_can_read(simulator: Simulator, way: dict[str, Any]) -> None:
    job = simulator.workspace.start_sync(CONNECTION)
    simulator.fail("status", route="get_job", status=500)
    run = drive(lambda: job_sensor(job.id, **way))
    assert run.error is None
    assert API_KEY not in run.said


def test_a_naive_moment_is_utc() -> None:
    sensor = sync_sensor(since=datetime(2025, 3, 27))  # noqa: DTZ001
    sensor.validate_rendered()
    assert sensor.since == datetime(2025, 3, 27, tzinfo=UTC)


def test_a_set_of_states_is_put_in_order_or_each_parse_would_give_another_dag() -> None:
    sensor = job_sensor("job_1", allowed_states={"succeeded", "cancelled", "failed"})
    assert sensor.allowed_states == ["cancelled", "failed", "succeeded"]
