from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AssetAlias, TaskDeferred

from planasonix_provider.api.errors import (
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixTimeoutError,
)
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.faults import order_fourteen_faults
from tests.support.scenarios import CONNECTION, backfill, is_asked, meanwhile, routes_asked, the_one
from tests.support.task_runs import Run, context, drive

pytestmark = pytest.mark.usefixtures("travel")


class TestBackfillThatSucceeds:
    def test_returns_the_results_of_all_jobs(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(
            CONNECTION,
            jobs=3,
            parallel=2,
            tables={"public.orders": 44_802, "public.order_items": 1},
            warnings=[{"code": "column_type_widened", "message": "Column discount_pct coerced"}],
        )
        run = drive(lambda: backfill(deferrable=deferrable))
        assert run.error is None
        one = the_one(simulator)
        assert run.result == json.loads(json.dumps(run.result))
        assert (run.result["backfill_id"], run.result["status"]) == (one.id, "completed")
        assert (run.result["start_at"], run.result["end_at"]) == ("2025-01-01T00:00:00Z", "2025-03-01T00:00:00Z")
        assert run.result["rows_loaded"] == run.result["rows_processed"] == 44_803
        assert [job["job_id"] for job in run.result["jobs"]] == one.job_ids
        assert sum(job["rows_loaded"] for job in run.result["jobs"]) == 44_803
        assert {table["name"]: table["rows_loaded"] for table in run.result["tables"]} == {
            "public.orders": 44_802,
            "public.order_items": 1,
        }
        assert (run.result["jobs_total"], run.result["tables_total"]) == (3, 2)
        assert run.result["warnings_total"] > 0
        assert routes_asked(simulator).count("get_job_results") == 3
        assert "Loaded 44,803 rows into 2 tables by 3 jobs." in run.log.lines

    def test_pushes_its_id_as_soon_as_it_exists(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=60)
        run = Run()
        with pytest.raises(TaskDeferred):
            backfill(deferrable=True).execute(context(run))
        assert run.xcoms == {"backfill_id": the_one(simulator).id}

    def test_links_to_its_first_job(self, simulator: Simulator) -> None:
        run = drive(lambda: backfill(deferrable=True))
        assert run.xcoms["job_url"] == f"{simulator.url}/jobs/{(the_one(simulator).job_ids or [])[0]}"

    def test_sends_the_parameters(self, simulator: Simulator) -> None:
        drive(
            lambda: backfill(
                start_at=datetime(2025, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
                end_at="2025-02-01",
                tables=["public.orders"],
                priority="low",
                metadata={"reason": "post_incident_replay"},
            ),
            map_index=3,
        )
        one = the_one(simulator)
        assert (one.start_at, one.end_at) == (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC))
        assert one.tables == ["public.orders"]
        assert one.metadata is not None
        assert (one.metadata["reason"], one.metadata["task_id"], one.metadata["map_index"]) == (
            "post_incident_replay",
            "load",
            3,
        )

    def test_logs_its_progress(self, simulator: Simulator) -> None:
        def logged(deferrable: bool) -> list[str]:
            simulator.reset()
            simulator.plan_backfill(CONNECTION, queued_seconds=90, jobs=6, parallel=2, job_seconds=300)
            run = drive(lambda: backfill(deferrable=deferrable, poll_interval=150))
            return [re.sub(r"bf_\w+", "bf_1", line) for line in run.log.lines]

        first_lines = [
            "Started backfill bf_1 on connection conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            "Backfill bf_1 is queued, 0 %, after 0 s.",
            "Backfill bf_1 is running, 6 %, 333,332 rows processed, 0 of 2 jobs so far done, about 39 min 10 s left, "
            "after 2 min 30 s.",
        ]
        later_line = (
            "Backfill bf_1 is running, 73 %, 3,666,666 rows processed, 4 of 6 jobs so far done, about 4 min 37 s left"
        )
        last_lines = [
            "Backfill bf_1 completed, 5,000,000 rows processed, in 16 min 30 s.",
            "Loaded 5,000,000 rows into 2 tables by 6 jobs.",
        ]
        for deferrable in (False, True):
            lines = logged(deferrable)
            lines_of_polls = [line for line in lines if "seen" not in line]
            assert lines_of_polls[:3] + lines_of_polls[-2:] == first_lines + last_lines
            assert any(line.startswith(later_line) for line in lines)

    def test_returns_at_once_without_wait_for_completion(self, simulator: Simulator, deferrable: bool) -> None:
        run = drive(lambda: backfill(wait_for_completion=False, deferrable=deferrable))
        assert run.result["backfill_id"] == the_one(simulator).id
        assert "jobs" not in run.result
        assert routes_asked(simulator) == ["list_backfills", "trigger_backfill"]

    def test_warns_of_a_window_in_the_future(self, simulator: Simulator) -> None:
        run = drive(lambda: backfill(end_at="2999-01-01"))
        assert run.error is None
        assert any(line.startswith("end_at is in the future (2999-01-01") for line in run.log.lines)

    @pytest.mark.slow("handles thousands of jobs")
    def test_result_leaves_out_thousands_of_jobs(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, jobs=300, parallel=300, job_seconds=0.3)
        run = drive(lambda: backfill(deferrable=True))
        assert run.deferred is not None
        assert "job_ids" not in json.dumps(run.event)
        assert run.result["jobs_total"] == 300
        assert routes_asked(simulator).count("get_job_results") == 300
        assert "get_job" not in routes_asked(simulator)


class TestBackfillThatFails:
    def test_error_names_the_failed_jobs(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(
            CONNECTION, jobs=12, parallel=12, failing_jobs=[1, 7], code="source_unreachable", message="No route."
        )
        run = drive(lambda: backfill(deferrable=deferrable))
        one = the_one(simulator)
        first, second = (one.job_ids or [])[1], (one.job_ids or [])[7]
        assert isinstance(run.error, PlanasonixJobFailedError)
        assert str(run.error) == (
            f"Backfill failed: jobs_failed: 2 of 12 jobs failed (backfill {one.id}). Failed jobs: "
            f"{first}: source_unreachable: No route; {second}: source_unreachable: No route. "
            f"See {simulator.url}/jobs/{first}"
        )
        assert run.xcoms["job_url"] == f"{simulator.url}/jobs/{first}"
        assert "get_job_results" not in routes_asked(simulator)

    def test_error_if_the_failed_jobs_are_unknown(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, failing_jobs=[0])
        for route in ("list_jobs", "get_job"):
            simulator.fail("status", status=403, route=route, times=None)
        run = drive(backfill)
        assert isinstance(run.error, PlanasonixJobFailedError)
        one = the_one(simulator)
        assert str(run.error).startswith(f"Backfill failed: jobs_failed: 1 of 3 jobs failed (backfill {one.id}). See")
        assert any("cannot be found out" in line for line in run.log.lines)

    def test_fails_if_a_person_cancels_a_job(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=60)

        def cancel() -> None:
            for job in simulator.jobs():
                simulator.workspace.cancel(job.id)

        with meanwhile(cancel, once=is_asked(simulator, "get_backfill")):
            run = drive(lambda: backfill(deferrable=deferrable))
        assert isinstance(run.error, PlanasonixJobCancelledError)
        assert str(run.error).startswith(f"Backfill {the_one(simulator).id} was cancelled before it was done.")

    @pytest.mark.slow("handles thousands of jobs")
    def test_jobs_are_cancelled_at_the_deadline(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(
            CONNECTION,
            queued_seconds=0,
            jobs=9,
            parallel=4,
            job_seconds=6_000,
            jobs_after_cancel=2,
            cancelling_seconds=10,
        )
        run = drive(lambda: backfill(deferrable=deferrable, timeout=600, poll_interval=60))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert str(run.error).endswith("it was running. It was cancelled.")
        assert the_one(simulator).status == "cancelled"
        assert [job.status for job in simulator.jobs()] == ["cancelled"] * 6, "new jobs are cancelled, too"

    def test_without_jobs_cannot_be_cancelled(
        self, simulator: Simulator, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("planasonix_provider.waiting.cancellation.CANCEL_POLL_INTERVAL_SECONDS", 60.0)
        simulator.plan_backfill(CONNECTION, queued_seconds=5_000)
        run = drive(lambda: backfill(deferrable=deferrable, timeout=600, poll_interval=60))
        assert isinstance(run.error, PlanasonixTimeoutError)
        assert "The jobs that it has made were asked to cancel; it is queued, and may make more." in str(run.error)
        assert "To end it: `" in str(run.error)

    @pytest.mark.parametrize("status", [404, 409])
    def test_is_cancelled_although_the_cancel_of_one_job_fails(self, simulator: Simulator, status: int) -> None:
        simulator.plan_backfill(
            CONNECTION, queued_seconds=0, jobs=12, parallel=12, job_seconds=60, cancelling_seconds=0.05
        )
        simulator.fail("status", status=status, route="cancel_job", skip=3)
        run = drive(lambda: backfill(deferrable=True, timeout=0.3))
        assert str(run.error).endswith("It was cancelled.")
        assert {job.status for job in simulator.jobs()} == {"cancelled"}

    def test_without_results_fails_without_a_retry(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.fail("status", status=403, route="get_job_results", times=None)
        run = drive(lambda: backfill(deferrable=deferrable, poll_interval=300))
        assert isinstance(run.error, AirflowFailException)
        assert "is over, but its results cannot be fetched" in str(run.error)

    def test_result_after_an_outage_of_the_airflow_connection(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.fail("reset", route="get_job_results", times=3)
        reads: list[int] = []
        get = PlanasonixHook.get_connection

        def get_or_fail(conn_id: str) -> Any:
            reads.append(1)
            if 1 < len(reads) < 4:
                raise ConnectionError("the API server is down")
            return get(conn_id)

        monkeypatch.setattr(PlanasonixHook, "get_connection", staticmethod(get_or_fail))
        monkeypatch.setattr("planasonix_provider.waiting.shared_client.REREAD_INTERVAL_SECONDS", 0.0)
        assert drive(backfill).error is None
        assert len(reads) > 1

    def test_keeps_running_without_cancel_on_kill(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=60)
        run = drive(lambda: backfill(deferrable=deferrable, timeout=0.2, cancel_on_kill=False))
        assert str(run.error).endswith("It was not cancelled, and runs on.")
        assert "cancel_job" not in routes_asked(simulator)


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameters", "words"),
        [
            (
                {"end_at": "2025-01-01T00:00:00Z"},
                r"end_at: got '2025-01-01T00:00:00Z', allowed is a time after start_at",
            ),
            ({"end_at": "2024-12-31"}, r"end_at: got '2024-12-31', allowed is a time after start_at"),
            ({"end_at": "2025-01-01T01:00:00+01:00"}, r"end_at: got '2025-01-01T01:00:00\+01:00'"),
            ({"start_at": "soon"}, "start_at: got 'soon', allowed is a time: a datetime, or ISO 8601 text"),
            ({"start_at": None}, "start_at: got None, allowed is a time"),
            ({"end_at": 1735689600}, "end_at: got 1735689600, allowed is a time"),
            ({"tables": []}, r"tables: got \[\], allowed is a list of table names, or None for all tables"),
            ({"tables": "public.orders"}, "tables: got 'public.orders', allowed is a list of table names"),
            ({"tables": ["public.orders", " "]}, "tables: got .* allowed is table names that are texts and not blank"),
            ({"tables": ["a", "b", "a"]}, "tables: got .* allowed is each table once; twice there is a"),
            ({"on_conflict": "queue"}, "on_conflict: got 'queue', allowed is fail, attach, wait, skip"),
            ({"start_at": "0001-01-01"}, "start_at: got '0001-01-01', allowed is a time"),
            (
                {"partition_by": "decade"},
                "partition_by: got 'decade', allowed is hour, day, week, month, quarter, year",
            ),
            ({"partition_timezone": "Mars"}, "partition_timezone: got 'Mars', allowed is the name of a time zone"),
            ({"partition_key_format": "day"}, "partition_key_format: got 'day', allowed is a format for strftime"),
            ({"partial_partitions": "skip"}, "partial_partitions: got 'skip', allowed is error, include"),
            (
                {"partition_by": "quarter"},
                "end_at: got '2025-03-01T00:00:00Z', allowed is the start of a quarter in UTC",
            ),
            ({"partition_by": "day", "start_at": "2020-01-01"}, "partition_by: got 'day', allowed is a larger one"),
            (
                {"partition_by": "day", "partition_timezone": "Europe/Berlin"},
                "start_at: got '2025-01-01T00:00:00Z', allowed is the start of a day in Europe/Berlin; the nearest are",
            ),
            (
                {"partition_by": "day", "partition_key_format": "%Y"},
                "partition_key_format: got '%Y', allowed is a format",
            ),
            (
                {"partition_by": "day", "outlets": [AssetAlias("loaded")]},
                "partition_by: got 'day', allowed is None, be",
            ),
        ],
    )
    def test_raises_when_the_dag_is_parsed(self, parameters: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            backfill(**parameters)

    @pytest.mark.parametrize(
        "parameters",
        [
            {"end_at": "2024-12-31"},
            {"start_at": "None"},
            {"tables": "['public.orders']"},
            {"tables": []},
            {"start_at": "2025-01-02", "partition_by": "month"},
            {"partition_by": "decade"},
        ],
    )
    def test_from_a_template_fails_before_any_request(self, simulator: Simulator, parameters: dict[str, Any]) -> None:
        operator = backfill(start_at="{{ params.start }}", end_at="{{ params.end }}", tables="{{ params.tables }}")
        for name, value in {"start_at": "2025-01-01", "end_at": "2025-02-01", "tables": None, **parameters}.items():
            setattr(operator, name, value)
        with pytest.raises(AirflowFailException, match=next(iter(parameters))):
            operator.execute(context(Run()))
        assert simulator.requests == []

    def test_a_time_without_an_offset_is_utc(self, simulator: Simulator) -> None:
        drive(lambda: backfill(start_at=datetime(2025, 1, 1), end_at="2025-02-01T00:00:00"))  # noqa: DTZ001
        assert the_one(simulator).start_at == datetime(2025, 1, 1, tzinfo=UTC)

    def test_all_computable_parameters_are_templated(self) -> None:
        assert set(PlanasonixBackfillOperator.template_fields) == {
            "connection_id",
            "planasonix_conn_id",
            "priority",
            "on_conflict",
            "on_cancelled",
            "metadata",
            "poll_interval",
            "timeout",
            "start_at",
            "end_at",
            "tables",
            "partition_by",
            "partition_timezone",
            "partition_key_format",
            "partial_partitions",
        }


@pytest.mark.parametrize(("way", "seed"), [(False, 3), (True, 4)], ids=["on a worker", "deferred"])
def test_fourteen_faults_make_one_backfill(way: bool, seed: int, simulator: Simulator) -> None:
    simulator.fail("status", route="trigger_backfill", status=503, headers={"Retry-After": "0"})
    order_fourteen_faults(simulator, seed, routes=("get_backfill", "get_job_results"))
    run = drive(lambda: backfill(poll_interval=0.02, deferrable=way))
    assert run.error is None, run.log.lines
    assert simulator.faults.pending() == []
    assert [one.status for one in simulator.backfills()] == ["completed"]
    assert API_KEY not in run.said
