from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy import delete

from planasonix_provider.assets.planasonix import PlanasonixTable
from planasonix_provider.monitoring import history
from planasonix_provider.monitoring.history import read_charts
from tests.support.task_rows import TaskRows

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


def result(
    job_id: str = "job_1", connection_id: str = "conn_1", seconds: float = 60.0, **tables: int
) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "connection_id": connection_id,
        "duration_seconds": seconds,
        "tables": [{"name": name, "rows_loaded": rows} for name, rows in tables.items()],
    }


@pytest.fixture
def orders(task_rows: TaskRows) -> Iterator[int]:
    """The id of the asset of a table."""
    with create_session() as session:
        session.execute(delete(AssetEvent))
        session.execute(delete(AssetModel))
        uri = PlanasonixTable("api.planasonix.com", "conn_1", "orders").uri
        asset = AssetModel(name=uri, uri=uri, group="asset", extra={})
        session.add(asset)
        session.flush()
        asset_id = int(asset.id)
    yield asset_id
    with create_session() as session:
        session.execute(delete(AssetEvent))
        session.execute(delete(AssetModel))


def add_event(
    asset_id: int, run_id: str | None, rows: Any, at: datetime = NOW, *, job_id: str = "job_1", partition: Any = None
) -> None:
    with create_session() as session:
        event = AssetEvent(
            asset_id=asset_id,
            extra={"rows_loaded": rows, "job_id": job_id},
            source_dag_id="dag",
            source_run_id=run_id,
            source_task_id="load",
            source_map_index=-1,
        )
        event.timestamp = at
        # Before Airflow 3.2, the table lacks this column.
        event.partition_key = partition
        session.add(event)


class TestOutcomes:
    def test_each_hour_counts_its_tasks(self, task_rows: TaskRows) -> None:
        for state, age in (
            ("success", 0),
            ("success", 0),
            ("failed", 2),
            ("skipped", 2),
            ("success", 23),
            ("failed", 25),
        ):
            task_rows.add(state=state, ended_at=NOW - age * HOUR, job_id="job_1")
        task_rows.add(state="failed", ended_at=NOW, job_id="job_1", job_status="cancelled")
        task_rows.add(state="running", job_id="job_1")
        task_rows.add(state="success", ended_at=NOW, other="job_1")
        outcomes = read_charts("24h", NOW)["outcomes"]
        assert len(outcomes) == 24
        hour = NOW.replace(minute=0, second=0, microsecond=0)
        assert outcomes[-1] == {
            "at": f"{hour:%Y-%m-%dT%H}:00:00Z",
            "succeeded": 2,
            "failed": 0,
            "cancelled": 1,
        }
        counts = [(one["succeeded"], one["failed"], one["cancelled"]) for one in outcomes]
        assert (counts[-3], counts[0]) == ((0, 1, 1), (1, 0, 0))
        assert sum(map(sum, counts)) == 6

    def test_seven_days(self, task_rows: TaskRows) -> None:
        task_rows.add(state="failed", ended_at=NOW - timedelta(days=6), backfill_id="bf_1")
        task_rows.add(state="failed", ended_at=NOW - timedelta(days=8), backfill_id="bf_2")
        outcomes = read_charts("7d", NOW)["outcomes"]
        assert [one["failed"] for one in outcomes] == [1, 0, 0, 0, 0, 0, 0]
        assert outcomes[-1]["at"] == f"{NOW:%Y-%m-%d}T00:00:00Z"

    @pytest.mark.usefixtures("task_rows", "orders")
    def test_hours_without_tasks_are_zero(self) -> None:
        charts = read_charts("24h", NOW)
        assert {(one["succeeded"], one["failed"], one["cancelled"]) for one in charts["outcomes"]} == {(0, 0, 0)}
        assert (charts["tables"], charts["durations"]) == ([], [])

    def test_another_period_is_refused(self, airflow_db: None) -> None:
        with pytest.raises(ValueError, match="period: got '1y', allowed is 24h, 7d"):
            read_charts("1y", NOW)


class TestDurations:
    def test_the_median_of_each_connection(self, task_rows: TaskRows) -> None:
        for seconds in (10, 20, 90):
            task_rows.add(job_id="job_1", return_value=result(seconds=seconds))
        task_rows.add(job_id="job_2", return_value=result(connection_id="conn_2", seconds=7))
        task_rows.add(job_id="job_3", return_value={"job_id": "job_3", "duration_seconds": None})
        task_rows.add(job_id="job_4", return_value="no result of a job")
        task_rows.add(other="x", return_value=result(seconds=1_000))
        assert read_charts("24h", NOW)["durations"] == [
            {"connection_id": "conn_1", "median_seconds": 20, "jobs": 3},
            {"connection_id": "conn_2", "median_seconds": 7, "jobs": 1},
        ]


class TestTables:
    def test_the_results_of_all_tasks_are_added(self, task_rows: TaskRows, orders: int) -> None:
        task_rows.add(job_id="job_1", return_value=result(orders=10, items=5))
        task_rows.add(job_id="job_2", return_value=result("job_2", orders=1))
        task_rows.add(job_id="job_3", return_value=result("job_3", "conn_2", orders=8))
        assert read_charts("24h", NOW)["tables"] == [
            {"connection_id": "conn_1", "name": "orders", "rows_loaded": 11},
            {"connection_id": "conn_2", "name": "orders", "rows_loaded": 8},
            {"connection_id": "conn_1", "name": "items", "rows_loaded": 5},
        ]

    def test_an_asset_event_counts_if_its_task_has_no_result(self, task_rows: TaskRows, orders: int) -> None:
        with_result = task_rows.add(job_id="job_1", return_value=result(orders=10))
        without_result = task_rows.add(job_id="job_2")
        add_event(orders, with_result, 10)
        add_event(orders, without_result, 3)
        add_event(orders, without_result, None, job_id="job_2")
        add_event(orders, without_result, 1_000, NOW - timedelta(days=2), job_id="job_3")
        assert read_charts("24h", NOW)["tables"] == [{"connection_id": "conn_1", "name": "orders", "rows_loaded": 13}]

    def test_a_load_of_many_partitions_counts_once(self, task_rows: TaskRows, orders: int) -> None:
        run_id = task_rows.add(job_id="job_1")
        for day in range(1, 32):
            add_event(orders, run_id, 10, partition=f"2025-01-{day:02}")
        add_event(orders, run_id, 5, job_id="job_2")
        assert [one["rows_loaded"] for one in read_charts("24h", NOW)["tables"]] == [15]

    def test_only_the_largest_are_listed(self, task_rows: TaskRows) -> None:
        tables = {f"table_{number}": number + 1 for number in range(30)}
        task_rows.add(job_id="job_1", return_value=result(**tables))
        assert [one["rows_loaded"] for one in read_charts("24h", NOW)["tables"]] == list(range(30, 15, -1))

    def test_a_huge_result_is_not_read(self, task_rows: TaskRows, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "MAX_RESULT_LENGTH", 300)
        task_rows.add(job_id="job_1", return_value=result(**{f"table_{number}": 1 for number in range(30)}))
        task_rows.add(job_id="job_2", return_value=result("job_2", orders=1))
        assert [one["name"] for one in read_charts("24h", NOW)["tables"]] == ["orders"]
