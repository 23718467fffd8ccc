"""The fixture ``planasonix``: how tests of DAGs plan outcomes, and check what was started."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSensorTimeout

from planasonix_provider.api import rate_limiter
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixConflictError,
    PlanasonixJobFailedError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor, PlanasonixSyncSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.testing import Planasonix
from planasonix_provider.testing.planasonix import use_simulator
from planasonix_provider.testing.travelled_clock import TravelledClock

ORDERS = "conn_orders"
WINDOW = {"start_at": "2025-01-01", "end_at": "2025-02-01"}
#: More requests than any of these tests needs, and fewer than the polls of one hour.
FEW = 40

both_ways = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])


def sync(**how: Any) -> PlanasonixSyncOperator:
    return PlanasonixSyncOperator(**{"task_id": "load", "connection_id": ORDERS, "poll_interval": 10, **how})


def backfill(**how: Any) -> PlanasonixBackfillOperator:
    return PlanasonixBackfillOperator(**{"task_id": "replay", "connection_id": ORDERS, **WINDOW, **how})


def sensor(job_id: Any, **how: Any) -> PlanasonixJobSensor:
    return PlanasonixJobSensor(**{"task_id": "wait", "job_id": job_id, "poke_interval": 60, **how})


class TestOutcomes:
    @both_ways
    def test_planned_results_are_loaded(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, tables={"public.orders": 1200}, warnings={"late_rows": "Some came late."})
        for task in (sync(deferrable=deferrable), backfill(deferrable=deferrable)):
            result = planasonix.run(task).result
            assert [(table["name"], table["rows_loaded"]) for table in result["tables"]] == [("public.orders", 1200)]
            assert result["warnings"][0]["code"] == "late_rows"

    @both_ways
    @pytest.mark.parametrize("make", [sync, backfill])
    def test_a_planned_failure_fails_with_its_error(self, planasonix: Planasonix, deferrable: bool, make: Any) -> None:
        planasonix.will_fail(ORDERS, code="source_unreachable", message="No route to host.")
        with pytest.raises(PlanasonixJobFailedError, match=r"(?s)source_unreachable.*No route to host"):
            planasonix.run(make(deferrable=deferrable))

    def test_a_plan_with_times_ends(self, planasonix: Planasonix) -> None:
        planasonix.will_fail(ORDERS, times=2)
        for number in range(3):
            if number < 2:
                with pytest.raises(PlanasonixJobFailedError):
                    planasonix.run(sync())
            else:
                planasonix.run(sync())
        assert [start.status for start in planasonix.started()] == ["failed", "failed", "succeeded"]

    def test_a_connection_must_be_added(self, planasonix: Planasonix) -> None:
        with pytest.raises(Exception, match="no connection 'conn_orders'"):
            planasonix.run(sync())
        planasonix.add_connections(ORDERS)
        assert planasonix.run(sync()).result

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"takes": 0}, r"takes: got 0, allowed is a number of seconds"),
            ({"times": 0}, r"times: got 0, allowed is 1 to 10,000"),
            ({"tables": {"a": -1}}, r"tables"),
            ({"connection_id": "conn/1"}, r"connection_id: got 'conn/1', allowed is an id"),
        ],
    )
    def test_an_invalid_argument_is_refused_by_its_name(
        self, planasonix: Planasonix, wrong: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            planasonix.will_succeed(**{"connection_id": ORDERS, **wrong})


class TestTime:
    @pytest.mark.slow("simulates hours of polls")
    @both_ways
    def test_hours_pass_at_once(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(days=3))
        began = time.monotonic()
        assert planasonix.run(sync(deferrable=deferrable)).deferrals == deferrable
        assert timedelta(days=3) < planasonix.waited < timedelta(days=3, minutes=2)
        assert time.monotonic() - began < planasonix.waited.total_seconds() / 100
        assert len(planasonix.simulator.requests) < FEW

    @both_ways
    def test_work_that_takes_too_long_is_cancelled_at_the_timeout(
        self, planasonix: Planasonix, deferrable: bool
    ) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(days=1))
        with pytest.raises(PlanasonixTimeoutError):
            planasonix.run(sync(deferrable=deferrable, timeout=timedelta(hours=5)))
        assert timedelta(hours=5) < planasonix.waited < timedelta(hours=5, minutes=2)
        planasonix.assert_cancelled(ORDERS)
        planasonix.advance(1)
        assert planasonix.assert_started(ORDERS).status == "cancelled"

    @pytest.mark.parametrize("how", [{}, {"mode": "reschedule"}, {"deferrable": True}])
    def test_a_sensor_waits_for_a_long_job_until_its_timeout(self, planasonix: Planasonix, how: dict[str, Any]) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=6))
        job_id = planasonix.run(sync(wait_for_completion=False)).xcoms["job_id"]
        with pytest.raises(AirflowSensorTimeout):
            planasonix.run(sensor(job_id, timeout=3600, **how))
        assert timedelta(minutes=59) < planasonix.waited < timedelta(minutes=63)
        # The last poke is later than the job's end, and earlier than the timeout.
        assert planasonix.run(sensor(job_id, timeout=6 * 3600 - 3500, **how)).result["status"] == "succeeded"
        assert timedelta(hours=6) < planasonix.waited < timedelta(hours=6, minutes=3)
        assert len(planasonix.simulator.requests) < FEW

    @both_ways
    def test_no_polls_are_skipped_in_an_outage(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=6))
        planasonix.simulator.fail("status", route="get_job", status=503, skip=1, times=20)
        planasonix.simulator.fail("status", route="list_jobs", status=503, times=None)
        planasonix.run(sync(deferrable=deferrable, poll_interval=60))
        planasonix.simulator.fail("status", route="get_job", status=503, skip=1, times=None)
        with pytest.raises(PlanasonixOutageError):
            planasonix.run(sync(deferrable=deferrable, poll_interval=60))

    def test_a_test_can_advance_time(self, planasonix: Planasonix) -> None:
        planasonix.add_connections(ORDERS)
        planasonix.run(sync(wait_for_completion=False))
        planasonix.advance(timedelta(hours=1))
        assert planasonix.assert_started(ORDERS).status == "succeeded"
        assert planasonix.waited > timedelta(hours=1)


class TestStartedWork:
    def test_is_found_by_its_parameters(self, planasonix: Planasonix) -> None:
        planasonix.add_connections(ORDERS)
        planasonix.run(sync(pipeline_id="pl_1", priority="high", metadata={"ticket": "OPS-1", "team": "data"}))
        planasonix.run(backfill(tables=["public.orders"]))
        start = planasonix.assert_started(ORDERS, kind="sync", pipeline_id="pl_1", metadata={"ticket": "OPS-1"})
        assert start.parameters["metadata"]["task_id"] == "load"
        assert start.id == planasonix.simulator.jobs()[-1].id
        first_of_january = datetime(2025, 1, 1, tzinfo=UTC)
        assert planasonix.assert_started(start_at=first_of_january, tables=["public.orders"]).kind == "backfill"
        assert len(planasonix.started(ORDERS)) == 2
        assert planasonix.started("conn_demo_01") == planasonix.started(priority="low") == []
        assert len(planasonix.started(pipeline_id=None)) == 1
        planasonix.assert_not_started(metadata={"ticket": "OPS-2"})

    def test_is_listed_in_the_message_of_a_failed_assertion(self, planasonix: Planasonix) -> None:
        with pytest.raises(pytest.fail.Exception) as nothing:
            planasonix.assert_started(ORDERS, kind="sync")
        assert str(nothing.value) == "A sync of conn_orders was not started. What was started:\n  nothing"
        planasonix.add_connections(ORDERS)
        planasonix.run(sync(pipeline_id="pl_1", metadata={"ticket": "OPS-1"}))
        with pytest.raises(pytest.fail.Exception) as other:
            planasonix.assert_started(ORDERS, pipeline_id="pl_2")
        told = re.sub(r"by \S+\.load", "by dag.load", str(other.value))
        assert told == (
            "A sync or backfill of conn_orders (pipeline_id='pl_2') was not started. What was started:\n"
            "  - a sync of conn_orders (pipeline_id='pl_1', metadata={'ticket': 'OPS-1'}) by dag.load, "
            "which is succeeded"
        )
        planasonix.run(sync())
        with pytest.raises(pytest.fail.Exception, match="was started 2 times, and not once"):
            planasonix.assert_started(ORDERS)
        with pytest.raises(pytest.fail.Exception, match=r"A sync or backfill of any connection was started\."):
            planasonix.assert_not_started()
        with pytest.raises(pytest.fail.Exception, match="was not asked to cancel"):
            planasonix.assert_cancelled(ORDERS)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"kind": "job"}, "kind: got 'job', allowed is sync, backfill"),
            ({"table": "a"}, "table is no parameter of a start; there are pipeline_id"),
            ({"kind": "sync", "start_at": "2025-01-01"}, "start_at is no parameter of a sync"),
            ({"start_at": "yesterday"}, "start_at: got 'yesterday', allowed is a time"),
            ({"metadata": "OPS-1"}, "metadata: got 'OPS-1', allowed is a mapping"),
        ],
    )
    def test_cannot_be_searched_by_unknown_parameters(
        self, planasonix: Planasonix, asked: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            planasonix.started(**asked)


class TestOneTask:
    def test_has_its_templates_rendered(self, planasonix: Planasonix) -> None:
        planasonix.add_connections(ORDERS)
        task = sync(metadata={"day": "{{ ds }}", "ticket": "{{ params.ticket }}"}, params={"ticket": "OPS-1"})
        for _ in range(2):
            planasonix.run(task, ds="2025-03-27")
        assert len(planasonix.started(metadata={"day": "2025-03-27", "ticket": "OPS-1"})) == 2
        planasonix.run(task, ds="2025-03-28", params={"ticket": "OPS-2"})
        planasonix.assert_started(metadata={"day": "2025-03-28", "ticket": "OPS-2"})


class TestConnections:
    def test_of_any_name_lead_to_the_simulator(self, planasonix: Planasonix) -> None:
        planasonix.add_connections(ORDERS)
        planasonix.add_airflow_connection("planasonix_eu")
        planasonix.run(sync(planasonix_conn_id="planasonix_eu", deferrable=True))
        planasonix.assert_started(ORDERS)

    def test_to_other_hosts_are_refused(self, planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
        real = '{"conn_type": "planasonix", "password": "plnx_of_the_real_one"}'
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_EU", real)
        with pytest.raises(PlanasonixConfigurationError, match=r"leads to https://api\.planasonix\.com") as refused:
            PlanasonixHook("planasonix_eu").get_job("job_1")
        assert "plnx_of_the_real_one" not in str(refused.value)


class TestIsolation:
    names = ("AIRFLOW_CONN_PLANASONIX_DEFAULT", "AIRFLOW_CONN_PLANASONIX_EU")

    def test_one_test_changes_environment_time_and_simulator(self, planasonix: Planasonix) -> None:
        planasonix.add_airflow_connection("planasonix_eu")
        planasonix.will_fail(ORDERS)
        planasonix.simulator.fail("status", times=None)
        planasonix.advance(timedelta(days=1))
        assert all(name in os.environ for name in self.names)

    def test_environment_and_time_are_restored(self) -> None:
        assert not any(name in os.environ for name in self.names)
        assert abs(datetime.now(UTC).timestamp() - time.clock_gettime(time.CLOCK_REALTIME)) < 60

    def test_no_rate_limiter_is_left(self, _planasonix_simulator: Simulator) -> None:  # noqa: PT019
        with use_simulator(_planasonix_simulator) as planasonix:
            planasonix.add_connections(ORDERS)
            planasonix.run(sync())
        assert not rate_limiter._rate_limiters

    def test_the_simulator_is_reset(self, planasonix: Planasonix) -> None:
        assert planasonix.started() == []
        assert planasonix.waited < timedelta(hours=1)
        planasonix.add_connections(ORDERS)
        planasonix.run(sync())


def in_a_dag(make: Callable[[DAG], Any]) -> Any:
    with DAG("single", schedule=None) as dag:
        return make(dag)


class TestAMappedTask:
    HOW: ClassVar[dict[str, Any]] = {"task_id": "load", "deferrable": True}

    def test_runs_each_instance_with_its_own_arguments(self, planasonix: Planasonix) -> None:
        planasonix.add_connections("conn_a", "conn_b")
        task = in_a_dag(
            lambda _: PlanasonixSyncOperator.partial(**self.HOW).expand(
                connection_id=["conn_a", "conn_b"], priority=["low", "high"]
            )
        )
        runs = planasonix.run_mapped(task)
        started = [(start.connection_id, start.parameters["priority"]) for start in planasonix.started()]
        assert started == [("conn_a", "low"), ("conn_a", "high"), ("conn_b", "low"), ("conn_b", "high")]
        assert [start.parameters["metadata"]["map_index"] for start in planasonix.started()] == [0, 1, 2, 3]
        assert [run.result["connection_id"] for run in runs] == ["conn_a", "conn_a", "conn_b", "conn_b"]

    def test_takes_keyword_arguments_from_another_task(self, planasonix: Planasonix) -> None:
        planasonix.add_connections("conn_a", "conn_b")

        def make(_: DAG) -> Any:
            others = PlanasonixSyncOperator(task_id="others", connection_id="conn_c")
            return PlanasonixSyncOperator.partial(**self.HOW).expand_kwargs(others.output)

        given = {"others": [{"connection_id": "conn_a"}, {"connection_id": "conn_b", "priority": "high"}]}
        planasonix.run(in_a_dag(make), map_index=1, xcoms=given)
        planasonix.assert_started("conn_b", priority="high")
        planasonix.assert_not_started("conn_a")

    @pytest.mark.parametrize("map_index", [-1, 2])
    def test_with_an_invalid_index_is_an_error(self, planasonix: Planasonix, map_index: int) -> None:
        task = in_a_dag(lambda _: PlanasonixSyncOperator.partial(**self.HOW).expand(connection_id=["conn_a", "conn_b"]))
        with pytest.raises(ValueError, match=f"map_index: got {map_index}, .* mapped to 2 instances. Pass a map_index"):
            planasonix.run(task, map_index=map_index)

    def test_cannot_be_confused_with_an_unmapped_task(self, planasonix: Planasonix) -> None:
        with pytest.raises(ValueError, match="map_index: got 0, and task 'load' is not mapped"):
            planasonix.run(sync(), map_index=0)
        with pytest.raises(ValueError, match=r"task: got 'load', which is not mapped. Run it with planasonix.run\("):
            planasonix.run_mapped(sync())


class TestXComsOfOtherTasks:
    @pytest.mark.parametrize("how", ["template", "output"])
    def test_are_pulled_from_the_run_of_that_task(self, planasonix: Planasonix, how: str) -> None:
        planasonix.add_connections(ORDERS)

        def make(_: DAG) -> Any:
            start = PlanasonixSyncOperator(task_id="start", connection_id=ORDERS, wait_for_completion=False)
            template = "{{ ti.xcom_pull(task_ids='start', key='job_id') }}"
            wait = sensor(template if how == "template" else start.output["job_id"], deferrable=True)
            return start, wait

        start, wait = in_a_dag(make)
        ran = planasonix.run(start)
        result = planasonix.run(wait, xcoms={"start": ran}).result
        assert (result["job_id"], result["status"]) == (ran.xcoms["job_id"], "succeeded")

    def test_of_a_mapped_task_are_a_list(self, planasonix: Planasonix) -> None:
        planasonix.add_connections(ORDERS)
        template = "{{ ti.xcom_pull(task_ids='start', key='job_id', map_indexes=1) }}"
        runs = [planasonix.run(sync()) for _ in range(2)]
        result = planasonix.run(sensor(template), xcoms={"start": runs}).result
        assert result["job_id"] == runs[1].xcoms["job_id"]

    def test_are_an_error_if_the_test_does_not_pass_them(self, planasonix: Planasonix) -> None:
        with pytest.raises(LookupError, match=r"The test gives no XCom of task 'start'. Pass xcoms=\{'start': …\}"):
            planasonix.run(sensor("{{ ti.xcom_pull(task_ids='start', key='job_id') }}"))


class TestAnExternalStart:
    @pytest.mark.parametrize("how", [{}, {"mode": "reschedule"}, {"deferrable": True}])
    def test_is_seen_at_its_simulated_time(self, planasonix: Planasonix, how: dict[str, Any]) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=1))
        planasonix.start_externally(ORDERS, after=timedelta(hours=30), metadata={"by": "a person"})
        began = datetime.now(UTC)
        planasonix.assert_not_started(ORDERS)
        wait = PlanasonixSyncSensor(
            task_id="wait", connection_id=ORDERS, since=began, poke_interval=60, timeout=timedelta(days=3), **how
        )
        assert planasonix.run(wait).result["status"] == "succeeded"
        assert timedelta(hours=31) < planasonix.waited < timedelta(hours=31, minutes=5)
        (job,) = planasonix.simulator.jobs()
        assert job.created_at is not None
        assert timedelta(hours=29, minutes=59) < job.created_at - began < timedelta(hours=30, minutes=1)
        planasonix.assert_started(ORDERS, metadata={"by": "a person"})

    def test_conflicts_with_the_task(self, planasonix: Planasonix) -> None:
        planasonix.start_externally(ORDERS)
        with pytest.raises(PlanasonixConflictError):
            planasonix.run(sync())

    def test_is_refused_while_a_sync_runs(self, planasonix: Planasonix) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=1))
        planasonix.start_externally(ORDERS, after=60)
        planasonix.run(sync())
        planasonix.assert_started(ORDERS)

    def test_may_be_a_backfill(self, planasonix: Planasonix) -> None:
        planasonix.start_externally(
            ORDERS, kind="backfill", after=60, start_at="2025-01-01", end_at="2025-02-01", tables=["public.orders"]
        )
        planasonix.advance(61)
        planasonix.assert_started(ORDERS, kind="backfill", tables=["public.orders"])


def test_time_passes_again_after_the_request_of_another_thread() -> None:
    travel = TravelledClock()
    travel.in_flight = 1
    sleeper = threading.Thread(target=travel.run, args=(asyncio.sleep(3600),), daemon=True)
    sleeper.start()
    sleeper.join(0.2)
    assert (sleeper.is_alive(), travel.passed) == (True, 0.0)
    travel.in_flight = 0
    sleeper.join(60)
    assert not sleeper.is_alive()
    assert travel.passed >= 3599
