"""Runs what is awaited beside a task's own thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

R = TypeVar("R")


def aside(act: Callable[[], Awaitable[R]]) -> R:
    """Do something in an event loop in a thread of its own, and block until it is done.

    Airflow ends a task by what its signal handlers raise, and these run in the main thread: amid an event loop's own
    work asyncio would log that and go on, without the callback that it hit, and so perhaps for ever. Here it hits a
    thread that only waits; then what is being done is cancelled.

    :param act: what to do.
    :return: what came of it.
    """
    with start_blocking_portal(backend="asyncio") as portal:
        return portal.call(act)
