"""Tasks written directly to Airflow's database: a day of ended tasks for the charts, waiting tasks, an orphan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import Json, RealDictCursor

from dev.local_airflow import LocalAirflow

TABLES = ("orders", "order_items", "customers", "payments", "shipments", "returns", "products", "stock_levels")
#: The added tasks have map indices from this one on.
FIRST_MAP_INDEX = 1000


def database_of(airflow: LocalAirflow) -> str:
    """Return the URL of Airflow's database for psycopg2."""
    return airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")


def fail_without_its_triggerer(database: str, task_id: str) -> None:
    """Fail a deferred task, as Airflow's scheduler does at the task's timeout if no triggerer runs."""
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET state = 'failed', end_date = now(), trigger_id = NULL WHERE task_id = %s",
            [task_id],
        )


class _Copy(NamedTuple):
    state: str
    work_id: str
    ended_at: datetime | None = None
    result: dict[str, Any] | None = None


def add_history(database: str, task_id: str, hours: int = 24) -> None:
    """Add copies of a successful task as ended tasks. They are the same in each run."""
    # Reproducible, and not used for security.
    numbers = random.Random(1)
    now = datetime.now(UTC)
    with psycopg2.connect(database) as database_connection:
        for number in range(hours * 9):
            connection = numbers.choice((1, 1, 1, 2, 2, 3, 4))
            ended_at = now - timedelta(hours=hours * numbers.random() ** 1.2)
            seconds = numbers.uniform(40, 160) * connection
            tables = [
                {
                    "name": f"public.{table}",
                    "rows_loaded": numbers.randrange(20_000, 90_000) // (1 + TABLES.index(table)),
                }
                for table in TABLES[connection - 1 :: 2]
            ]
            result = {"connection_id": f"conn_demo_{connection:02}", "duration_seconds": seconds, "tables": tables}
            (state,) = numbers.choices(("success", "failed", "skipped"), (90, 7, 3))
            copy = _Copy(state, f"job_{number}", ended_at, result if state == "success" else None)
            _add(database_connection, task_id, FIRST_MAP_INDEX + number, copy)


def add_waiting_tasks(database: str, task_id: str, work_ids: Sequence[str]) -> None:
    """Add copies of a task as deferred tasks that wait for jobs or backfills."""
    with psycopg2.connect(database) as connection:
        for map_index, work_id in enumerate(work_ids):
            _add(connection, task_id, map_index, _Copy("deferred", work_id))


def _add(database: Connection, task_id: str, map_index: int, copy: _Copy) -> None:
    started_at = copy.ended_at - timedelta(minutes=5) if copy.ended_at else datetime.now(UTC)
    key = "job_id" if copy.work_id.startswith("job_") else "backfill_id"
    with database.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("SELECT * FROM task_instance WHERE task_id = %s AND map_index = -1", [task_id])
        (task,) = cursor.fetchall()
        times = {"start_date": started_at, "end_date": copy.ended_at}
        changes = {"id": str(uuid4()), "map_index": map_index, "state": copy.state, "trigger_id": None}
        insert(cursor, "task_instance", task | times | changes)
        cursor.execute("SELECT * FROM xcom WHERE task_id = %s AND map_index = -1", [task_id])
        xcoms = {xcom["key"]: xcom | {"map_index": map_index} for xcom in cursor.fetchall()}
        insert(cursor, "xcom", xcoms["job_id"] | {"key": key, "value": copy.work_id, "timestamp": started_at})
        if copy.result:
            result = xcoms["return_value"]
            value = result["value"] | copy.result | {"job_id": copy.work_id}
            insert(cursor, "xcom", result | {"value": value, "timestamp": copy.ended_at})


def insert(cursor: RealDictCursor, table: str, row: dict[str, Any]) -> None:
    """Insert a row, with dicts, lists and XCom values as JSON."""
    names = ", ".join(row)
    values = [
        Json(value) if isinstance(value, (dict, list)) or (name == "value") else value for name, value in row.items()
    ]
    cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(row))})", values)
