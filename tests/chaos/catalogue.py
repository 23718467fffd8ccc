"""The sixty tasks of the storm, of all kinds. The DAG, the plan and the readers use this list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DAG_ID = "chaos"
#: The environment variable that sets the number of tasks: "full", or "short" for a storm of a few minutes.
SIZE = "CHAOS_SIZE"
#: The Airflow connection.
CONN_ID = "planasonix_chaos"

Size = Literal["full", "short"]


@dataclass(frozen=True)
class Spec:
    """A task or a mapped task.

    :param task_id: its id.
    :param connections: the connection in Planasonix, or one for each mapped task instance.
    :param starts: the kind of work that it starts.
    :param deferrable: whether it waits in the triggerer.
    :param retries: its retries in Airflow.
    :param timeout: its timeout in seconds.
    :param is_mapped: whether it is mapped.
    :param cancel_on_kill: whether its work is cancelled when it ends early.
    :param on_conflict: how it handles a running sync of the same connection.
    :param is_long: whether its work takes much longer than that of other tasks.
    :param fails_once: whether its first work fails.
    """

    task_id: str
    connections: tuple[str, ...]
    starts: Literal["job", "backfill"] = "job"
    deferrable: bool = False
    retries: int = 4
    timeout: float | None = None
    is_mapped: bool = False
    cancel_on_kill: bool = True
    on_conflict: Literal["fail", "attach", "wait"] = "fail"
    is_long: bool = False
    fails_once: bool = False

    def names(self) -> Iterator[tuple[str, int, str]]:
        """Yield the name, the map index and the connection of each task instance."""
        for index, connection_id in enumerate(self.connections):
            yield (
                name_of(self.task_id, index if self.is_mapped else -1),
                index if self.is_mapped else -1,
                connection_id,
            )


def name_of(task_id: str, map_index: int) -> str:
    """Return the name of a task instance."""
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def catalogue(size: str | None = None) -> list[Spec]:
    """Return the tasks of a size, by default that of the environment."""
    is_full = (size or os.environ.get(SIZE, "full")) == "full"

    def some(name: str, full: int, short: int, **how: object) -> list[Spec]:
        count = full if is_full else short
        names = [f"{name}_{number:02}" for number in range(1, count + 1)]
        return [Spec(each, (f"conn_{each}",), **how) for each in names]  # type: ignore[arg-type]

    def mapped(name: str, full: int, short: int, **how: object) -> list[Spec]:
        count = full if is_full else short
        connections = tuple(f"conn_{name}_{number:02}" for number in range(count))
        return [Spec(name, connections, is_mapped=True, **how)] if count else []  # type: ignore[arg-type]

    def pair(how: Literal["attach", "wait"]) -> list[Spec]:
        """Return two tasks that sync the same connection, so that one may conflict with the other."""
        connections = (f"conn_{how}_pair",)
        return [
            Spec(f"{how}_first", connections, on_conflict="wait"),
            Spec(f"{how}_second", connections, on_conflict=how, deferrable=how == "attach"),
        ]

    return [
        *some("sync_worker", 8, 3),
        *some("sync_deferred", 9, 4, deferrable=True),
        *some("sync_long_worker", 3, 1, is_long=True),
        *some("sync_long_deferred", 6, 1, deferrable=True, is_long=True),
        *some("sync_worker_once", 2, 1, retries=0),
        *some("sync_deferred_once", 2, 1, deferrable=True, retries=0),
        *some("sync_long_worker_once", 1, 1, retries=0, is_long=True),
        *some("sync_long_deferred_once", 2, 2, deferrable=True, retries=0, is_long=True),
        *some("sync_worker_late", 2, 1, timeout=15, retries=1),
        *some("sync_deferred_late", 2, 1, deferrable=True, timeout=20, retries=1),
        *some("sync_worker_alone", 1, 0, cancel_on_kill=False),
        *some("sync_deferred_alone", 1, 1, deferrable=True, cancel_on_kill=False),
        *some("sync_worker_fails_once", 2, 0, fails_once=True),
        *some("sync_deferred_fails_once", 2, 1, deferrable=True, fails_once=True),
        *some("backfill_worker", 3, 1, starts="backfill"),
        *some("backfill_deferred", 4, 1, starts="backfill", deferrable=True),
        *some("backfill_fails_once", 1, 0, starts="backfill", deferrable=True, fails_once=True),
        *mapped("syncs_mapped_worker", 3, 0),
        *mapped("syncs_mapped_deferred", 4, 3, deferrable=True),
        *mapped("backfills_mapped_deferred", 2, 0, starts="backfill", deferrable=True),
        *pair("attach"),
        *(pair("wait") if is_full else ()),
    ]
