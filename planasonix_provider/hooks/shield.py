"""Lets a call of Airflow's API finish although the coroutine that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The event loop only has weak references to its tasks.
_TASKS: set[asyncio.Task[Any]] = set()


async def shielded(call: Coroutine[Any, Any, T]) -> T:
    """Await a call of Airflow's API, and let it finish if this coroutine is cancelled.

    All triggers of a triggerer share one channel to Airflow. On Airflow 3.0 to 3.2 an unread response stays
    in this channel, and the triggerer crashes.
    """
    task = asyncio.create_task(call)
    _TASKS.add(task)
    task.add_done_callback(_discard)
    return await asyncio.shield(task)


def _discard(task: asyncio.Task[Any]) -> None:
    _TASKS.discard(task)
    if not task.cancelled():
        # asyncio logs an error if the exception of a task is never retrieved.
        task.exception()
