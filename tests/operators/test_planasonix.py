from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixConflictError,
)
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.scenarios import CONNECTION, routes_asked, sync
from tests.support.task_runs import Run, context, drive

pytestmark = pytest.mark.usefixtures("travel")


class TestSync:
    def test_returns_a_plain_dict(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(
            CONNECTION,
            tables={"public.orders": 44_802, "public.order_items": 1},
            warnings=[{"code": "column_type_widened", "message": "Column discount_pct coerced"}],
        )
        run = drive(lambda: sync(deferrable=deferrable))
        assert run.error is None
        job = simulator.jobs()[0]
        assert run.result == json.loads(json.dumps(run.result))
        assert run.result["job_id"] == job.id
        assert run.result["job_url"] == f"{simulator.url}/jobs/{job.id}"
        assert run.result["status"] == "succeeded"
        assert run.result["metrics"]["rows_loaded"] == 44_803
        assert datetime.fromisoformat(run.result["finished_at"]) > datetime.fromisoformat(run.result["created_at"])
        assert {table["name"]: table["rows_loaded"] for table in run.result["tables"]} == {
            "public.orders": 44_802,
            "public.order_items": 1,
        }
        assert run.result["tables_total"] == 2
        assert run.result["warnings"] == [{"code": "column_type_widened", "message": "Column discount_pct coerced"}]

    def test_pushes_its_job_as_soon_as_it_exists(self, simulator: Simulator) -> None:
        simulator.fail("status", route="get_job", status=404, times=None)
        run = Run()
        with pytest.raises(TaskDeferred):
            sync(deferrable=True).execute(context(run))
        job = simulator.jobs()[0]
        assert run.xcoms == {"job_id": job.id, "job_url": f"{simulator.url}/jobs/{job.id}"}

    def test_sends_the_fewest_requests_on_a_worker(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0.0, running_seconds=0.12)
        drive(lambda: sync(poll_interval=0.2))
        assert routes_asked(simulator) == ["list_jobs", "trigger_sync", "get_job", "get_job_results"]

    def test_polls_once_before_it_defers(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0.0, running_seconds=0.0)
        run = drive(lambda: sync(deferrable=True))
        assert run.deferred is None
        assert run.result["status"] == "succeeded"
        assert routes_asked(simulator) == ["list_jobs", "trigger_sync", "get_job", "get_job_results"]

    def test_defers_if_that_poll_fails(self, simulator: Simulator) -> None:
        simulator.fail("status", status=500, route="get_job")
        run = drive(lambda: sync(deferrable=True))
        assert run.deferred is not None
        assert run.result["status"] == "succeeded"

    def test_logs_and_returns_the_same_if_it_is_deferred(self, simulator: Simulator) -> None:
        def logged(deferrable: bool) -> tuple[list[str], dict[str, Any]]:
            simulator.reset()
            simulator.plan(
                CONNECTION, queued_seconds=0.1, running_seconds=0.3, warnings=[{"code": "w", "message": "m"}]
            )
            run = drive(lambda: sync(deferrable=deferrable, poll_interval=0.02))
            result = {key: value for key, value in run.result.items() if not key.endswith(("_at", "_id", "_url"))}
            for table in result["tables"]:
                del table["checksum"]
            lines = [re.sub(r"job_\w+|http\S+|[\d.,]+ (s|rows?|[kM]B|bytes)\b", "…", line) for line in run.log.lines]
            return lines, result

        on_a_worker, deferred = logged(deferrable=False), logged(deferrable=True)
        assert on_a_worker == deferred
        assert len(on_a_worker[0]) == 6, on_a_worker[0]

    def test_returns_at_once_without_wait_for_completion(self, simulator: Simulator, deferrable: bool) -> None:
        run = drive(lambda: sync(wait_for_completion=False, deferrable=deferrable))
        assert run.result["job_id"] == simulator.jobs()[0].id
        assert run.result["status"] == "queued"
        assert "tables" not in run.result
        assert routes_asked(simulator) == ["list_jobs", "trigger_sync"]

    def test_result_lists_a_thousand_tables(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, tables={f"public.t{number}": 1 for number in range(1_234)})
        run = drive(sync)
        assert len(run.result["tables"]) == 1_000
        assert run.result["tables_total"] == 1_234
        assert "The task's result lists the first 1,000 of 1,234 tables, and counts them all." in run.log.lines


class TestStart:
    def test_sends_the_parameters(self, simulator: Simulator) -> None:
        drive(
            lambda: sync(pipeline_id="pl_01hqxyz", priority="high", metadata={"ticket": "OPS-1", "task_id": "mine"}),
            try_number=2,
            map_index=7,
        )
        job = simulator.jobs()[0]
        assert job.connection_id == CONNECTION
        assert job.pipeline_id == "pl_01hqxyz"
        assert job.metadata is not None
        assert job.metadata.pop("airflow_attempt") in simulator.requests[1].headers["idempotency-key"]
        assert job.metadata == {
            "dag_id": "nightly",
            "task_id": "mine",
            "run_id": "scheduled__2025-03-27T02:00:00+00:00",
            "try_number": 2,
            "map_index": 7,
            "ticket": "OPS-1",
        }

    def test_has_its_own_key_in_each_try(self, simulator: Simulator) -> None:
        for _ in range(2):
            drive(sync)
        keys = [request.headers["idempotency-key"] for request in simulator.requests if request.route == "trigger_sync"]
        assert len(set(keys)) == 2
        assert all(key.startswith("nightly/scheduled__2025-03-27T02:00:00+00:00/load/-1/1/") for key in keys)

    def test_is_repeated_with_the_same_key(self, simulator: Simulator) -> None:
        simulator.fail("status", route="trigger_sync", status=503, headers={"Retry-After": "0"})
        simulator.fail("status", route="trigger_sync", status=429, headers={"Retry-After": "0"})
        run = drive(sync)
        assert run.error is None
        starts = [request for request in simulator.requests if request.route == "trigger_sync"]
        assert len(starts) == 3
        assert len({request.headers["idempotency-key"] for request in starts}) == 1
        assert len(simulator.jobs()) == 1

    def test_error_names_the_conflicting_job(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        first = drive(lambda: sync(wait_for_completion=False))
        second = drive(sync)
        assert isinstance(second.error, PlanasonixConflictError)
        assert f"in the way is job {first.result['job_id']}" in str(second.error)
        assert len(simulator.jobs()) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameter", "value", "words"),
        [
            ("connection_id", "", "connection_id: got '', allowed is an id as Planasonix gives it"),
            ("connection_id", "  ", "connection_id: got '  '"),
            ("connection_id", "../jobs", "connection_id: got '../jobs'"),
            ("connection_id", "conn 1", "connection_id: got 'conn 1'"),
            ("connection_id", "conn_1?x=y", "connection_id: got 'conn_1?x=y'"),
            ("connection_id", "conn_1\n", "connection_id: got 'conn_1\\n'"),
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
            ("on_conflict", "Fail", "on_conflict: got 'Fail', allowed is fail, attach, wait, skip"),
            ("on_cancelled", "restart", "on_cancelled: got 'restart', allowed is retry, fail"),
            ("on_cancelled", False, "on_cancelled: got False, allowed is retry, fail"),
            ("on_conflict", None, "on_conflict: got None, allowed is fail, attach, wait, skip"),
            ("on_conflict", ["wait"], "on_conflict: got ['wait'], allowed is fail, attach, wait, skip"),
            ("on_conflict", True, "on_conflict: got True, allowed is fail, attach, wait, skip"),
            ("cancel_on_kill", "False", "cancel_on_kill: got 'False', allowed is True or False"),
            ("cancel_on_kill", 0, "cancel_on_kill: got 0, allowed is True or False"),
            ("cancel_on_kill", None, "cancel_on_kill: got None, allowed is True or False"),
            ("deferrable", "no", "deferrable: got 'no', allowed is True or False"),
            ("wait_for_completion", None, "wait_for_completion: got None, allowed is True or False"),
        ],
    )
    def test_raises_when_the_dag_is_parsed(self, parameter: str, value: Any, words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            sync(**{parameter: value})

    @pytest.mark.parametrize(
        ("parameter", "rendered"),
        [
            ("connection_id", ""),
            ("priority", "urgent"),
            ("poll_interval", "soon"),
            ("timeout", "-5"),
            ("on_conflict", "queue"),
        ],
    )
    def test_from_a_template_fails_before_any_request(
        self, simulator: Simulator, parameter: str, rendered: str
    ) -> None:
        operator = sync(**{parameter: "{{ params.x }}"})
        setattr(operator, parameter, rendered)
        with pytest.raises(AirflowFailException, match=f"{parameter}: got {rendered!r}, allowed is"):
            operator.execute(context(Run()))
        assert simulator.requests == []

    def test_missing_airflow_connection(self) -> None:
        run = drive(lambda: sync(planasonix_conn_id="planasonix_nowhere"))
        assert isinstance(run.error, PlanasonixConfigurationError)
        assert "There is no Airflow connection 'planasonix_nowhere'" in str(run.error)
        assert "set AIRFLOW_CONN_PLANASONIX_NOWHERE for every process" in str(run.error)

    def test_invalid_event_of_a_trigger(self, simulator: Simulator) -> None:
        with pytest.raises(AirflowFailException, match="cannot read"):
            sync(deferrable=True).execute_complete(context(Run()), {"status": "success"})


def test_nothing_shows_the_api_key(simulator: Simulator, deferrable: bool) -> None:
    for fault in (None, "reset", "html", "empty"):
        for route in ("trigger_sync", "get_job", "get_job_results"):
            simulator.reset()
            if fault:
                simulator.fail(fault, route=route)
            assert API_KEY not in drive(lambda: sync(deferrable=deferrable)).said
