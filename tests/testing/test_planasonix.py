"""What a test of somebody's DAG says of Planasonix, and what it is told."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from planasonix_provider.api import pace
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixJobFailedError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor
from planasonix_provider.simulator import Simulator
from planasonix_provider.testing import Planasonix
from planasonix_provider.testing.planasonix import staged

ORDERS = "conn_orders"
WINDOW = {"start_at": "2025-01-01", "end_at": "2025-02-01"}
#: More requests than anything here needs, and fewer than an hour of looks makes.
FEW = 40

both_ways = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])


def sync(**how: Any) -> PlanasonixSyncOperator:
    return PlanasonixSyncOperator(**{"task_id": "load", "connection_id": ORDERS, "poll_interval": 10, **how})


def backfill(**how: Any) -> PlanasonixBackfillOperator:
    return PlanasonixBackfillOperator(**{"task_id": "replay", "connection_id": ORDERS, **WINDOW, **how})


def sensor(job_id: str, **how: Any) -> PlanasonixJobSensor:
    return PlanasonixJobSensor(**{"task_id": "wait", "job_id": job_id, "poke_interval": 60, **how})


class TestOutcomes:
    @both_ways
    def test_what_is_to_be_loaded_is_loaded(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, tables={"public.orders": 1200}, warnings={"late_rows": "Some came late."})
        for task in (sync(deferrable=deferrable), backfill(deferrable=deferrable)):
            result = planasonix.run(task).result
            assert [(table["name"], table["rows_loaded"]) for table in result["tables"]] == [("public.orders", 1200)]
            assert result["warnings"][0]["code"] == "late_rows"

    @both_ways
    @pytest.mark.parametrize("make", [sync, backfill])
    def test_what_is_to_fail_fails_and_says_why(self, planasonix: Planasonix, deferrable: bool, make: Any) -> None:
        planasonix.will_fail(ORDERS, code="source_unreachable", message="No route to host.")
        with pytest.raises(PlanasonixJobFailedError, match=r"(?s)source_unreachable.*No route to host"):
            planasonix.run(make(deferrable=deferrable))

    def test_some_come_first_and_then_the_others(self, planasonix: Planasonix) -> None:
        planasonix.will_fail(ORDERS, times=2)
        for number in range(3):
            if number < 2:
                with pytest.raises(PlanasonixJobFailedError):
                    planasonix.run(sync())
            else:
                planasonix.run(sync())
        assert [start.status for start in planasonix.started()] == ["failed", "failed", "succeeded"]

    def test_a_connection_that_nobody_has_named_does_not_exist(self, planasonix: Planasonix) -> None:
        with pytest.raises(Exception, match="no connection 'conn_orders'"):
            planasonix.run(sync())
        planasonix.knows(ORDERS)
        assert planasonix.run(sync()).result

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"takes": 0}, r"takes: got 0, allowed is a number of seconds"),
            ({"times": 0}, r"times: got 0, allowed is a number from 1"),
            ({"tables": {"a": -1}}, r"tables"),
            ({"connection_id": "conn/1"}, r"connection_id: got 'conn/1', allowed is an id"),
        ],
    )
    def test_nonsense_is_refused_by_name(self, planasonix: Planasonix, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            planasonix.will_succeed(**{"connection_id": ORDERS, **wrong})


class TestTime:
    @both_ways
    def test_hours_pass_at_once(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(days=3))
        began = time.monotonic()
        assert planasonix.run(sync(deferrable=deferrable)).deferrals == deferrable
        assert timedelta(days=3) < planasonix.waited < timedelta(days=3, minutes=2)
        assert time.monotonic() - began < planasonix.waited.total_seconds() / 100
        assert len(planasonix.simulator.requests) < FEW

    @both_ways
    def test_work_that_takes_too_long_is_cancelled_in_time(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(days=1))
        with pytest.raises(PlanasonixTimeoutError):
            planasonix.run(sync(deferrable=deferrable, timeout=timedelta(hours=5)))
        assert timedelta(hours=5) < planasonix.waited < timedelta(hours=5, minutes=2)
        planasonix.assert_cancelled(ORDERS)
        planasonix.let_pass(1)
        assert planasonix.assert_started(ORDERS).status == "cancelled"

    @pytest.mark.parametrize("how", [{}, {"mode": "reschedule"}, {"deferrable": True}])
    def test_a_sensor_sees_the_end_of_a_long_job_and_minds_its_timeout(
        self, planasonix: Planasonix, how: dict[str, Any]
    ) -> None:
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
    def test_an_outage_is_looked_at_as_often_as_ever(self, planasonix: Planasonix, deferrable: bool) -> None:
        planasonix.will_succeed(ORDERS, takes=timedelta(hours=6))
        planasonix.simulator.fail("status", route="get_job", status=503, skip=1, times=20)
        planasonix.simulator.fail("status", route="list_jobs", status=503, times=None)
        planasonix.run(sync(deferrable=deferrable, poll_interval=60))
        planasonix.simulator.fail("status", route="get_job", status=503, skip=1, times=None)
        with pytest.raises(PlanasonixOutageError):
            planasonix.run(sync(deferrable=deferrable, poll_interval=60))

    def test_a_test_may_let_time_pass(self, planasonix: Planasonix) -> None:
        planasonix.knows(ORDERS)
        planasonix.run(sync(wait_for_completion=False))
        planasonix.let_pass(timedelta(hours=1))
        assert planasonix.assert_started(ORDERS).status == "succeeded"
        assert planasonix.waited > timedelta(hours=1)


class TestWhatWasStarted:
    def test_is_told_with_its_parameters(self, planasonix: Planasonix) -> None:
        planasonix.knows(ORDERS)
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

    def test_is_told_in_the_message_where_something_else_was_expected(self, planasonix: Planasonix) -> None:
        with pytest.raises(pytest.fail.Exception) as nothing:
            planasonix.assert_started(ORDERS, kind="sync")
        assert str(nothing.value) == "A sync of conn_orders was not started. What was started:\n  nothing"
        planasonix.knows(ORDERS)
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
    def test_is_not_to_be_asked_for_by_what_does_not_exist(
        self, planasonix: Planasonix, asked: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            planasonix.started(**asked)


class TestOneTask:
    def test_has_its_templates_rendered(self, planasonix: Planasonix) -> None:
        planasonix.knows(ORDERS)
        task = sync(metadata={"day": "{{ ds }}", "ticket": "{{ params.ticket }}"}, params={"ticket": "OPS-1"})
        for _ in range(2):
            planasonix.run(task, ds="2025-03-27")
        assert len(planasonix.started(metadata={"day": "2025-03-27", "ticket": "OPS-1"})) == 2
        planasonix.run(task, ds="2025-03-28", params={"ticket": "OPS-2"})
        planasonix.assert_started(metadata={"day": "2025-03-28", "ticket": "OPS-2"})


class TestConnections:
    def test_lead_here_by_any_name(self, planasonix: Planasonix) -> None:
        planasonix.knows(ORDERS)
        planasonix.connect("planasonix_eu")
        planasonix.run(sync(planasonix_conn_id="planasonix_eu", deferrable=True))
        planasonix.assert_started(ORDERS)

    def test_to_anywhere_else_are_refused(self, planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
        real = '{"conn_type": "planasonix", "password": "plnx_of_the_real_one"}'
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_EU", real)
        with pytest.raises(PlanasonixConfigurationError, match=r"leads to https://api\.planasonix\.com") as refused:
            PlanasonixHook("planasonix_eu").get_job("job_1")
        assert "plnx_of_the_real_one" not in str(refused.value)


class TestOneTestLeavesNothingToTheNext:
    names = ("AIRFLOW_CONN_PLANASONIX_DEFAULT", "AIRFLOW_CONN_PLANASONIX_EU")

    def test_what_it_sets(self, planasonix: Planasonix) -> None:
        planasonix.connect("planasonix_eu")
        planasonix.will_fail(ORDERS)
        planasonix.simulator.fail("status", times=None)
        planasonix.let_pass(timedelta(days=1))
        assert all(name in os.environ for name in self.names)

    def test_is_gone(self) -> None:
        assert not any(name in os.environ for name in self.names)
        assert abs(datetime.now(UTC).timestamp() - time.clock_gettime(time.CLOCK_REALTIME)) < 60

    def test_nor_is_anything_known_of_a_rate_limit(self, _planasonix_simulator: Simulator) -> None:  # noqa: PT019
        with staged(_planasonix_simulator) as planasonix:
            planasonix.knows(ORDERS)
            planasonix.run(sync())
        assert not pace._paces

    def test_and_the_next_one_starts_anew(self, planasonix: Planasonix) -> None:
        assert planasonix.started() == []
        assert planasonix.waited < timedelta(hours=1)
        planasonix.knows(ORDERS)
        planasonix.run(sync())
