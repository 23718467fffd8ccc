"""Whether a task was really killed, asked from inside the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance


async def is_really_killed(ti: TaskInstance | None) -> bool:
    """Ask Airflow for a task's state: a trigger that only moves to another triggerer may be ended as a killed one.

    :param ti: the task instance of the trigger; ``None`` where Airflow gave none.
    :return: whether the task waits no longer. A task that was cleared and has deferred again cannot be told from one
        that still waits, and counts as one.
    """
    if ti is None:
        return False
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states: dict[str, dict[str, Any]] = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    found = states.get(ti.run_id, {})
    mapped = f"{ti.task_id}_{ti.map_index}"
    state = found.get(mapped, found.get(ti.task_id))
    return str(getattr(state, "value", state)) != "deferred"
