"""Lists the records of all tasks that have started work, with the states of these tasks. Needs Airflow's database.

Since Airflow 3.3 the records are in the table of the tasks' state store; before, in Airflow variables.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.jobs.job import Job
from airflow.models.crypto import get_fernet
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.providers.common.compat.sdk import conf
from pydantic import ValidationError
from sqlalchemy import delete, func, or_, select, tuple_

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.state_store import scoped_key
from planasonix_provider.waiting.attempt import RECORD_KEY, AttemptRecord, TaskKey

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.orm import Session

T = TypeVar("T")

#: States of a task that has ended. A task that was cleared has none of them, because it runs again.
ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: How many tasks or rows a query names.
BATCH_SIZE = 200
HAS_STATE_STORE_TABLE = find_spec("airflow.models.task_state_store") is not None
_METASTORE_BACKEND = "airflow.state.metastore.MetastoreBackend"


@dataclass(frozen=True)
class TaskStatus:
    """The state of a task in Airflow's database.

    :param state: ``None`` for a task that was cleared.
    :param ended_at: when it ended, as far as Airflow knows.
    :param is_deferred: whether it still has a trigger.
    :param has_retry_left: whether Airflow retries it if it fails.
    """

    state: str | None
    ended_at: datetime | None = None
    is_deferred: bool = False
    has_retry_left: bool = False


@dataclass(frozen=True)
class StoredRecord:
    """A record in Airflow's database.

    :param row_id: the row of the table.
    :param stored: the text of the row, by which a change is noticed.
    :param task: the task's state; ``None`` if the DAG run or its task is deleted.
    """

    record: AttemptRecord
    row_id: int
    stored: str
    task: TaskStatus | None

    @property
    def is_task_over(self) -> bool:
        """Whether the task has ended, and nothing but a person starts it again."""
        return self.task is None or self.task.state in ENDED_STATES

    @property
    def task_ended_at(self) -> datetime:
        """When the task ended; if Airflow does not know it, when the work was started."""
        return (self.task and self.task.ended_at) or self.record.last_sent_at


@dataclass(frozen=True)
class RecordListing:
    """All records.

    :param problem: why there may be more; ``None`` if there are none.
    """

    records: Sequence[StoredRecord]
    problem: str | None = None


def read_records(runs: Collection[tuple[str, str]] | None = None) -> RecordListing:
    """List the records of work that its task has not released.

    :param runs: only of these DAG runs, each a DAG id and a run id; default: of all.
    """
    with database_session() as session:
        rows = list(_read_rows(session, runs))
        parsed = [(record, row_id, stored) for row_id, stored, text in rows if (record := _parse(text))]
        unreadable = len(rows) - len(parsed)
        unreleased = [row for row in parsed if not row[0].is_released and (runs is None or row[0].task_key[:2] in runs)]
        states = read_states(session, {record.task_key for record, _, _ in unreleased})
    records = [StoredRecord(*row, states.get(row[0].task_key)) for row in unreleased]
    return RecordListing(records, _problem(unreadable))


def read_states(session: Session, keys: Iterable[TaskKey]) -> dict[TaskKey, TaskStatus]:
    """Return the states of tasks; one that is deleted is missing."""
    ti: Table = TaskInstance.__table__
    identity = (ti.c.dag_id, ti.c.run_id, ti.c.task_id, ti.c.map_index)
    states = {}
    for some in _batches(keys):
        columns = (ti.c.state, ti.c.end_date, ti.c.trigger_id, ti.c.try_number, ti.c.max_tries)
        query = select(*identity, *columns).where(tuple_(*identity).in_(some))
        for *key, state, ended_at, trigger_id, try_number, max_tries in session.execute(query):
            states[TaskKey(*key)] = TaskStatus(state, ended_at, trigger_id is not None, try_number <= max_tries)
    return states


def still_over(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the unchanged records whose tasks are still over."""
    with database_session() as session:
        states = read_states(session, {stored.record.task_key for stored in records})
        unchanged = set()
        table, text = _table()
        for some in _batches(stored.row_id for stored in records):
            unchanged |= {tuple(row) for row in session.execute(select(table.c.id, text).where(table.c.id.in_(some)))}
    now = [
        StoredRecord(old.record, old.row_id, old.stored, states.get(old.record.task_key))
        for old in records
        if (old.row_id, old.stored) in unchanged
    ]
    return [stored for stored in now if stored.is_task_over]


def delete_records(records: Iterable[StoredRecord]) -> None:
    """Delete the unchanged records. A task that runs again may have stored another one."""
    table, text = _table()
    with database_session() as session:
        for stored in records:
            session.execute(delete(table).where(table.c.id == stored.row_id, text == stored.stored))


def last_triggerer_heartbeat() -> datetime | None:
    """Return the last heartbeat of all triggerers; ``None`` if none runs, as far as Airflow knows."""
    query = select(func.max(Job.latest_heartbeat)).where(Job.job_type == "TriggererJob", Job.state == "running")
    with database_session() as session:
        heartbeat: datetime | None = session.scalar(query)
    return heartbeat


def _read_rows(session: Session, runs: Collection[tuple[str, str]] | None) -> Iterator[tuple[int, str, str | None]]:
    """Yield the id of each record's row, its text as it is stored, and that text decrypted."""
    table, stored = _table()
    if HAS_STATE_STORE_TABLE:
        # The records of released work stay until Airflow's own cleanup, so there may be very many.
        query = select(table.c.id, stored).where(
            table.c.key == RECORD_KEY, or_(stored.is_(None), stored.not_like('%"is_released": true%'))
        )
        if runs is not None:
            query = query.where(tuple_(table.c.dag_id, table.c.run_id).in_(list(runs)))
        yield from ((row_id, text, text) for row_id, text in session.execute(query))
        return
    query = select(table.c.id, stored, table.c.is_encrypted)
    if runs is None:
        queries = [query.where(table.c.key.startswith(f"{RECORD_KEY}_", autoescape=True))]
    else:
        names = (scoped_key(RECORD_KEY, key) for key in _task_keys(session, runs))
        queries = [query.where(table.c.key.in_(some)) for some in _batches(names)]
    for one in queries:
        for row_id, text, is_encrypted in session.execute(one):
            yield row_id, text, _decrypt(text) if is_encrypted else text


def _task_keys(session: Session, runs: Collection[tuple[str, str]]) -> list[TaskKey]:
    """Return the tasks of DAG runs."""
    ti: Table = TaskInstance.__table__
    keys: list[TaskKey] = []
    for some in _batches(runs):
        query = select(ti.c.dag_id, ti.c.run_id, ti.c.task_id, ti.c.map_index)
        keys += (TaskKey(*row) for row in session.execute(query.where(tuple_(ti.c.dag_id, ti.c.run_id).in_(some))))
    return keys


def _table() -> tuple[Table, Any]:
    """Return the table that contains the records, and its column with their text."""
    if HAS_STATE_STORE_TABLE:
        from airflow.models.task_state_store import TaskStateStoreModel

        table: Table = TaskStateStoreModel.__table__
        return table, table.c.value
    table = Variable.__table__
    return table, table.c.val


def _decrypt(text: str) -> str | None:
    try:
        return str(get_fernet().decrypt(text.encode()).decode())
    except Exception:
        # Encrypted with another key; counted as unreadable.
        return None


def _parse(text: str | None) -> AttemptRecord | None:
    try:
        return AttemptRecord.model_validate(json.loads(text or ""))
    except (ValueError, ValidationError):
        return None


def _problem(unreadable: int) -> str | None:
    backend = conf.get("state_store", "backend", fallback="") if HAS_STATE_STORE_TABLE else ""
    if backend and backend != _METASTORE_BACKEND:
        return (
            f"Airflow's setting [state_store] backend is {backend}, and only records in Airflow's database can be "
            "listed. So orphaned jobs are not found."
        )
    if not unreadable:
        return None
    reason = "they are damaged, or of another version of airflow-provider-planasonix"
    if HAS_STATE_STORE_TABLE and conf.get("workers", "state_store_backend", fallback=""):
        reason = "Airflow's setting [workers] state_store_backend keeps them outside of Airflow's database"
    return f"Records of starts that cannot be read: {unreadable:,} ({reason}). Orphaned jobs among them are not found."


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch
