"""Rows of Airflow's database, as tasks leave them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from airflow.jobs.job import Job
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from packaging.version import Version
from sqlalchemy import delete, insert

#: An id for each DAG run.
_IDS = iter(range(1_000_000, 2_000_000))


def new_task_id() -> uuid.UUID | str:
    """Return an id for a task instance: text before Airflow 3.2. Airflow 2.11 has no such column."""
    new = uuid.uuid4()
    return new if Version(version("apache-airflow")) >= Version("3.2") else str(new)


class TaskRows:
    """Adds tasks to Airflow's database."""

    def add(
        self,
        dag_id: str = "dag",
        task_id: str = "load",
        *,
        run_id: str | None = None,
        map_index: int = -1,
        state: str = "running",
        try_number: int = 1,
        ended_at: datetime | None = None,
        run_started_at: datetime | None = None,
        trigger: Any = None,
        triggerer_id: int | None = None,
        parameters: dict[str, str] | None = None,
        **xcoms: Any,
    ) -> str:
        """Add a task with XComs; return the id of its DAG run.

        :param parameters: the rendered parameters; default: Airflow has deleted them.
        """
        run = next(_IDS)
        run_id = run_id or f"manual__{uuid.uuid4().hex[:8]}"
        started_at = run_started_at or datetime.now(UTC) - timedelta(hours=1)
        with create_session() as session:
            self._insert(
                session,
                DagRun.__table__,
                id=run,
                dag_id=dag_id,
                run_id=run_id,
                run_type="manual",
                state="running",
                start_date=started_at,
                clear_number=0,
                run_after=started_at,
                # Airflow 2.11 allows one run for each logical date.
                execution_date=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=run),
            )
            names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
            self._insert(
                session,
                TaskInstance.__table__,
                **names,
                id=new_task_id(),
                state=state,
                try_number=try_number,
                end_date=ended_at,
                start_date=started_at,
                trigger_id=None if trigger is None else self._add_trigger(session, trigger, triggerer_id),
                pool="default_pool",
                pool_slots=1,
                max_tries=2,
                hostname="",
                executor_config={},
                span_status="not_started",
                partition_key=None,
            )
            if parameters is not None:
                self._insert(session, RenderedTaskInstanceFields.__table__, **names, rendered_fields=parameters)
            for key, value in xcoms.items():
                self._add_xcom(session, run, names, key, value)
        return run_id

    @staticmethod
    def add_triggerer(heartbeat: datetime) -> int:
        """Add a triggerer with this heartbeat; return its id."""
        with create_session() as session:
            job = Job(latest_heartbeat=heartbeat)
            job.job_type, job.state = "TriggererJob", "running"
            session.add(job)
            session.flush()
            return int(job.id)

    @staticmethod
    def _insert(session: Any, table: Any, **values: Any) -> None:
        """Insert a row into a table that lacks some of the columns in other versions of Airflow."""
        session.execute(insert(table).values({name: values[name] for name in values if name in table.c}))

    @staticmethod
    def _add_trigger(session: Any, trigger: Any, triggerer_id: int | None) -> int:
        row = Trigger.from_object(trigger)
        row.triggerer_id = triggerer_id
        session.add(row)
        session.flush()
        return int(row.id)

    @staticmethod
    def _add_xcom(session: Any, run: int, names: dict[str, Any], key: str, value: Any) -> None:
        from airflow.models.xcom import XComModel

        session.add(XComModel(dag_run_id=run, key=key, value=value, **names))

    def forget(self) -> None:
        """Delete all tasks and triggerers."""
        with create_session() as session:
            for model in (TaskInstance, DagRun, Trigger):
                session.execute(delete(model))
            session.execute(delete(Job.__table__).where(Job.job_type == "TriggererJob"))
