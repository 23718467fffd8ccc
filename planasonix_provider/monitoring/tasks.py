"""Finds the tasks that have started jobs and backfills, in Airflow's database."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict
from urllib.parse import quote

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.waiting.attempt import TaskKey
from planasonix_provider.waiting.targets import BackfillTarget, Work, target_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: By how much the clocks of Airflow and Planasonix may differ.
_CLOCK_SLACK = timedelta(minutes=5)
_XCOM_KEYS = {"job": "job_id", "backfill": "backfill_id"}


class TaskRow(TypedDict):
    """A task in JSON types; ``url`` is its path in Airflow's UI."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int | None
    state: str | None
    url: str


@dataclass(frozen=True)
class OwningTask:
    """A task that has started work.

    :param rows_loaded: the rows of the task's result; ``None`` if the task has no result, or was not asked for it.
    """

    row: TaskRow
    rows_loaded: int | None = None


def task_row(task: TaskKey, *, try_number: int | None, state: str | None) -> TaskRow:
    """Return the row of a task."""
    path = "/dags/{}/runs/{}/tasks/{}".format(*(quote(part, safe=":+~@") for part in task[:3]))
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
        "try_number": try_number,
        "state": state,
        "url": path if task.map_index < 0 else f"{path}/mapped/{task.map_index}",
    }


def find_tasks(works: Collection[Work], other_workspaces: Collection[str] = ()) -> dict[str, OwningTask]:
    """Return the tasks that have started jobs and backfills of a workspace, by the ids of these. It blocks.

    A task pushes the id as an XCom as soon as the work exists. Airflow deletes XComs when the task runs again; then the
    metadata that the task has sent leads to it, if the API returns it.

    :param other_workspaces: the Airflow connections to other workspaces, whose work may have the same ids.
    """
    if not works:
        return {}
    with database_session() as session:
        owners = _by_xcoms(session, works, other_workspaces)
        by_metadata = {work.id: named for work in works if work.id not in owners and (named := _from_metadata(work))}
        states = _read_tasks(session, [*owners.values(), *by_metadata.values()])
        owners |= {
            work.id: by_metadata[work.id]
            for work in works
            if work.id in by_metadata and _is_plausible(work, states.get(by_metadata[work.id]))
        }
        rows = _read_rows_loaded(session, owners, works)
    return {
        work_id: OwningTask(
            task_row(task, try_number=found.try_number, state=found.state),
            rows_loaded=rows.get(task),
        )
        for work_id, task in owners.items()
        if (found := states.get(task))
    }


class _TaskState(NamedTuple):
    try_number: int
    state: str | None
    run_started_at: datetime | None


def _by_xcoms(session: Session, works: Collection[Work], other_workspaces: Collection[str]) -> dict[str, TaskKey]:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.xcom import XComModel
    from sqlalchemy import String, cast, or_, select, true

    ids: dict[str, list[str]] = {}
    created: list[datetime] = []
    is_dated = True
    for work in works:
        ids.setdefault(_kind_of(work), []).append(work.id)
        created += [work.created_at] if work.created_at else []
        is_dated = is_dated and work.created_at is not None
    value = cast(XComModel.value, String)
    fields = RenderedTaskInstanceFields
    query = (
        select(
            XComModel.dag_id,
            XComModel.run_id,
            XComModel.task_id,
            XComModel.map_index,
            XComModel.value,
            fields.rendered_fields,
        )
        .outerjoin(fields, is_of_task(fields, XComModel))
        .where(
            or_(
                *(
                    (XComModel.key == _XCOM_KEYS[kind]) & value.in_([json.dumps(one) for one in some])
                    for kind, some in ids.items()
                )
            ),
            # There may be very many XComs, and only their keys have an index.
            XComModel.timestamp >= min(created) - _CLOCK_SLACK if is_dated and created else true(),
        )
    )
    # The first task that had the id has started the work; others may have attached to it.
    found: dict[str, TaskKey] = {}
    connections = {work.id: work.connection_id for work in works}
    for *identity, work_id, rendered in session.execute(query.order_by(XComModel.timestamp.desc())):
        if _can_have_started(rendered, connections.get(work_id), other_workspaces):
            found[work_id] = TaskKey(*identity)
    return found


def _can_have_started(rendered: Any, connection_id: str | None, other_workspaces: Collection[str]) -> bool:
    """Return whether a task may have started work of a connection: Airflow keeps the parameters of recent tasks."""
    parameters = rendered if isinstance(rendered, dict) else {}
    named = parameters.get("connection_id")
    # Airflow masks secrets, which may be a part of an id.
    is_of_connection = not named or not connection_id or "***" in str(named) or named == connection_id
    return is_of_connection and parameters.get("planasonix_conn_id") not in other_workspaces


def is_of_task(row: Any, other: Any) -> Any:
    """Return the condition that rows of two tables are of the same task."""
    return (
        (row.dag_id == other.dag_id)
        & (row.run_id == other.run_id)
        & (row.task_id == other.task_id)
        & (row.map_index == other.map_index)
    )


def _kind_of(work: Work) -> str:
    return target_of(work).kind


def _from_metadata(work: Work) -> TaskKey | None:
    metadata: Mapping[str, Any] = work.metadata or {}
    dag_id, run_id, task_id = (metadata.get(name) for name in ("dag_id", "run_id", "task_id"))
    map_index = metadata.get("map_index", -1)
    if not (dag_id and run_id and task_id) or not isinstance(map_index, int):
        return None
    return TaskKey(str(dag_id), str(run_id), str(task_id), map_index)


def _is_plausible(work: Work, task: _TaskState | None) -> bool:
    """Return whether metadata can be of this task: another Airflow may have a DAG of the same name."""
    try_number = (work.metadata or {}).get("try_number")
    if task is None or not isinstance(try_number, int) or try_number > task.try_number:
        return False
    return (
        work.created_at is not None
        and task.run_started_at is not None
        and work.created_at >= task.run_started_at - _CLOCK_SLACK
    )


def _read_tasks(session: Session, tasks: Collection[TaskKey]) -> dict[TaskKey, _TaskState]:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select, tuple_

    identity = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    query = (
        select(*identity, TaskInstance.try_number, TaskInstance.state, DagRun.start_date)
        .join(DagRun, (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id))
        .where(tuple_(*identity).in_(set(tasks)))
    )
    return {TaskKey(*row[:4]): _TaskState(*row[4:]) for row in session.execute(query)} if tasks else {}


def _read_rows_loaded(session: Session, owners: Mapping[str, TaskKey], works: Collection[Work]) -> dict[TaskKey, int]:
    """Return the rows of the results of tasks whose work is over and does not show its rows."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select, tuple_

    silent = {owners[work.id]: work for work in works if work.is_over and work.id in owners and not _shows_rows(work)}
    if not silent:
        return {}
    identity = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    value = XComModel.value
    query = select(
        *identity,
        value["job_id"].as_string(),
        value["backfill_id"].as_string(),
        # As text: PostgreSQL refuses the whole query if one value does not fit its integers.
        value["metrics"]["rows_loaded"].as_string(),
        value["rows_loaded"].as_string(),
    ).where(XComModel.key == "return_value", tuple_(*identity).in_(set(silent)))
    rows: dict[TaskKey, int] = {}
    for *names, job_id, backfill_id, rows_of_job, rows_of_backfill in session.execute(query):
        task = TaskKey(*names)
        loaded = _to_int(rows_of_job if rows_of_backfill is None else rows_of_backfill)
        if loaded is not None and silent[task].id in (job_id, backfill_id):
            rows[task] = loaded
    return rows


def _to_int(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _shows_rows(work: Work) -> bool:
    if isinstance(target_of(work), BackfillTarget):
        return getattr(work, "rows_processed", None) is not None
    metrics = getattr(work, "metrics", None)
    return metrics is not None and metrics.rows_loaded is not None
