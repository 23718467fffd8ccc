from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.monitoring.tasks import find_tasks
from tests.support.task_rows import TaskRows

NOW = datetime.now(UTC)


def job(job_id: str = "job_1", **fields: Any) -> Job:
    return Job.model_validate({"id": job_id, "status": "running", "created_at": NOW} | fields)


def metadata(of_run: str, **changes: Any) -> dict[str, Any]:
    names = {"dag_id": "dag", "task_id": "load", "run_id": of_run, "try_number": 1, "map_index": -1}
    return {"metadata": names | changes}


class TestByXComs:
    def test_a_job_leads_to_its_task(self, task_rows: TaskRows) -> None:
        run_id = task_rows.add("sales", "load", state="deferred", try_number=2, job_id="job_1")
        task_rows.add("sales", "other", job_id="job_10")
        (found,) = find_tasks([job()]).values()
        assert found.row == {
            "dag_id": "sales",
            "run_id": run_id,
            "task_id": "load",
            "map_index": -1,
            "try_number": 2,
            "state": "deferred",
            "url": f"/dags/sales/runs/{run_id}/tasks/load",
        }

    def test_a_mapped_task_has_its_own_page(self, task_rows: TaskRows) -> None:
        task_rows.add(run_id="scheduled__2025-01-01T00:00:00+00:00", map_index=3, job_id="job_1")
        assert find_tasks([job()])["job_1"].row["url"] == (
            "/dags/dag/runs/scheduled__2025-01-01T00:00:00+00:00/tasks/load/mapped/3"
        )

    def test_a_backfill_is_not_a_job_of_the_same_id(self, task_rows: TaskRows) -> None:
        task_rows.add(task_id="job", job_id="x_1")
        task_rows.add(task_id="backfill", backfill_id="x_1")
        work = Backfill.model_validate({"id": "x_1", "status": "running", "created_at": NOW})
        assert find_tasks([work])["x_1"].row["task_id"] == "backfill"

    @pytest.mark.slow("handles thousands of rows")
    def test_many_jobs_are_one_query(self, task_rows: TaskRows) -> None:
        for number in range(30):
            task_rows.add(task_id=f"load_{number}", job_id=f"job_{number}")
        found = find_tasks([job(f"job_{number}") for number in range(100)])
        assert {work_id: task.row["task_id"] for work_id, task in found.items()} == {
            f"job_{number}": f"load_{number}" for number in range(30)
        }

    def test_the_first_task_has_started_it_and_not_one_that_attached(self, task_rows: TaskRows) -> None:
        task_rows.add(task_id="first", job_id="job_1")
        task_rows.add(task_id="attached", job_id="job_1")
        assert find_tasks([job()])["job_1"].row["task_id"] == "first"

    def test_no_job_has_the_xcom_of_another_key_or_of_long_ago(self, task_rows: TaskRows) -> None:
        task_rows.add(my_job="job_1")
        task_rows.add(job_id="job_2")
        assert find_tasks([job()]) == {}
        assert find_tasks([job("job_2", created_at=NOW + timedelta(days=1))]) == {}

    @pytest.mark.parametrize(
        ("parameters", "is_found"),
        [
            (None, True),
            ({}, True),
            ({"planasonix_conn_id": "planasonix_eu", "connection_id": "conn_1"}, True),
            # The same workspace with another key.
            ({"planasonix_conn_id": "planasonix_eu_2", "connection_id": "conn_1"}, True),
            ({"planasonix_conn_id": "planasonix_us", "connection_id": "conn_1"}, False),
            ({"planasonix_conn_id": "planasonix_eu", "connection_id": "conn_2"}, False),
            ({"planasonix_conn_id": "planasonix_eu", "connection_id": "***_1"}, True),
        ],
        ids=str,
    )
    def test_no_job_has_the_task_of_another_workspace(
        self, task_rows: TaskRows, parameters: dict[str, str] | None, is_found: bool
    ) -> None:
        task_rows.add(task_id="load", job_id="job_1", parameters=parameters)
        found = find_tasks([job(connection_id="conn_1")], {"planasonix_us"})
        assert bool(found) is is_found

    def test_a_job_without_a_connection_leads_to_its_task(self, task_rows: TaskRows) -> None:
        task_rows.add(job_id="job_1", parameters={"planasonix_conn_id": "planasonix_eu", "connection_id": "conn_1"})
        assert find_tasks([job()]).keys() == {"job_1"}

    @pytest.mark.parametrize("works", [[], [job(created_at=None)]], ids=["no work", "no time"])
    def test_no_task_is_found_without_work_or_without_a_time(self, task_rows: TaskRows, works: list[Job]) -> None:
        assert find_tasks(works) == {}


class TestByMetadata:
    def test_a_job_whose_xcom_is_deleted_leads_to_its_task(self, task_rows: TaskRows) -> None:
        run_id = task_rows.add(try_number=2)
        assert find_tasks([job(**metadata(run_id))])["job_1"].row["run_id"] == run_id

    def test_an_xcom_is_more_reliable(self, task_rows: TaskRows) -> None:
        run_id = task_rows.add(task_id="other")
        task_rows.add(task_id="load", job_id="job_1")
        assert find_tasks([job(**metadata(run_id, task_id="other"))])["job_1"].row["task_id"] == "load"

    @pytest.mark.parametrize(
        "changes",
        [
            {"run_id": "another"},
            {"try_number": 2},
            {"try_number": None},
            {"dag_id": None},
            {"map_index": "x"},
            {"task_id": ["load"]},
        ],
        ids=str,
    )
    def test_metadata_of_another_airflow_leads_nowhere(self, task_rows: TaskRows, changes: dict[str, Any]) -> None:
        run_id = task_rows.add()
        assert find_tasks([job(**metadata(run_id, **changes))]) == {}

    def test_a_job_from_before_its_dag_run_is_of_another_airflow(self, task_rows: TaskRows) -> None:
        run_id = task_rows.add(run_started_at=NOW + timedelta(hours=1))
        assert find_tasks([job(**metadata(run_id))]) == {}


class TestRows:
    def test_they_come_from_the_result_of_the_task(self, task_rows: TaskRows) -> None:
        task_rows.add(
            state="success", job_id="job_1", return_value={"job_id": "job_1", "metrics": {"rows_loaded": 44802}}
        )
        task_rows.add(
            state="success", backfill_id="bf_1", return_value={"backfill_id": "bf_1", "rows_loaded": 7, "tables": []}
        )
        backfill = Backfill.model_validate({"id": "bf_1", "status": "completed"})
        found = find_tasks([job(status="succeeded"), backfill])
        assert {work_id: task.rows_loaded for work_id, task in found.items()} == {"job_1": 44802, "bf_1": 7}

    @pytest.mark.parametrize(
        "result", [None, {"job_id": "job_2", "metrics": {"rows_loaded": 1}}, {"job_id": "job_1"}, "text", [1]], ids=str
    )
    def test_they_are_unknown_without_such_a_result(self, task_rows: TaskRows, result: Any) -> None:
        task_rows.add(job_id="job_1", **({} if result is None else {"return_value": result}))
        assert find_tasks([job(status="succeeded")])["job_1"].rows_loaded is None

    @pytest.mark.parametrize(
        ("rows", "shown"),
        [(3_000_000_000, 3_000_000_000), ("44802", 44802), ("many", None), (None, None), ([1], None)],
        ids=str,
    )
    def test_a_result_may_have_any_value(self, task_rows: TaskRows, rows: Any, shown: int | None) -> None:
        task_rows.add(job_id="job_1", return_value={"job_id": "job_1", "metrics": {"rows_loaded": rows}})
        assert find_tasks([job(status="succeeded")])["job_1"].rows_loaded == shown
