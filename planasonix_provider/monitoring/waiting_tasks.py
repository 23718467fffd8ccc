"""The deferred tasks that wait for Planasonix, in Airflow's database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.api.models.base import as_utc
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.tasks import TaskRow, task_row
from planasonix_provider.validators import utc
from planasonix_provider.waiting.attempt import TaskKey
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.target_registry import deserialize_target
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, WaitTarget, Work

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: How many tasks are listed, those that have waited longest first.
MAX_WAITS = 500
#: The beginning of the class paths of this package's triggers.
_CLASS_PATHS = "planasonix_provider."


class WaitRow(TypedDict):
    """A waiting task in JSON types. ``is_triggerer_alive`` is ``None`` while no triggerer has its trigger."""

    task: TaskRow
    since: str | None
    deadline: str | None
    target: str
    kind: str | None
    id: str | None
    conn_id: str | None
    connection_id: str | None
    status: str | None
    is_triggerer_alive: bool | None
    url: str | None


@dataclass(frozen=True)
class WaitingTask:
    """A task that waits in the triggerer.

    :param target: the target of the wait; ``None`` if another version of this package has written the trigger.
    :param status: the state that the task has seen before it was deferred.
    """

    task: TaskRow
    since: datetime | None
    deadline: datetime | None
    target: WaitTarget | None
    conn_id: str | None
    status: str | None
    is_triggerer_alive: bool | None


@dataclass(frozen=True)
class WaitingTasks:
    """The waiting tasks; ``has_more`` if there are more than these."""

    items: list[WaitingTask]
    has_more: bool


def read_waiting_tasks(limit: int = MAX_WAITS) -> WaitingTasks:
    """Return the deferred tasks whose trigger is one of this package. It blocks.

    Triggers of other packages are left out, even if they inherit from one of this package: to find them, the arguments
    of all triggers would have to be decrypted.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from sqlalchemy import select
    from sqlalchemy.orm import lazyload

    query = (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.try_number,
            TaskInstance.state,
            Trigger,
        )
        .join(Trigger, Trigger.id == TaskInstance.trigger_id)
        .where(TaskInstance.state == "deferred", Trigger.classpath.startswith(_CLASS_PATHS, autoescape=True))
        .order_by(Trigger.created_date, Trigger.id)
        .limit(limit + 1)
        .options(lazyload("*"))
    )
    with database_session() as session:
        rows = session.execute(query).all()
        alive = _living_triggerers(session, {row[-1].triggerer_id for row in rows if row[-1].triggerer_id is not None})
        items = [_waiting_task(row, alive) for row in rows[:limit]]
    return WaitingTasks(items, has_more=len(rows) > limit)


def _living_triggerers(session: Session, ids: Iterable[int]) -> dict[int, bool]:
    from airflow.jobs.job import Job
    from sqlalchemy import select
    from sqlalchemy.orm import lazyload

    query = select(Job).where(Job.id.in_(list(ids))).options(lazyload("*"))
    return {job.id: bool(job.is_alive()) for job in session.scalars(query)}


def _waiting_task(row: Any, alive: Mapping[int, bool]) -> WaitingTask:
    dag_id, run_id, task_id, map_index, try_number, state, trigger = row
    arguments = _arguments(trigger)
    return WaitingTask(
        task=task_row(TaskKey(dag_id, run_id, task_id, map_index), try_number=try_number, state=str(state)),
        since=as_utc(trigger.created_date) if trigger.created_date else None,
        deadline=_deadline(arguments),
        target=_target(trigger.classpath, arguments),
        conn_id=arguments.get("planasonix_conn_id"),
        status=arguments.get("status"),
        is_triggerer_alive=None if trigger.triggerer_id is None else alive.get(trigger.triggerer_id, False),
    )


def _arguments(trigger: Any) -> Mapping[str, Any]:
    try:
        arguments: Mapping[str, Any] = trigger.kwargs
    except Exception:
        # Encrypted with another key.
        return {}
    return arguments


def _deadline(arguments: Mapping[str, Any]) -> datetime | None:
    try:
        return utc("deadline", arguments["deadline"])
    except (KeyError, ValueError):
        return None


def _target(class_path: str, arguments: Mapping[str, Any]) -> WaitTarget | None:
    try:
        if "target" in arguments:
            return deserialize_target(arguments["target"])
        if "job_id" in arguments:
            return JobTarget(arguments["job_id"])
        if "backfill_id" in arguments:
            return BackfillTarget(arguments["backfill_id"])
        fields = {name: arguments[name] for name in ("since", "by", "on_failure")}
        return SyncTarget.deserialize({"id": arguments["connection_id"], **fields})
    except (KeyError, TypeError, ValueError):
        return None


def wait_row(
    waiting: WaitingTask,
    settings: ConnectionSettings | None = None,
    find_work: Callable[[str, str], Work | None] = lambda conn_id, work_id: None,
) -> WaitRow:
    """Return the row of a waiting task.

    :param find_work: returns what is known of a job or a backfill, by the Airflow connection and its id.
    """
    target = waiting.target
    is_of_connection = target is not None and target.id_name == "connection_id"
    work_id = target.id if target and not is_of_connection else None
    work = find_work(waiting.conn_id, work_id) if waiting.conn_id and work_id else None
    return {
        "task": waiting.task,
        "since": json_time(waiting.since),
        "deadline": json_time(waiting.deadline),
        "target": target.name if target else "unknown",
        "kind": target.kind if target else None,
        "id": work_id,
        "conn_id": waiting.conn_id,
        "connection_id": target.id if target and is_of_connection else work.connection_id if work else None,
        "status": work.status if work else waiting.status,
        "is_triggerer_alive": waiting.is_triggerer_alive,
        "url": settings.job_url(work_id) if settings and work_id and isinstance(target, JobTarget) else None,
    }
