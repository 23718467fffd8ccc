"""Notices of ended tasks, from the listener to the thread that watches them."""

from __future__ import annotations

from typing import NamedTuple


class EndedTasks(NamedTuple):
    """A task that was ended by hand; or all tasks of a DAG run, without ``task_id`` and ``map_index``."""

    dag_id: str
    run_id: str
    task_id: str | None = None
    map_index: int | None = None
