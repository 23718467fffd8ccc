"""Runs a coroutine in an event loop in another thread, while the task's thread blocks."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from planasonix_provider import clock

R = TypeVar("R")

#: How long a signal may stay unnoticed.
MAX_SLICE_SECONDS = 0.5
#: A thread that has not begun after this many seconds never will.
MAX_START_SECONDS = 5.0


class LoopThreadTimeoutError(Exception):
    """The coroutine has not ended in time."""


def run_in_loop_thread(function: Callable[[], Awaitable[R]], max_seconds: float = math.inf) -> R:
    """Run a coroutine function in an event loop in its own thread, block, and return the result.

    After ``max_seconds``, raise ``LoopThreadTimeoutError``; the coroutine keeps running. A signal handler needs this
    limit, because the interrupted code may hold a lock that the coroutine waits for.

    Airflow ends a task by an exception that its signal handler raises in the main thread. Inside of an event loop,
    asyncio would log that exception and go on without the callback that it has hit, perhaps for ever. Here it hits a
    thread that only waits, and the coroutine is cancelled.
    """
    work = _LoopThread(function, max_seconds)
    try:
        start_new_thread(contextvars.copy_context().run, (work.run,))
        # A signal that arrives just before the thread blocks does not wake it.
        while (left := work.seconds_left()) and not work.done.acquire(timeout=min(left, MAX_SLICE_SECONDS)):
            pass
    except BaseException:
        work.give_up()
        raise
    return work.outcome()


class _LoopThread(Generic[R]):
    """The state that both threads share.

    A signal may come at any moment. There are moments at which it would leave the locks of threads, futures and
    conditions in disorder, or let them wait for ever. A bare lock has no such moment.
    """

    def __init__(self, function: Callable[[], Awaitable[R]], max_seconds: float) -> None:
        self.done = allocate_lock()
        self.done.acquire()
        self._function = function
        self._max_seconds = max_seconds
        # Real time, even if a test simulates the time of the coroutine: a lock is real.
        self._give_up_at = time.monotonic() + max_seconds
        self._has_begun = self._is_given_up = False
        self._cancel: Callable[[], object] | None = None
        self._outcome: Callable[[], R] | None = None

    def run(self) -> None:
        """Run the coroutine; the other thread waits for ``done``."""
        self._has_begun = True
        try:
            result = clock.run(self._main())
        except BaseException as error:
            failure = error

            def fail() -> R:
                raise failure

            self._outcome = fail
        else:
            self._outcome = lambda: result
        finally:
            self.done.release()

    async def _main(self) -> R:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if self._is_given_up:
            raise asyncio.CancelledError
        return await self._function()

    def seconds_left(self) -> float:
        """Return the seconds until the maximum, at least 0."""
        return max(0.0, self._give_up_at - time.monotonic())

    def give_up(self) -> None:
        """Cancel the coroutine, and wait until it has ended, at most until the maximum."""
        self._is_given_up = True
        if self._cancel:
            # The loop may be closed already.
            with suppress(RuntimeError):
                self._cancel()
        # The signal may also have come after the wait.
        while self._outcome is None and (left := self.seconds_left()):
            if not self.done.acquire(timeout=min(left, MAX_START_SECONDS)) and not self._has_begun:
                return

    def outcome(self) -> R:
        """Return the result, or raise the error."""
        if self._outcome is None:
            raise LoopThreadTimeoutError(f"no result within {self._max_seconds:.1f} s.")
        return self._outcome()
