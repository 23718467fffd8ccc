"""Lets what an event loop asks of Airflow come to its end, though whoever has asked is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The event loop holds its tasks weakly, and these may outlive whoever has asked.
_TASKS: set[asyncio.Task[Any]] = set()


async def shielded(call: Coroutine[Any, Any, T]) -> T:
    """Wait for a call, and let it end though the wait is cancelled.

    On Airflow 3.0 to 3.2 an answer that nobody takes stays in the one channel that all triggers of a triggerer share,
    and the triggerer dies of it.

    :param call: asks Airflow something.
    :return: what came of it.
    """
    task = asyncio.create_task(call)
    _TASKS.add(task)
    task.add_done_callback(_discard)
    return await asyncio.shield(task)


def _discard(task: asyncio.Task[Any]) -> None:
    _TASKS.discard(task)
    if not task.cancelled():
        # Where nobody asks any more, asyncio would say in the log that nobody did.
        task.exception()
