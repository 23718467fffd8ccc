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
from planasonix_provider.sensors.base import PlanasonixSensor
from planasonix_provider.sensors.planasonix import PlanasonixBackfillSensor, PlanasonixJobSensor, PlanasonixSyncSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from planasonix_provider.waiting.targets import JobTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from tests.conftest import API_KEY
from tests.support.example_tasks import SENSORS
from tests.support.scenarios import CONNECTION, routes_asked
from tests.support.task_runs import HAS_NOTES, Run, context, drive
from tests.support.time_travel import BEGAN, TravelledClock

pytestmark = pytest.mark.usefixtures("travel")

Mode = dict[str, Any]

WINDOW = BackfillBody.model_validate({"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"})
LONG_AGO = "2020-01-01T00:00:00Z"
FAILS = {"outcome": "failed", "code": "source_unreachable", "message": "No route."}
needs_notes = pytest.mark.skipif(not HAS_NOTES, reason="this Airflow has no task_state_store")


def job_sensor(job_id: str, **parameters: Any) -> PlanasonixJobSensor:
    return PlanasonixJobSensor(**{"task_id": "wait", "job_id": job_id, "poke_interval": 0.03, **parameters})


def backfill_sensor(backfill_id: str, **parameters: Any) -> PlanasonixBackfillSensor:
    return PlanasonixBackfillSensor(
        **{"task_id": "wait", "backfill_id": backfill_id, "poke_interval": 0.03, **parameters}
    )


def sync_sensor(**parameters: Any) -> PlanasonixSyncSensor:
    return PlanasonixSyncSensor(
        **{"task_id": "fresh", "connection_id": CONNECTION, "since": LONG_AGO, "poke_interval": 0.03, **parameters}
    )


def start_sync(simulator: Simulator, connection_id: str = CONNECTION, **plan: Any) -> Any:
    if plan:
        simulator.plan(connection_id, **plan)
    return simulator.workspace.start_sync(connection_id)


class TestAJobThatLagsBehindTheList:
    """A trigger reads in a list that a job is over. The response for the job itself may be older than the list."""

    @staticmethod
    def resume(simulator: Simulator, lags: int | None, **parameters: Any) -> tuple[Any, str]:
        job = start_sync(simulator, queued_seconds=0, running_seconds=0)
        behind = {"status": "running", "finished_at": None, "metrics": None}
        simulator.fail("odd", route="get_job", times=lags, fields=behind)
        listed = {"id": job.id, "status": "succeeded", "created_at": "2025-03-27T14:22:10Z"}
        payload = {"version": 1, "kind": "job", "id": job.id, "outcome": "over", "job": listed}
        return job_sensor(job.id, deferrable=True, **parameters).execute_complete(context(Run()), payload), job.id

    @pytest.mark.parametrize("failed", [None, ["failed", "running"]])
    def test_is_polled_again(self, simulator: Simulator, failed: list[str] | None) -> None:
        result, job_id = self.resume(simulator, 2, failed_states=failed)
        assert (result["job_id"], result["status"]) == (job_id, "succeeded")
        assert result["metrics"]["rows_loaded"] == 44_802
        assert routes_asked(simulator) == ["get_job"] * 3

    def test_counts_as_listed_if_it_still_lags_behind(self, simulator: Simulator) -> None:
        result, job_id = self.resume(simulator, None)
        assert (result["job_id"], result["status"], result["metrics"]) == (job_id, "succeeded", None)
        assert 2 <= len(simulator.requests) <= 5


class TestAJob:
    def test_that_succeeds_is_returned_without_its_results(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator)
        run = drive(lambda: job_sensor(job.id, **mode))
        assert run.error is None
        assert (run.result["job_id"], run.result["status"]) == (job.id, "succeeded")
        assert run.result["metrics"]["rows_loaded"] == 44_802
        assert run.xcoms == {"job_url": f"{simulator.url}/jobs/{job.id}"}
        assert set(routes_asked(simulator)) == {"get_job"}

    @pytest.mark.parametrize(
        ("plan", "parameters", "error", "message"),
        [
            pytest.param(
                FAILS,
                {"silent_fail": True},
                AirflowFailException,
                "Job failed: source_unreachable: No route (job {id}). See {url}/jobs/{id}",
                id="failed",
            ),
            pytest.param(FAILS, {"soft_fail": True}, AirflowSkipException, "Job failed: ", id="soft_fail"),
            pytest.param(FAILS, {"never_fail": True}, AirflowSkipException, "Job failed: ", id="never_fail"),
            pytest.param(
                {"running_seconds": 0},
                {"allowed_states": ["cancelled"]},
                AirflowFailException,
                "Job {id} is succeeded for good, and allowed_states has only cancelled.",
                id="succeeded but not allowed",
            ),
            pytest.param(
                {"queued_seconds": 60},
                {"failed_states": ["queued"]},
                AirflowFailException,
                "Job {id} is queued, which is one of failed_states.",
                id="in a failed state",
            ),
        ],
    )
    def test_that_does_not_reach_an_allowed_state_ends_the_task(
        self,
        simulator: Simulator,
        mode: Mode,
        plan: dict[str, Any],
        parameters: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        job = start_sync(simulator, **plan)
        run = drive(lambda: job_sensor(job.id, **parameters, **mode))
        assert isinstance(run.error, error)
        assert str(run.error).startswith(message.format(id=job.id, url=simulator.url))

    @pytest.mark.parametrize(
        ("parameters", "error"),
        [
            ({}, AirflowSensorTimeout),
            ({"soft_fail": True}, AirflowSkipException),
            ({"never_fail": True}, AirflowSkipException),
        ],
        ids=["default", "soft_fail", "never_fail"],
    )
    def test_that_takes_too_long_is_not_cancelled(
        self, simulator: Simulator, mode: Mode, parameters: dict[str, Any], error: type[Exception]
    ) -> None:
        job = start_sync(simulator, running_seconds=60)
        run = drive(lambda: job_sensor(job.id, timeout=0.2, **parameters, **mode))
        assert isinstance(run.error, error)
        assert f"Job {job.id} was not over by" in str(run.error)
        assert simulator.job(job.id).status == "running"
        assert set(routes_asked(simulator)) == {"get_job"}

    def test_that_ended_just_before_the_timeout_counts(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator, running_seconds=700)
        run = drive(lambda: job_sensor(job.id, poke_interval=600, timeout=900, **mode))
        assert run.error is None
        assert run.result["status"] == "succeeded"

    def test_that_takes_longer_than_the_execution_timeout_is_left_to_the_retries(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=60)
        limit = timedelta(seconds=0.3)
        run = drive(lambda: job_sensor(job.id, deferrable=True, execution_timeout=limit))
        assert isinstance(run.error, PlanasonixTimeoutError)
        run = drive(lambda: job_sensor(job.id, deferrable=True, execution_timeout=limit, soft_fail=True))
        assert isinstance(run.error, AirflowSkipException)

    def test_that_does_not_exist_fails_the_task_at_once(self, simulator: Simulator, mode: Mode) -> None:
        run = drive(lambda: job_sensor("job_unknown", silent_fail=True, **mode))
        assert isinstance(run.error, AirflowFailException)
        assert "GET /api/v1/jobs/job_unknown: answered 404" in str(run.error)
        assert routes_asked(simulator) == ["get_job"]

    def test_is_waited_for_through_faults(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator)
        simulator.fail("status", route="get_job", status=503, times=3)
        simulator.fail("html", route="get_job", times=1)
        assert drive(lambda: job_sensor(job.id, **mode)).error is None

    def test_may_be_waited_for_in_any_state(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator, running_seconds=60)
        assert drive(lambda: job_sensor(job.id, allowed_states=["running"], **mode)).result["status"] == "running"
        simulator.workspace.cancel(job.id)
        assert drive(lambda: job_sensor(job.id, allowed_states=["cancelled"], **mode)).result["status"] == "cancelled"


class TestARefusedKey:
    def test_is_left_to_the_retries(self, simulator: Simulator, mode: Mode) -> None:
        simulator.workspace.keys.revoke(API_KEY)
        run = drive(lambda: job_sensor("job_1", soft_fail=True, **mode))
        assert isinstance(run.error, PlanasonixAuthenticationError)
        run = drive(lambda: job_sensor("job_1", never_fail=True, **mode))
        assert isinstance(run.error, AirflowSkipException)

    def test_is_tolerated_with_silent_fail(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator)
        # Each poll sends two requests: a refused one is repeated, because the key may have been rotated.
        simulator.fail("status", status=401, route="get_job", times=2)
        run = drive(lambda: job_sensor(job.id, silent_fail=True, **mode))
        assert run.error is None
        assert any(f"job {job.id}, still waiting: GET" in line for line in run.log.lines)


def test_a_missing_airflow_connection_is_an_error(mode: Mode) -> None:
    run = drive(lambda: job_sensor("job_1", planasonix_conn_id="nowhere", **mode))
    assert isinstance(run.error, PlanasonixConfigurationError)


class TestPoking:
    def test_uses_one_client(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        clients: list[Client] = []
        make = Client.__init__

        def count(client: Client, *args: Any, **kwargs: Any) -> None:
            clients.append(client)
            make(client, *args, **kwargs)

        monkeypatch.setattr(Client, "__init__", count)
        job = start_sync(simulator, running_seconds=300)
        drive(lambda: job_sensor(job.id, poke_interval=30))
        assert routes_asked(simulator).count("get_job") >= 5
        assert len(clients) == 1

    def test_works_without_execute(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=60)
        assert not job_sensor(job.id).poke(context(Run()))
        assert job_sensor(job.id, allowed_states=["running", "queued"]).poke(context(Run()))

    def test_counts_the_timeout_from_the_first_poke(self, simulator: Simulator, travel: TravelledClock) -> None:
        job = start_sync(simulator, running_seconds=86_400)
        run = drive(lambda: job_sensor(job.id, mode="reschedule", poke_interval=300, timeout=3_000))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert travel.passed == pytest.approx(3_000, abs=301)
        assert len(run.executions) == 11

    @needs_notes
    def test_stores_an_outage_for_the_next_process(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=7_200)
        simulator.fail("status", route="get_job", status=503, times=3, skip=2)
        run = drive(lambda: job_sensor(job.id, mode="reschedule", poke_interval=600))
        assert run.error is None
        assert "Planasonix answers again, after 30 min 0 s." in run.log.lines
        assert run.notes == {}

    @needs_notes
    def test_ignores_the_outage_of_the_previous_try(self, simulator: Simulator) -> None:
        run = Run()
        run.notes["planasonix_unseen_since"] = {"try": 1, "since": "2025-03-27T00:00:00+00:00"}
        job = start_sync(simulator)
        simulator.fail("status", route="get_job", status=503)
        run.executions.append(datetime.now(UTC))
        assert not job_sensor(job.id, mode="reschedule").poke(context(run, try_number=2))
        assert run.notes["planasonix_unseen_since"]["try"] == 2

    def test_sends_nothing_during_a_retry_after(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=900)
        simulator.fail("status", route="get_job", status=429, headers={"Retry-After": "600"})
        run = drive(lambda: job_sensor(job.id, poke_interval=5))
        assert run.error is None
        assert len(simulator.requests) < 70

    def test_polls_less_often_if_the_rate_limit_is_nearly_exhausted(self, simulator: Simulator) -> None:
        # All polls are within one minute, which is the window of the rate limit.
        assert BEGAN.second + 45 < 60
        simulator.rate_limit.configure(60)
        for _ in range(50):
            simulator.rate_limit.consume(simulator.api_key)
        job = start_sync(simulator, running_seconds=40)
        run = drive(lambda: job_sensor(job.id, poke_interval=2))
        assert run.error is None
        assert [request.status for request in simulator.requests] == [200] * len(simulator.requests)
        assert len(simulator.requests) < 10

    @pytest.mark.parametrize(
        ("parameters", "interval"),
        [
            ({"mode": "reschedule", "poke_interval": 2}, 7),
            ({"mode": "reschedule", "poke_interval": 60}, 60),
            ({"poke_interval": 2}, 2),
        ],
    )
    def test_reschedules_late_enough_for_airflow_to_notice_the_end_of_a_process(
        self, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], interval: float
    ) -> None:
        monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(seconds=7))
        sensor = job_sensor("job_1", **parameters)
        assert sensor._get_next_poke_interval(datetime.now(UTC), lambda: 1.0, 1) == interval

    def test_logs_that_deferred_sensors_have_no_exponential_backoff(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=0.3)
        run = drive(lambda: job_sensor(job.id, deferrable=True, exponential_backoff=True))
        assert any(line.startswith("exponential_backoff and max_wait do not apply") for line in run.log.lines)


class TestABackfill:
    def test_that_completes_is_returned(self, simulator: Simulator, mode: Mode) -> None:
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: backfill_sensor(backfill.id, **mode))
        assert run.error is None
        assert (run.result["backfill_id"], run.result["status"]) == (backfill.id, "completed")
        assert run.result["rows_processed"] == 5_000_000

    def test_that_fails_names_its_failed_jobs(self, simulator: Simulator, mode: Mode) -> None:
        simulator.plan_backfill(CONNECTION, failing_jobs=[1], code="source_unreachable", message="No route.")
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        run = drive(lambda: backfill_sensor(backfill.id, **mode))
        failed = (simulator.backfill(backfill.id).job_ids or [])[1]
        assert isinstance(run.error, AirflowFailException)
        assert f"Failed jobs: {failed}: source_unreachable: No route." in str(run.error)
        assert run.xcoms["job_url"].endswith(failed)

    @pytest.mark.parametrize(
        ("parameters", "error"),
        [
            ({}, AirflowFailException),
            ({"soft_fail": True}, AirflowSkipException),
            ({"never_fail": True}, AirflowSkipException),
        ],
        ids=["default", "soft_fail", "never_fail"],
    )
    def test_that_fails_for_an_unknown_reason_fails_the_task(
        self, simulator: Simulator, mode: Mode, parameters: dict[str, Any], error: type[Exception]
    ) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0, failing_jobs=[1])
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        simulator.fail("status", status=403, route="get_backfill", times=None, skip=1)
        run = drive(lambda: backfill_sensor(backfill.id, **parameters, **mode))
        assert isinstance(run.error, error)
        assert str(run.error).startswith("Backfill failed: jobs_failed")

    def test_that_was_cancelled_for_an_unknown_reason_logs_a_warning(self, simulator: Simulator, mode: Mode) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=60, cancelling_seconds=0)
        backfill = simulator.workspace.start_backfill(CONNECTION, WINDOW)
        for job in simulator.jobs():
            simulator.workspace.cancel(job.id)
        simulator.fail("status", status=403, route="get_backfill", times=None, skip=1)
        run = drive(lambda: backfill_sensor(backfill.id, **mode))
        assert str(run.error) == f"Backfill {backfill.id} was cancelled before it was done."
        assert any(f"Why backfill {backfill.id} was cancelled cannot be found out: " in line for line in run.log.lines)


class TestASync:
    def test_that_succeeds_later_is_returned(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator, running_seconds=0.3)
        run = drive(lambda: sync_sensor(**mode))
        assert run.error is None
        assert (run.result["job_id"], run.result["status"]) == (job.id, "succeeded")

    def test_that_was_created_before_does_not_count(self, simulator: Simulator, mode: Mode) -> None:
        old = start_sync(simulator, queued_seconds=0, running_seconds=0)
        run = drive(lambda: sync_sensor(since=old.created_at + timedelta(milliseconds=1), timeout=0.2, **mode))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert str(run.error).startswith(f"No sync of connection {CONNECTION} that was created since ")

    def test_that_finished_after_the_start_time_counts_with_by_finished(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator, queued_seconds=0, running_seconds=0.3)
        run = drive(lambda: sync_sensor(since=job.created_at + timedelta(milliseconds=100), by="finished", **mode))
        assert run.error is None
        assert run.result["job_id"] == job.id

    def test_that_fails_fails_the_task(self, simulator: Simulator, mode: Mode) -> None:
        start_sync(simulator, **FAILS)
        run = drive(lambda: sync_sensor(**mode))
        assert isinstance(run.error, AirflowFailException)
        assert str(run.error).startswith("Job failed: source_unreachable")

    def test_that_fails_is_ignored_with_on_failure_wait(self, simulator: Simulator, mode: Mode) -> None:
        start_sync(simulator, queued_seconds=0, running_seconds=0, outcome="failed")
        following = start_sync(simulator, running_seconds=0.3)
        run = drive(lambda: sync_sensor(on_failure="wait", **mode))
        assert run.error is None
        assert run.result["job_id"] == following.id

    def test_that_failed_before_another_succeeded_is_ignored(self, simulator: Simulator, mode: Mode) -> None:
        start_sync(simulator, queued_seconds=0, running_seconds=0, outcome="failed")
        following = start_sync(simulator, queued_seconds=0, running_seconds=0)
        assert drive(lambda: sync_sensor(**mode)).result["job_id"] == following.id

    def test_of_another_connection_or_a_backfill_does_not_count(self, simulator: Simulator, mode: Mode) -> None:
        start_sync(simulator, "conn_demo_01", queued_seconds=0, running_seconds=0)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0)
        simulator.workspace.start_backfill(CONNECTION, WINDOW)
        assert isinstance(drive(lambda: sync_sensor(timeout=0.15, **mode)).error, AirflowSensorTimeout)

    def test_that_is_over_only_in_the_list_is_waited_for(self, simulator: Simulator, mode: Mode) -> None:
        job = start_sync(simulator, queued_seconds=0, running_seconds=0)
        simulator.fail("status", status=404, route="get_job", times=2)
        run = drive(lambda: sync_sensor(**mode))
        assert run.error is None
        assert run.result["job_id"] == job.id

    @pytest.mark.slow("simulates hours of polls")
    def test_search_does_not_read_the_whole_day_before_at_each_poll(
        self, simulator: Simulator, travel: TravelledClock
    ) -> None:
        simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=30)
        for _ in range(300):
            simulator.workspace.start_sync(CONNECTION)
            travel.sleep(60)
        simulator.plan(CONNECTION, times=None, queued_seconds=0, running_seconds=7_200)
        since = simulator.workspace.clock() + timedelta(seconds=1)
        late = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync_sensor(by="finished", since=since, poke_interval=60, deferrable=True))
        assert run.error is None
        assert run.result["job_id"] == late.id
        polls = 120
        assert len(simulator.requests) < polls * 6, "three lists, the running sync, and sometimes the newest one"

    def test_costs_one_request_per_poke_if_failures_are_ignored(self, simulator: Simulator) -> None:
        start_sync(simulator, running_seconds=60)
        run = drive(lambda: sync_sensor(on_failure="wait", timeout=12, poke_interval=5))
        assert isinstance(run.error, AirflowSensorTimeout)
        assert len(simulator.requests) == 4

    def test_is_deferred_with_the_rendered_time(self, simulator: Simulator) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            sync_sensor(since="2025-03-27T16:22:10+02:00", deferrable=True).execute(context(Run()))
        arguments = json.dumps(deferred.value.trigger.serialize()[1])
        assert "2025-03-27T14:22:10+00:00" in arguments


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
            (lambda: backfill_sensor(" "), "backfill_id: got ' '"),
            (
                lambda: backfill_sensor("bf_1", allowed_states=["succeeded"]),
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

    def test_from_a_template_is_refused_before_the_first_request(self, simulator: Simulator, mode: Mode) -> None:
        sensor = job_sensor("{{ ti.xcom_pull(task_ids='start', key='job_id') }}", **mode)
        sensor.job_id = None  # type: ignore[assignment]
        with pytest.raises(AirflowFailException, match="job_id: got None, allowed is an id"):
            sensor.execute(context(Run()))
        assert simulator.requests == []

    def test_from_a_trigger_of_another_kind_is_refused(self, simulator: Simulator) -> None:
        event = {"version": 1, "kind": "backfill", "id": "bf_1", "outcome": "error", "error": "a", "message": "b"}
        with pytest.raises(Exception, match="kind: it is of a backfill"):
            job_sensor("job_1").execute_complete(context(Run()), event)

    @pytest.mark.skipif(not deferral.HAS_STALE_EVENTS, reason="this Airflow keeps no events for retries")
    def test_of_an_earlier_try_is_not_used(self, simulator: Simulator) -> None:
        job = start_sync(simulator, running_seconds=60)
        error = PlanasonixTimeoutError("The timeout of the first try was up.")
        event = WaitEvent.failed(JobTarget(job.id), error).model_copy(update={"try_number": 1})
        with pytest.raises(TaskDeferred):
            job_sensor(job.id, deferrable=True).execute_complete(context(Run(), try_number=2), event.to_payload())


@pytest.mark.parametrize("kind", SENSORS)
def test_all_parameters_of_its_own_are_templated(kind: type[PlanasonixSensor]) -> None:
    assert set(kind.template_fields) == set(kind.checks) >= {"planasonix_conn_id"}


def test_the_api_key_appears_in_no_log_result_or_error(simulator: Simulator, mode: Mode) -> None:
    job = start_sync(simulator)
    simulator.fail("status", route="get_job", status=500)
    run = drive(lambda: job_sensor(job.id, **mode))
    assert run.error is None
    assert API_KEY not in run.said


def test_a_time_without_an_offset_is_utc() -> None:
    sensor = sync_sensor(since=datetime(2025, 3, 27))  # noqa: DTZ001
    sensor.validate_rendered()
    assert sensor.since == datetime(2025, 3, 27, tzinfo=UTC)


def test_a_set_of_states_is_sorted_so_that_each_parse_gives_the_same_dag() -> None:
    sensor = job_sensor("job_1", allowed_states={"succeeded", "cancelled", "failed"})
    assert sensor.allowed_states == ["cancelled", "failed", "succeeded"]
