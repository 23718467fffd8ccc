"""Runs what is awaited beside a task's own thread."""

from __future__ import annotations

import asyncio
import contextvars
from _thread import allocate_lock, start_new_thread
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from planasonix_provider import clock
from planasonix_provider.waiting.interruptible_sleep import MAX_SLICE

R = TypeVar("R")

#: After how many seconds a thread that has not begun never will.
LONGEST_START = 5.0


def run_in_loop_thread(act: Callable[[], Awaitable[R]]) -> R:
    """Do something in an event loop in a thread of its own, and block until it is done.

    Airflow ends a task by what its signal handlers raise, and these run in the main thread: amid an event loop's own
    work asyncio would log that and go on, without the callback that it hit, and so perhaps for ever. Here it hits a
    thread that only waits; then what is being done is cancelled.

    :param act: what to do.
    :return: what came of it.
    """
    work = _LoopThread(act)
    try:
        start_new_thread(contextvars.copy_context().run, (work.run,))
        # Not in one piece: a signal that comes just before the thread blocks does not wake it, and waits for its turn.
        while not work.done.acquire(timeout=MAX_SLICE):
            pass
    except BaseException:
        work.give_up()
        raise
    return work.outcome()


class _LoopThread(Generic[R]):
    """What is done aside, as both threads see it.

    The signal may come at any moment. Threads, futures and conditions have moments at which it would leave their locks
    in disorder, or themselves waiting for ever; a bare lock has none.

    :param act: what to do.
    """

    def __init__(self, act: Callable[[], Awaitable[R]]) -> None:
        self.done = allocate_lock()
        self.done.acquire()
        self._act = act
        self._has_begun = self._is_given_up = False
        self._cancel: Callable[[], object] | None = None
        self._outcome: Callable[[], R] | None = None

    def run(self) -> None:
        """Do it; the other thread's part is to wait for ``done``."""
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
        return await self._act()

    def give_up(self) -> None:
        """Cancel it, and wait until it has ended."""
        self._is_given_up = True
        if self._cancel:
            # The loop is closed where it has come to its end.
            with suppress(RuntimeError):
                self._cancel()
        # The signal may have hit after the wait for it as well.
        while self._outcome is None:
            if not self.done.acquire(timeout=LONGEST_START) and not self._has_begun:
                return

    def outcome(self) -> R:
        """Give what came of it, or raise why nothing did."""
        assert self._outcome is not None  # noqa: S101 - it is done
        return self._outcome()
