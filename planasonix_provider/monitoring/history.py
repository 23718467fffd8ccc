"""The loads of this Airflow's tasks, from the XComs and asset events in its database. It sends no request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, TypedDict

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.api.models.base import as_utc
from planasonix_provider.assets.planasonix import SCHEME, PlanasonixTable
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.tasks import is_of_task
from planasonix_provider.validators import invalid_parameter
from planasonix_provider.waiting.attempt import TaskKey

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: How many tables and connections are listed.
MAX_LISTED = 15
#: How many ended tasks are counted, how many results are read, and how many asset events; the newest first.
MAX_TASKS, MAX_RESULTS, MAX_EVENTS = 50_000, 5_000, 20_000
#: A result with more characters is not read: it has thousands of tables.
MAX_RESULT_LENGTH = 100_000
#: The longest time between the start of a job and the end of its task. It limits the XComs that are read.
MAX_DURATION = timedelta(days=7)


@dataclass(frozen=True)
class Period:
    """A period of the charts, in equal parts."""

    name: str
    part: timedelta
    parts: int

    def start(self, now: datetime) -> datetime:
        """Return the start of the first part; the last part contains ``now``."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + (now - midnight) // self.part * self.part - (self.parts - 1) * self.part


PERIODS = {
    period.name: period for period in (Period("24h", timedelta(hours=1), 24), Period("7d", timedelta(days=1), 7))
}


class OutcomesRow(TypedDict):
    """How many tasks ended in a part of the period."""

    at: str | None
    succeeded: int
    failed: int
    cancelled: int


class TableRow(TypedDict):
    """The rows that were loaded into a table."""

    connection_id: str
    name: str
    rows_loaded: int


class DurationRow(TypedDict):
    """The median duration of the jobs of a connection."""

    connection_id: str
    median_seconds: float
    jobs: int


class Charts(TypedDict):
    """The data of the charts, in JSON types."""

    outcomes: list[OutcomesRow]
    tables: list[TableRow]
    durations: list[DurationRow]


def read_charts(period: str, now: datetime) -> Charts:
    """Return the data of the charts. It blocks.

    Each task counts once, with its last try: Airflow deletes the XComs of the earlier ones.

    :raises ValueError: if there is no such period.
    """
    if period not in PERIODS:
        raise invalid_parameter("period", period, ", ".join(PERIODS))
    with database_session() as session:
        return _ChartReader(session, PERIODS[period], now).read()


class _ChartReader:
    def __init__(self, session: Session, period: Period, now: datetime) -> None:
        self._session = session
        self._period = period
        self._since = period.start(now)
        self._rows: Counter[tuple[str, str]] = Counter()
        self._durations: defaultdict[str, list[float]] = defaultdict(list)

    def read(self) -> Charts:
        tasks = set()
        for task, result in self._results():
            tasks.add(task)
            self._add_result(result)
        self._add_asset_events(tasks)
        ranking = sorted(self._durations.items(), key=lambda item: (-len(item[1]), item[0]))
        return {
            "outcomes": self._outcomes(),
            "tables": [
                {"connection_id": connection_id, "name": name, "rows_loaded": rows}
                for (connection_id, name), rows in self._rows.most_common(MAX_LISTED)
            ],
            "durations": [
                {"connection_id": connection_id, "median_seconds": median(seconds), "jobs": len(seconds)}
                for connection_id, seconds in ranking[:MAX_LISTED]
            ],
        }

    def _outcomes(self) -> list[OutcomesRow]:
        counts: list[Counter[str]] = [Counter() for _ in range(self._period.parts)]
        for state, ended_at, is_cancelled in self._ended_tasks():
            number = (as_utc(ended_at) - self._since) // self._period.part
            if number < self._period.parts:
                outcome = {"success": "succeeded", "failed": "failed"}.get(state, "cancelled")
                counts[number]["cancelled" if is_cancelled else outcome] += 1
        return [
            {
                "at": json_time(self._since + number * self._period.part),
                "succeeded": count["succeeded"],
                "failed": count["failed"],
                "cancelled": count["cancelled"],
            }
            for number, count in enumerate(counts)
        ]

    def _ended_tasks(self) -> Iterator[Any]:
        """Yield the state of each ended task that has started work, its end, and whether the work was cancelled."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel
        from sqlalchemy import select
        from sqlalchemy.orm import aliased

        started, cancelled = XComModel, aliased(XComModel)
        query = (
            select(TaskInstance.state, TaskInstance.end_date, cancelled.key.is_not(None))
            .join(started, is_of_task(started, TaskInstance))
            .outerjoin(
                cancelled,
                is_of_task(cancelled, TaskInstance) & cancelled.key.in_(("job_status", "backfill_status")),
            )
            .where(
                started.key.in_(("job_id", "backfill_id")),
                started.timestamp >= self._since - MAX_DURATION,
                TaskInstance.state.in_(("success", "failed", "skipped", "removed")),
                TaskInstance.end_date >= self._since,
            )
            .order_by(TaskInstance.end_date.desc())
            .limit(MAX_TASKS)
        )
        yield from self._session.execute(query)

    def _results(self) -> Iterator[tuple[TaskKey, dict[str, Any]]]:
        """Yield the results of tasks."""
        from airflow.models.xcom import XComModel
        from sqlalchemy import String, cast, func, select
        from sqlalchemy.orm import aliased

        started, result = XComModel, aliased(XComModel)
        query = (
            select(result.dag_id, result.run_id, result.task_id, result.map_index, result.value)
            .join(started, is_of_task(started, result))
            .where(
                started.key.in_(("job_id", "backfill_id")),
                started.timestamp >= self._since - MAX_DURATION,
                result.key == "return_value",
                result.timestamp >= self._since,
                func.length(cast(result.value, String)) <= MAX_RESULT_LENGTH,
            )
            .order_by(result.timestamp.desc())
            .limit(MAX_RESULTS)
            .execution_options(yield_per=200)
        )
        for *identity, value in self._session.execute(query):
            if isinstance(value, dict):
                yield TaskKey(*identity), value

    def _add_result(self, result: dict[str, Any]) -> None:
        connection_id, seconds = result.get("connection_id"), result.get("duration_seconds")
        if not isinstance(connection_id, str):
            return
        if "job_id" in result and isinstance(seconds, (int, float)):
            self._durations[connection_id].append(seconds)
        tables = result.get("tables")
        for table in tables if isinstance(tables, list) else ():
            if isinstance(table, dict) and isinstance(table.get("name"), str):
                self._add_rows(connection_id, table["name"], table.get("rows_loaded"))

    def _add_asset_events(self, tasks: set[TaskKey]) -> None:
        """Add the rows of tasks that have left asset events, but no result, as with ``do_xcom_push=False``."""
        from airflow.models.asset import AssetEvent, AssetModel
        from sqlalchemy import select

        assets = {
            asset_id: table
            for asset_id, uri in self._session.execute(
                select(AssetModel.id, AssetModel.uri).where(AssetModel.uri.startswith(f"{SCHEME}://"))
            )
            if (table := _table(uri))
        }
        query = (
            select(
                AssetEvent.source_dag_id,
                AssetEvent.source_run_id,
                AssetEvent.source_task_id,
                AssetEvent.source_map_index,
                AssetEvent.asset_id,
                AssetEvent.extra,
            )
            .where(AssetEvent.asset_id.in_(assets), AssetEvent.timestamp >= self._since)
            .order_by(AssetEvent.timestamp.desc())
            .limit(MAX_EVENTS)
        )
        # Airflow repeats an event for each of its partitions.
        counted = set()
        for *identity, asset_id, extra in self._session.execute(query) if assets else ():
            task = TaskKey(*identity)
            if task in tasks or not isinstance(extra, dict):
                continue
            load = (task, asset_id, *(str(extra.get(name)) for name in ("job_id", "backfill_id")))
            if load not in counted:
                counted.add(load)
                table = assets[asset_id]
                self._add_rows(table.connection_id, table.table, extra.get("rows_loaded"))

    def _add_rows(self, connection_id: str, name: str, rows: Any) -> None:
        if isinstance(rows, int) and rows > 0:
            self._rows[connection_id, name] += rows


def _table(uri: str) -> PlanasonixTable | None:
    try:
        return PlanasonixTable.from_uri(uri)
    except ValueError:
        return None
