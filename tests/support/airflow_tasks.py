"""DAG runs, tasks and records in Airflow's real database, without DAG files."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update

from planasonix_provider.monitoring.attempt_records import HAS_STATE_STORE_TABLE
from planasonix_provider.state_store import VariableStateStore
from planasonix_provider.waiting.attempt import RECORD_KEY, AttemptRecord, TaskKey
from tests.support.scenarios import CONNECTION
from tests.support.task_rows import new_task_id

DAG_ID = "nightly"


def key_of(task_id: str = "load", run_id: str = "run_1", map_index: int = -1) -> TaskKey:
    return TaskKey(DAG_ID, run_id, task_id, map_index)


def record_of(key: TaskKey, work_id: str | None = None, **fields: Any) -> AttemptRecord:
    """Return the record of a try that started work a minute ago."""
    nonce = uuid.uuid4().hex
    values: dict[str, Any] = {
        **key._asdict(),
        "planasonix_conn_id": "planasonix_default",
        "kind": "job",
        "connection_id": CONNECTION,
        "key": f"{key.dag_id}/{key.task_id}/1/{nonce}",
        "first_sent_at": datetime.now(UTC) - timedelta(minutes=1),
        "digest": "ab",
        "try_number": 1,
        "max_tries": 2,
        "id": work_id,
    }
    return AttemptRecord(**values | fields)


class AirflowTasks:
    """Tasks in Airflow's database."""

    def __init__(self) -> None:
        # Each DAG run needs its own logical date, although travelled time stands still.
        self._offsets = (timedelta(milliseconds=number) for number in count())
        self.forget()

    def add(self, key: TaskKey, state: str | None, ended_at: datetime | None = None, **columns: Any) -> TaskKey:
        """Add a task and, if there is none, its DAG run."""
        now = datetime.now(UTC)
        run = {"dag_id": key.dag_id, "run_id": key.run_id, "run_type": "manual", "state": "running", "clear_number": 0}
        # Airflow 2.11 calls the logical date ``execution_date``.
        names = {"execution_date", "logical_date", "run_after"} & set(DagRun.__table__.c.keys())
        ti_id = new_task_id()
        with create_session() as session:
            found = select(DagRun.id).where(DagRun.dag_id == key.dag_id, DagRun.run_id == key.run_id)
            if session.scalar(found) is None:
                self._insert(session, DagRun.__table__, run | dict.fromkeys(names, now + next(self._offsets)))
            self._insert(
                session,
                TaskInstance.__table__,
                key._asdict()
                | {
                    "id": ti_id,
                    "state": state,
                    "end_date": ended_at,
                    "pool": "default_pool",
                    "pool_slots": 1,
                }
                | {"try_number": 1, "max_tries": 2, "hostname": "", "executor_config": {}, "span_status": "not_started"}
                | {"partition_key": None}
                | columns,
            )
        return key

    def add_trigger(self) -> int:
        """Add the trigger of a deferred task."""
        with create_session() as session:
            trigger = Trigger(classpath="planasonix_provider.triggers.base.PlanasonixWaitTrigger", kwargs={})
            session.add(trigger)
            session.flush()
            return int(trigger.id)

    def _insert(self, session: Any, table: Any, values: dict[str, Any]) -> None:
        session.execute(insert(table).values({name: values[name] for name in values if name in table.c}))

    def set_state(self, key: TaskKey, state: str | None, ended_at: datetime | None = None) -> None:
        with create_session() as session:
            session.execute(
                update(TaskInstance).where(*_is(key)).values(state=state, end_date=ended_at or datetime.now(UTC))
            )

    def delete_task(self, key: TaskKey) -> None:
        with create_session() as session:
            session.execute(delete(TaskInstance.__table__).where(*_is(key)))

    def delete_run(self, run_id: str) -> None:
        with create_session() as session:
            session.execute(delete(TaskInstance.__table__).where(TaskInstance.run_id == run_id))
            session.execute(delete(DagRun.__table__).where(DagRun.run_id == run_id))

    def store(self, record: AttemptRecord) -> None:
        """Store a record as the task would."""
        self.store_value(record.task_key, record.model_dump(mode="json"))

    def store_value(self, key: TaskKey, value: Any) -> None:
        if HAS_STATE_STORE_TABLE:
            from airflow.state import get_state_backend
            from airflow.state.metastore import TaskScope

            get_state_backend().set(TaskScope(**key._asdict()), RECORD_KEY, json.dumps(value))
            return
        ti = SimpleNamespace(**key._asdict())
        VariableStateStore.for_task({"ti": ti}, "a test").set(RECORD_KEY, value)

    def records(self) -> int:
        """Return the number of stored records, in any state."""
        with create_session() as session:
            if HAS_STATE_STORE_TABLE:
                from airflow.models.task_state_store import TaskStateStoreModel

                keys = session.scalars(select(TaskStateStoreModel.key)).all()
            else:
                keys = session.scalars(select(Variable.key)).all()
        return sum(key.startswith(RECORD_KEY) for key in keys)

    def forget(self) -> None:
        """Delete all runs, tasks and records."""
        with create_session() as session:
            if HAS_STATE_STORE_TABLE:
                from airflow.models.task_state_store import TaskStateStoreModel

                session.execute(delete(TaskStateStoreModel.__table__))
            session.execute(delete(Variable.__table__).where(Variable.key.startswith(RECORD_KEY)))
            session.execute(delete(TaskInstance.__table__).where(TaskInstance.dag_id == DAG_ID))
            session.execute(delete(DagRun.__table__).where(DagRun.dag_id == DAG_ID))
            session.execute(delete(Trigger.__table__))


def _is(key: TaskKey) -> list[Any]:
    return [getattr(TaskInstance, name) == value for name, value in key._asdict().items()]
