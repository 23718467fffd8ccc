from __future__ import annotations

import json
import re
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixConflictError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
)
from planasonix_provider.operators import road
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.driving import Log, Run, context, drive, record

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"


def sync(**parameters: Any) -> PlanasonixSyncOperator:
    return PlanasonixSyncOperator(
        **{"task_id": "load", "connection_id": CONNECTION, "poll_interval": 0.03, **parameters}
    )


def routes_asked(planasonix: Simulator) -> list[str]:
    return [request.route for request in planasonix.requests]


@pytest.fixture(params=[False, True], ids=["on a worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class TestASyncThatSucceeds:
    def test_is_accounted_for_in_a_plain_dict(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(
            CONNECTION,
            tables={"public.orders": 44_802, "public.order_items": 1},
            warnings=[{"code": "column_type_widened", "message": "Column discount_pct coerced"}],
        )
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        job = planasonix.jobs()[0]
        assert run.result == json.loads(json.dumps(run.result))
        assert run.result["job_id"] == job.id
        assert run.result["job_url"] == f"{planasonix.url}/jobs/{job.id}"
        assert run.result["status"] == "succeeded"
        assert run.result["metrics"]["rows_loaded"] == 44_803
        assert datetime.fromisoformat(run.result["finished_at"]) > datetime.fromisoformat(run.result["created_at"])
        assert {table["name"]: table["rows_loaded"] for table in run.result["tables"]} == {
            "public.orders": 44_802,
            "public.order_items": 1,
        }
        assert run.result["tables_total"] == 2
        assert run.result["warnings"] == [{"code": "column_type_widened", "message": "Column discount_pct coerced"}]

    def test_tells_of_its_job_by_xcom_the_moment_that_it_exists(self, planasonix: Simulator) -> None:
        planasonix.fail("status", route="get_job", status=404, times=None)
        run = Run()
        with pytest.raises(TaskDeferred):
            sync(deferrable=True).execute(context(run))
        job = planasonix.jobs()[0]
        assert run.xcoms == {"job_id": job.id, "job_url": f"{planasonix.url}/jobs/{job.id}"}

    def test_asks_the_least_on_a_worker(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, queued_seconds=0.0, running_seconds=0.12)
        drive(lambda: sync(poll_interval=0.2))
        assert routes_asked(planasonix) == ["trigger_sync", "get_job", "get_job_results"]

    def test_looks_once_before_it_defers(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, queued_seconds=0.0, running_seconds=0.0)
        run = drive(lambda: sync(deferrable=True))
        assert run.deferred is None
        assert run.result["status"] == "succeeded"
        assert routes_asked(planasonix) == ["trigger_sync", "get_job", "get_job_results"]

    def test_defers_even_if_that_look_fails(self, planasonix: Simulator) -> None:
        planasonix.fail("status", status=500, route="get_job")
        run = drive(lambda: sync(deferrable=True))
        assert run.deferred is not None
        assert run.result["status"] == "succeeded"

    def test_says_the_same_and_returns_the_same_both_ways(self, planasonix: Simulator) -> None:
        def told(deferrable: bool) -> tuple[list[str], dict[str, Any]]:
            planasonix.reset()
            planasonix.plan(
                CONNECTION, queued_seconds=0.1, running_seconds=0.3, warnings=[{"code": "w", "message": "m"}]
            )
            run = drive(lambda: sync(deferrable=deferrable, poll_interval=0.02))
            result = {key: value for key, value in run.result.items() if not key.endswith(("_at", "_id", "_url"))}
            for table in result["tables"]:
                del table["checksum"]
            lines = [re.sub(r"job_\w+|http\S+|[\d.,]+ (s|rows?|[kM]B|bytes)\b", "…", line) for line in run.log.lines]
            return lines, result

        on_a_worker, deferred = told(deferrable=False), told(deferrable=True)
        assert on_a_worker == deferred
        assert len(on_a_worker[0]) == 6, on_a_worker[0]

    def test_returns_at_once_where_it_is_not_to_wait(self, planasonix: Simulator, deferrable: bool) -> None:
        run = drive(lambda: sync(wait_for_completion=False, deferrable=deferrable))
        assert run.result["job_id"] == planasonix.jobs()[0].id
        assert run.result["status"] == "queued"
        assert "tables" not in run.result
        assert routes_asked(planasonix) == ["trigger_sync"]

    def test_lists_a_thousand_tables_and_counts_the_rest(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, tables={f"public.t{number}": 1 for number in range(1_234)})
        run = drive(sync)
        assert len(run.result["tables"]) == 1_000
        assert run.result["tables_total"] == 1_234
        assert "The task's result lists the first 1,000 of 1,234 tables, and counts them all." in run.log.lines


class TestTheStart:
    def test_sends_what_the_dag_says(self, planasonix: Simulator) -> None:
        drive(
            lambda: sync(pipeline_id="pl_01hqxyz", priority="high", metadata={"ticket": "OPS-1", "task_id": "mine"}),
            try_number=2,
            map_index=7,
        )
        job = planasonix.jobs()[0]
        assert job.connection_id == CONNECTION
        assert job.pipeline_id == "pl_01hqxyz"
        assert job.metadata == {
            "dag_id": "nightly",
            "task_id": "mine",
            "run_id": "scheduled__2025-03-27T02:00:00+00:00",
            "try_number": 2,
            "map_index": 7,
            "ticket": "OPS-1",
        }

    def test_carries_a_key_of_its_own_at_each_try(self, planasonix: Simulator) -> None:
        for _ in range(2):
            drive(sync)
        keys = [
            request.headers["idempotency-key"] for request in planasonix.requests if request.route == "trigger_sync"
        ]
        assert len(set(keys)) == 2
        assert all(key.startswith("nightly/scheduled__2025-03-27T02:00:00+00:00/load/-1/1/") for key in keys)

    def test_is_repeated_with_its_key_where_it_surely_started_nothing(self, planasonix: Simulator) -> None:
        planasonix.fail("status", route="trigger_sync", status=503, headers={"Retry-After": "0"})
        planasonix.fail("status", route="trigger_sync", status=429, headers={"Retry-After": "0"})
        run = drive(sync)
        assert run.error is None
        starts = [request for request in planasonix.requests if request.route == "trigger_sync"]
        assert len(starts) == 3
        assert len({request.headers["idempotency-key"] for request in starts}) == 1
        assert len(planasonix.jobs()) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(
        ("kind", "status"), [("reset", None), ("cut", None), ("empty", None), ("html", 502), ("status", 500)]
    )
    def test_is_never_repeated_where_it_may_have_started_something(
        self, planasonix: Simulator, kind: Any, status: int | None, when: Any
    ) -> None:
        planasonix.fail(kind, route="trigger_sync", status=status, when=when)
        run = drive(lambda: sync(deferrable=True))
        assert isinstance(run.error, AirflowFailException), "a retry of the task could start the sync twice"
        assert "Nobody knows whether the work was started" in str(run.error)
        assert CONNECTION in str(run.error)
        assert routes_asked(planasonix) == ["trigger_sync"]

    def test_names_the_job_in_its_way(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        first = drive(lambda: sync(wait_for_completion=False))
        second = drive(sync)
        assert isinstance(second.error, PlanasonixConflictError)
        assert f"in the way is job {first.result['job_id']}" in str(second.error)
        assert len(planasonix.jobs()) == 1


class TestASyncThatDoesNotSucceed:
    def test_fails_with_the_code_and_message_of_the_api(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route to the source")
        run = drive(lambda: sync(deferrable=deferrable))
        job = planasonix.jobs()[0]
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert str(run.error) == (
            f"Job {job.id} failed: source_unreachable: No route to the source. See {planasonix.url}/jobs/{job.id}"
        )
        assert "get_job_results" not in routes_asked(planasonix)

    def test_fails_when_somebody_cancels_its_job(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        somebody = threading.Timer(0.3, lambda: planasonix.world.cancel(planasonix.jobs()[0].id))
        somebody.start()
        run = drive(lambda: sync(deferrable=deferrable))
        somebody.join()
        assert isinstance(run.error, PlanasonixJobCancelledError)

    @pytest.mark.parametrize("limit", [{"timeout": 0.3}, {"timeout": timedelta(seconds=0.3)}, {"timeout": "0.3"}])
    def test_is_cancelled_when_its_time_is_up(
        self, planasonix: Simulator, deferrable: bool, limit: dict[str, Any]
    ) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, **limit))
        job = planasonix.jobs()[0]
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert re.fullmatch(
            rf"Job {job.id} was not over by \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, the end of the time that timeout and "
            r"execution_timeout allow; it was running\. It was asked to cancel\.",
            str(run.error),
        )
        assert job.status in ("cancelling", "cancelled")

    def test_gives_up_at_the_earlier_of_both_limits(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        run = drive(
            lambda: sync(deferrable=True, timeout=3600, execution_timeout=timedelta(seconds=0.3)),
        )
        assert isinstance(run.error, PlanasonixTimeoutError)

    def test_ends_its_execution_timeout_a_little_early_the_same_way_on_a_worker(
        self, planasonix: Simulator, deferrable: bool
    ) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, execution_timeout=timedelta(seconds=1)))
        assert isinstance(run.error, PlanasonixTimeoutError)

    def test_counts_its_execution_timeout_from_the_tasks_start_as_airflow_does(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        waiting = context(Run())
        waiting["ti"].start_date = began = datetime.now(UTC) - timedelta(minutes=5)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, execution_timeout=timedelta(minutes=10)).execute(waiting)
        deadline = datetime.fromisoformat(deferred.value.trigger.serialize()[1]["deadline"])
        assert deadline == began + timedelta(minutes=10) - timedelta(seconds=30)

    def test_is_not_tried_again_if_it_could_not_be_cancelled(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        planasonix.fail("status", status=403, route="cancel_job", times=None)
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.3))
        assert isinstance(run.error, AirflowFailException)
        assert "It could not be cancelled and may still run" in str(run.error)

    def test_that_failed_just_before_the_cancel_still_tells_why(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, queued_seconds=0, running_seconds=0.3, outcome="failed", code="source_unreachable")
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.4, poll_interval=60))
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert "source_unreachable" in str(run.error)

    def test_runs_on_after_the_deadline_where_the_user_says_so(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.3, cancel_on_kill=False))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert str(run.error).endswith("It was not cancelled, and runs on.")
        assert planasonix.jobs()[0].status == "running"

    def test_succeeds_if_it_was_over_when_the_cancel_came(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, queued_seconds=0, running_seconds=0.3)
        run = drive(lambda: sync(deferrable=deferrable, timeout=0.4, poll_interval=60))
        assert run.error is None
        assert run.result["status"] == "succeeded"
        assert run.result["metrics"]["rows_loaded"] == 44_802

    def test_hands_airflow_a_later_timeout_as_a_backstop(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True, timeout=100).execute(context(Run()))
        assert deferred.value.timeout is not None
        assert 100 + 60 < deferred.value.timeout.total_seconds() < 100 + 3600

    def test_gives_airflow_time_to_see_it_go(self, planasonix: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(road, "SETTLING", timedelta(seconds=7))
        planasonix.plan(CONNECTION, running_seconds=60)
        before = datetime.now(UTC)
        with pytest.raises(TaskDeferred) as deferred:
            sync(deferrable=True).execute(context(Run()))
        not_before = datetime.fromisoformat(deferred.value.trigger.serialize()[1]["not_before"])
        assert before + timedelta(seconds=7) <= not_before <= datetime.now(UTC) + timedelta(seconds=7)

    def test_has_no_deadline_unless_one_is_asked_for(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
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
        self, planasonix: Simulator, deferrable: bool, kind: Any, status: int | None, headers: dict[str, str]
    ) -> None:
        planasonix.fail(kind, route="get_job", status=status, headers=headers, times=3, skip=1)
        planasonix.fail(kind, route="get_job_results", status=status, headers=headers, times=1)
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        assert len(planasonix.jobs()) == 1
        assert any(line.startswith("No news of job") for line in run.log.lines)
        assert any(line.startswith("Planasonix answers again") for line in run.log.lines)

    @pytest.mark.parametrize(
        ("status", "words"), [(400, "Correct what it names"), (403, "lacks the scope"), (404, "check the id")]
    )
    def test_that_no_retry_can_mend_end_the_retries(self, planasonix: Simulator, status: int, words: str) -> None:
        planasonix.fail("status", route="trigger_sync", status=status)
        run = drive(sync)
        assert isinstance(run.error, AirflowFailException)
        assert f"POST /api/v1/connections/{CONNECTION}/sync: answered {status}" in str(run.error)
        assert words in str(run.error)

    def test_an_unknown_connection_is_named(self, planasonix: Simulator) -> None:
        run = drive(lambda: sync(connection_id="conn_unknown"))
        assert isinstance(run.error, AirflowFailException)
        assert "/connections/conn_unknown/sync: answered 404" in str(run.error)

    def test_a_wrong_key_leaves_the_retries_for_it_may_be_being_rotated(self, planasonix: Simulator) -> None:
        planasonix.fail("status", route="trigger_sync", status=401)
        run = drive(sync)
        assert isinstance(run.error, PlanasonixAuthenticationError)

    def test_a_key_that_is_rotated_meanwhile_fails_nothing(
        self, planasonix: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planasonix.plan(CONNECTION, queued_seconds=0.0, running_seconds=1.0)

        def rotate() -> None:
            planasonix.world.keys.add("plnx_test_rotated")
            monkeypatch.setenv(
                "AIRFLOW_CONN_PLANASONIX_DEFAULT",
                json.dumps({**planasonix.airflow_connection(), "password": "plnx_test_rotated"}),
            )
            planasonix.world.keys.revoke(API_KEY)

        timer = threading.Timer(0.4, rotate)
        timer.start()
        run = drive(lambda: sync(deferrable=deferrable, poll_interval=0.1))
        timer.join()
        assert run.error is None
        assert 401 in {request.status for request in planasonix.requests}

    def test_a_key_that_is_rotated_before_the_results_fails_nothing(
        self, planasonix: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planasonix.fail("status", status=401, route="get_job_results")
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None

    def test_an_xcom_that_cannot_be_written_abandons_no_job(self, planasonix: Simulator) -> None:
        operator = sync()
        record(operator, log := Log())
        waiting = context(Run())

        def down(key: str, value: str) -> None:
            raise ConnectionError("the API server is down")

        waiting["ti"].xcom_push = down
        assert operator.execute(waiting)["status"] == "succeeded"
        assert any("could not be written" in line for line in log.lines)

    def test_a_job_that_is_gone_fails_the_task(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        planasonix.fail("status", status=404, route="get_job", times=None)
        run = drive(lambda: sync(deferrable=deferrable))
        assert isinstance(run.error, AirflowFailException)
        assert "answered 404" in str(run.error)

    def test_results_that_are_late_are_waited_for(self, planasonix: Simulator, deferrable: bool) -> None:
        planasonix.fail("status", status=409, route="get_job_results", times=2)
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        assert run.result["tables_total"] >= 1
        assert routes_asked(planasonix).count("get_job_results") == 3


def killed(operator: PlanasonixSyncOperator, *, after: float) -> tuple[BaseException, Log]:
    """Run a task that is killed as Airflow does it: a signal's handler calls ``on_kill`` and returns."""
    record(operator, log := Log())
    previous = signal.signal(signal.SIGALRM, lambda *_: operator.on_kill())
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        operator.execute(context(Run()))
    except Exception as error:
        return error, log
    finally:
        signal.signal(signal.SIGALRM, previous)
    raise AssertionError("the task went on")


class TestAKill:
    def test_cancels_the_job_and_ends_the_task(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        began = time.monotonic()
        error, log = killed(sync(poll_interval=60), after=0.3)
        assert isinstance(error, PlanasonixJobCancelledError)
        assert time.monotonic() - began < 5
        (job,) = planasonix.jobs()
        assert job.status in ("cancelling", "cancelled")
        assert f"The task was killed. Job {job.id} was asked to cancel." in log.lines

    def test_sends_the_cancel_first_and_tries_it_again(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        operator = self._started()
        planasonix.fail("status", status=503, times=2)
        before = len(planasonix.requests)
        operator.on_kill()
        assert routes_asked(planasonix)[before:] == ["cancel_job"] * 3
        assert planasonix.jobs()[0].status in ("cancelling", "cancelled")

    def test_says_which_job_is_left_if_it_cannot_be_cancelled(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        planasonix.fail("status", status=403, route="cancel_job", times=None)
        error, log = killed(sync(poll_interval=60), after=0.3)
        (job,) = planasonix.jobs()
        assert f"The task was killed. Job {job.id} could not be cancelled and may still run: end it in" in str(error)
        assert str(error) in log.lines

    def test_ends_within_five_seconds_even_if_the_cancel_hangs(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        operator = self._started()
        planasonix.fail("hang", route="cancel_job", seconds=20)
        began = time.monotonic()
        operator.on_kill()
        assert time.monotonic() - began < 5
        assert planasonix.jobs()[0].status in ("cancelling", "cancelled"), "the second try came through"

    def test_between_two_tries_of_the_start_starts_nothing(self, planasonix: Simulator) -> None:
        planasonix.fail("status", route="trigger_sync", status=503, headers={"Retry-After": "60"})
        error, _ = killed(sync(), after=0.3)
        assert isinstance(error, PlanasonixJobCancelledError)
        assert planasonix.jobs() == []

    @pytest.mark.parametrize("parameters", [{"wait_for_completion": False}, {"deferrable": True}])
    def test_while_the_job_is_told_of_ends_the_task(self, planasonix: Simulator, parameters: dict[str, Any]) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        operator = sync(**parameters)
        record(operator, Log())
        told = context(Run())
        told["ti"].xcom_push = lambda key, value: operator.on_kill()
        with pytest.raises(PlanasonixJobCancelledError, match="was asked to cancel"):
            operator.execute(told)
        assert planasonix.jobs()[0].status in ("cancelling", "cancelled")

    def test_writes_no_log_in_the_signals_handler(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        operator = self._started()
        before = list(operator.log.lines)
        operator.on_kill()
        assert operator.log.lines == before

    def test_cancels_nothing_where_the_user_says_so(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        error, _ = killed(sync(cancel_on_kill=False), after=0.3)
        (job,) = planasonix.jobs()
        assert str(error) == f"The task was killed. Job {job.id} was not cancelled, and runs on."
        assert "cancel_job" not in routes_asked(planasonix)

    def test_before_the_start_is_no_error(self, planasonix: Simulator) -> None:
        sync().on_kill()
        assert planasonix.requests == []

    def test_during_the_start_cancels_what_was_started(self, planasonix: Simulator) -> None:
        planasonix.plan(CONNECTION, running_seconds=60)
        planasonix.fail("hang", route="trigger_sync", seconds=0.5)
        error, _ = killed(sync(), after=0.2)
        assert isinstance(error, PlanasonixJobCancelledError)
        assert planasonix.jobs()[0].status in ("cancelling", "cancelled")

    def test_after_the_end_cancels_nothing(self, planasonix: Simulator) -> None:
        operator = sync()
        record(operator, Log())
        operator.execute(context(Run()))
        operator.on_kill()
        assert "cancel_job" not in routes_asked(planasonix)

    @staticmethod
    def _started(**parameters: Any) -> PlanasonixSyncOperator:
        """A task that has started its job, and waits for it no longer in this process."""
        operator = sync(wait_for_completion=False, **parameters)
        record(operator, Log())
        operator.execute(context(Run()))
        return operator


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameter", "value", "words"),
        [
            ("connection_id", "", "connection_id: got '', allowed is a text that is not empty"),
            ("connection_id", "  ", "connection_id: got '  '"),
            ("connection_id", None, "connection_id: got None"),
            ("priority", "urgent", "priority: got 'urgent', allowed is low, normal, high"),
            ("poll_interval", 0, "poll_interval: got 0, allowed is a number of seconds above 0"),
            ("poll_interval", -1, "poll_interval: got -1"),
            ("poll_interval", None, "poll_interval: got None"),
            ("timeout", 0, "timeout: got 0"),
            ("timeout", timedelta(0), "timeout: got datetime.timedelta(0)"),
            ("metadata", ["a"], "metadata: got ['a'], allowed is a mapping"),
            ("metadata", {"at": datetime(2025, 1, 1, tzinfo=UTC)}, "allowed is what JSON can hold"),
            ("pipeline_id", "", "pipeline_id: got ''"),
            ("planasonix_conn_id", "", "planasonix_conn_id: got ''"),
        ],
    )
    def test_is_refused_when_the_dag_is_parsed(self, parameter: str, value: Any, words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            sync(**{parameter: value})

    @pytest.mark.parametrize(
        ("parameter", "rendered"),
        [("connection_id", ""), ("priority", "urgent"), ("poll_interval", "soon"), ("timeout", "-5")],
    )
    def test_of_a_template_is_refused_before_the_first_request(
        self, planasonix: Simulator, parameter: str, rendered: str
    ) -> None:
        operator = sync(**{parameter: "{{ params.x }}"})
        setattr(operator, parameter, rendered)
        with pytest.raises(AirflowFailException, match=f"{parameter}: got {rendered!r}, allowed is"):
            operator.execute(context(Run()))
        assert planasonix.requests == []

    def test_a_missing_connection_says_which_and_how_to_make_it(self) -> None:
        run = drive(lambda: sync(planasonix_conn_id="planasonix_nowhere"))
        assert isinstance(run.error, PlanasonixConfigurationError)
        assert "There is no Airflow connection 'planasonix_nowhere'" in str(run.error)
        assert "airflow connections add planasonix_nowhere --conn-type planasonix" in str(run.error)

    def test_an_event_that_does_not_validate_fails_the_task_with_a_reason(self, planasonix: Simulator) -> None:
        with pytest.raises(AirflowFailException, match="cannot read"):
            sync(deferrable=True).execute_complete(context(Run()), {"status": "success"})


def test_ids_go_out_as_one_segment_of_the_path(planasonix: Simulator) -> None:
    run = drive(lambda: sync(connection_id="../jobs?x=/é "))
    assert "answered 404" in str(run.error)
    assert [(request.route, request.path) for request in planasonix.requests] == [
        ("trigger_sync", "/api/v1/connections/..%2Fjobs%3Fx%3D%2F%C3%A9%20/sync")
    ]


def test_the_key_is_in_nothing_that_a_person_can_read(planasonix: Simulator, deferrable: bool) -> None:
    for fault in (None, "reset", "html", "empty"):
        for route in ("trigger_sync", "get_job", "get_job_results"):
            planasonix.reset()
            if fault:
                planasonix.fail(fault, route=route)
            assert API_KEY not in drive(lambda: sync(deferrable=deferrable)).said
