"""What has become of a task: whether it was really killed, or goes on in another process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

#: Whether Airflow tells a trigger that its task was killed, and does not just cancel it, as it does for other reasons
#: too. From 3.3 on it does.
IS_TOLD = hasattr(BaseTrigger, "on_kill")
#: The states of a task that waits still, or whose next try sees to the work.
CARED_FOR = ("deferred", "running", "up_for_retry", "up_for_reschedule")
#: The states of a task that another process runs, or will run without anybody doing anything about it.
GOES_ON = (*CARED_FOR, "scheduled", "queued")


async def is_really_killed(ti: TaskInstance | None) -> bool:
    """Ask Airflow for a task's state: a trigger that only moves to another triggerer may be ended as a killed one.

    :param ti: the task instance of the trigger; ``None`` where Airflow gave none.
    :return: whether nobody waits for the work any more. A task that was cleared and has begun again sees to its old
        work itself, and cannot be told from one that still waits.
    """
    if ti is None:
        return False
    return await sync_to_async(_state_of)(ti) not in CARED_FOR


def goes_on_elsewhere(ti: Any) -> bool:
    """Ask Airflow, from a process that it ends, whether the task goes on nevertheless.

    :param ti: the task instance, as that process knows it.
    :return: whether it does, as far as Airflow answers: it may not do so to whoever has stood still for long.
    """
    try:
        return _state_of(ti) in GOES_ON
    except Exception:
        return False


def is_shutdown() -> bool:
    """Tell why a trigger was cancelled: by itself, or with all that runs in its process.

    :return: whether the whole event loop ends.
    """
    return all(task.cancelling() for task in asyncio.all_tasks())


def _state_of(ti: TaskInstance) -> str | None:
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return _state_in_the_database(ti)
    states: dict[str, dict[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    found = states.get(ti.run_id, {})
    state = found.get(f"{ti.task_id}_{ti.map_index}", found.get(ti.task_id))
    return None if state is None else str(getattr(state, "value", state))


def _state_in_the_database(ti: TaskInstance) -> str | None:
    """Ask where Airflow 2 keeps it: its triggerer has the database at hand."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    names = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    with create_session() as session:
        state: str | None = session.scalar(select(TaskInstance.state).filter_by(**names))
    return state
