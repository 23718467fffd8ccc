"""Hundreds of waiting tasks and orphans in Airflow's database. No triggerer runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
from psycopg2.extras import RealDictCursor

from planasonix_provider.state_store import scoped_key
from planasonix_provider.waiting.attempt import RECORD_KEY, AttemptRecord
from tests.browser.task_history import insert

#: The map indices of the added tasks.
FIRST_WAIT, FIRST_ORPHAN = 5000, 6000


@contextmanager
def many_tasks(
    database: str, task_id: str, *, waits: int, orphans: Sequence[str], planasonix_conn_id: str
) -> Iterator[None]:
    """Add copies of a deferred task within the block. No triggerer may run within it.

    :param waits: the number of tasks that wait.
    :param orphans: the ids of jobs whose tasks have failed.
    """
    with psycopg2.connect(database) as connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("SELECT * FROM task_instance WHERE task_id = %s AND map_index = -1", [task_id])
        (task,) = cursor.fetchall()
        cursor.execute('SELECT * FROM "trigger" WHERE id = %s', [task["trigger_id"]])
        (trigger,) = cursor.fetchall()
        for number in range(waits):
            fresh = {"id": trigger["id"] + 100_000 + number}
            insert(cursor, '"trigger"', trigger | fresh)
            changes = {"id": str(uuid4()), "map_index": FIRST_WAIT + number, "trigger_id": fresh["id"]}
            insert(cursor, "task_instance", task | changes)
        ended_at = datetime.now(UTC) - timedelta(hours=1)
        for number, job_id in enumerate(orphans):
            state = {"state": "failed", "end_date": ended_at, "trigger_id": None}
            changes = {"id": str(uuid4()), "map_index": FIRST_ORPHAN + number, **state}
            insert(cursor, "task_instance", task | changes)
            _add_record(cursor, task | changes, job_id, planasonix_conn_id)
    try:
        yield
    finally:
        with psycopg2.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM task_instance WHERE map_index >= %s", [FIRST_WAIT])
            cursor.execute('DELETE FROM "trigger" WHERE id > %s', [trigger["id"] + 100_000 - 1])
            if _has_state_store(cursor):
                cursor.execute("DELETE FROM task_state_store WHERE map_index >= %s", [FIRST_WAIT])
            else:
                cursor.execute("DELETE FROM variable WHERE description = %s", [task_id])


def _add_record(cursor: RealDictCursor, task: dict[str, Any], job_id: str, planasonix_conn_id: str) -> None:
    names = {name: task[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    record = AttemptRecord(
        **names,
        planasonix_conn_id=planasonix_conn_id,
        kind="job",
        connection_id="conn_demo_01",
        key=uuid4().hex,
        first_sent_at=task["end_date"] - timedelta(hours=1),
        digest="",
        try_number=1,
        max_tries=0,
        id=job_id,
    )
    value = json.dumps(record.model_dump(mode="json"))
    if not _has_state_store(cursor):
        key = scoped_key(RECORD_KEY, record.task_key)
        row = {"key": key, "val": value, "is_encrypted": False, "description": task["task_id"]}
        insert(cursor, "variable", row)
        return
    cursor.execute("SELECT id FROM dag_run WHERE dag_id = %s AND run_id = %s", [task["dag_id"], task["run_id"]])
    (run,) = cursor.fetchall()
    # The value is text, unlike the values of XComs.
    row = {"dag_run_id": run["id"], "key": RECORD_KEY, "updated_at": task["end_date"], **names}
    columns = ", ".join([*row, "value"])
    marks = ", ".join(["%s"] * (len(row) + 1))
    cursor.execute(f"INSERT INTO task_state_store ({columns}) VALUES ({marks})", [*row.values(), value])


def _has_state_store(cursor: Any) -> bool:
    cursor.execute("SELECT to_regclass('task_state_store') AS name")
    (found,) = cursor.fetchall()
    return (found["name"] if isinstance(found, dict) else found[0]) is not None
