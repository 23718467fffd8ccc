from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
    PlanasonixValidationError,
)
from planasonix_provider.execution.summary import ExecutionSummary
from planasonix_provider.simulator import Simulator
from tests.support.scenarios import CONNECTION, backfill, is_asked, meanwhile, sync
from tests.support.task_runs import Run, drive


def known(make: Callable[..., Any], **parameters: Any) -> tuple[ExecutionSummary, Run]:
    """What the process knows in the end that ran a task's last stretch."""
    processes: list[Any] = []

    def process() -> Any:
        processes.append(make(**parameters))
        return processes[-1]

    run = drive(process)
    return processes[-1]._execution.summary, run


class TestWhatIsKnownOfASync:
    def test_that_is_done_is_its_job_and_every_table(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, tables={f"public.t{number}": number for number in range(1_234)})
        accounted, run = known(sync, deferrable=deferrable)
        job = simulator.jobs()[0]
        assert (accounted.kind, accounted.id) == ("job", job.id)
        assert accounted.work is not None
        assert (accounted.work.status, accounted.work.connection_id) == ("succeeded", CONNECTION)
        assert (accounted.host, accounted.url) == (simulator.url.removeprefix("http://"), run.result["job_url"])
        assert accounted.tables is not None
        assert [table.rows_loaded for table in accounted.tables] == list(range(1_234))
        assert all(table.checksum for table in accounted.tables)
        assert accounted.error is None

    def test_that_failed_is_its_job_with_the_reason_and_no_table(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route")
        accounted, run = known(sync, deferrable=deferrable)
        assert accounted.id == simulator.jobs()[0].id
        assert accounted.work is not None
        assert accounted.work.error is not None
        assert accounted.work.error.code == "source_unreachable"
        assert accounted.error is run.error
        assert isinstance(accounted.error, PlanasonixJobFailedError)
        assert accounted.tables is None

    def test_that_was_cancelled_is_so(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with meanwhile(lambda: simulator.workspace.cancel(simulator.jobs()[0].id), once=is_asked(simulator, "get_job")):
            accounted, _ = known(sync, deferrable=deferrable)
        assert isinstance(accounted.error, PlanasonixJobCancelledError)
        assert accounted.work is not None
        assert accounted.work.status == "cancelled"

    @pytest.mark.usefixtures("travel")
    def test_that_is_out_of_time_is_its_job_and_where_it_is(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        accounted, _ = known(sync, deferrable=deferrable, timeout=0.3)
        assert isinstance(accounted.error, PlanasonixTimeoutError)
        assert accounted.id == simulator.jobs()[0].id
        assert accounted.host == simulator.url.removeprefix("http://")
        assert accounted.tables is None

    def test_that_nobody_waits_for_is_its_job(self, simulator: Simulator) -> None:
        accounted, run = known(sync, wait_for_completion=False)
        assert (accounted.id, accounted.url) == (run.result["job_id"], run.result["job_url"])
        assert (accounted.tables, accounted.error) == (None, None)

    def test_that_could_not_start_is_why_though_airflow_is_told_in_its_own_words(self, simulator: Simulator) -> None:
        simulator.fail("status", status=400, route="trigger_sync")
        accounted, run = known(sync)
        assert isinstance(run.error, AirflowFailException)
        assert isinstance(accounted.error, PlanasonixValidationError)
        assert (accounted.id, accounted.work) == (None, None)


class TestWhatIsKnownOfABackfill:
    def test_that_is_done_is_each_table_once(self, simulator: Simulator, deferrable: bool) -> None:
        accounted, run = known(backfill, deferrable=deferrable, tables=["public.orders", "public.items"])
        assert (accounted.kind, accounted.id) == ("backfill", run.result["backfill_id"])
        assert run.result["jobs_total"] > 1
        assert accounted.tables is not None
        assert {table.name: table.rows_loaded for table in accounted.tables} == {
            table["name"]: table["rows_loaded"] for table in run.result["tables"]
        }
        assert accounted.work is not None
        assert accounted.work.status == "completed"

    def test_that_failed_is_its_id_and_the_reason(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, failing_jobs=[1])
        accounted, run = known(backfill, deferrable=deferrable)
        assert accounted.error is run.error
        assert accounted.id == simulator.backfills()[0].id
        assert accounted.url == run.xcoms["job_url"]


class TestTheOperator:
    @pytest.mark.parametrize("make", [sync, backfill])
    def test_knows_nothing_before_it_runs(self, make: Callable[..., Any]) -> None:
        assert make()._execution is None

    def test_is_copied_with_what_it_knows(self, simulator: Simulator) -> None:
        accounted, _ = known(sync)
        assert copy.deepcopy(accounted) == accounted

    def test_hands_it_to_no_template_and_no_serialized_dag(self) -> None:
        assert "_execution" not in sync().template_fields
        assert "_execution" not in type(sync()).get_serialized_fields()
