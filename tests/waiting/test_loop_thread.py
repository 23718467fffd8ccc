from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from planasonix_provider.waiting.loop_thread import LoopThreadTimeoutError, run_in_loop_thread


class Terminated(BaseException):
    """An exception like those of Airflow's signal handlers."""


@pytest.fixture
def _raising_handler() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGALRM, terminate)
    yield
    signal.signal(signal.SIGALRM, previous)


def kill() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


def test_returns_the_result() -> None:
    async def act() -> str:
        await asyncio.sleep(0)
        return "done"

    assert run_in_loop_thread(act) == "done"


def test_raises_the_error() -> None:
    async def act() -> None:
        raise InterruptedError("killed")

    with pytest.raises(InterruptedError, match="killed"):
        run_in_loop_thread(act)


class TestACoroutineThatBlocks:
    """The code that a signal has interrupted holds a lock, so no timer of the event loop can end the coroutine."""

    @pytest.fixture
    def has_ended(self) -> threading.Event:
        return threading.Event()

    @pytest.fixture
    def lock(self) -> threading.Lock:
        return threading.Lock()

    def run(
        self,
        lock: threading.Lock,
        has_ended: threading.Event,
        max_seconds: float,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        async def act() -> None:
            first()
            with lock:
                has_ended.set()

        run_in_loop_thread(act, max_seconds)

    def test_keeps_running_after_the_maximum(self, lock: threading.Lock, has_ended: threading.Event) -> None:
        with lock, pytest.raises(LoopThreadTimeoutError, match=r"no result within 0\.1 s\."):
            self.run(lock, has_ended, 0.1)
        assert has_ended.wait(60)

    @pytest.mark.usefixtures("_raising_handler")
    def test_does_not_hold_up_an_exception_of_another_signal(
        self, lock: threading.Lock, has_ended: threading.Event
    ) -> None:
        with lock, pytest.raises(Terminated):
            self.run(lock, has_ended, 0.5, first=kill)
        assert has_ended.wait(60)


def test_runs_in_the_context_of_the_caller() -> None:
    mine = contextvars.ContextVar("mine", default="nobody's")

    async def act() -> str:
        return mine.get()

    token = mine.set("the task's")
    try:
        assert run_in_loop_thread(act) == "the task's"
    finally:
        mine.reset(token)


@pytest.mark.usefixtures("_raising_handler")
def test_is_cancelled_by_an_exception_of_a_signal_handler_in_the_event_loop() -> None:
    ends: list[str] = []

    async def act() -> None:
        # In a callback, asyncio logs the exception and continues. In a task, the exception would end the task.
        asyncio.get_running_loop().call_soon(kill)
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(Terminated):
        run_in_loop_thread(act)
    assert ends == ["cancelled"]


@pytest.mark.heavy
@pytest.mark.usefixtures("_raising_handler")
def test_survives_a_signal_at_any_time() -> None:
    async def act() -> None:
        await asyncio.sleep(0.003)

    for number in range(300):
        with suppress(Terminated):
            # The delays range from before the start of the thread until after its end.
            signal.setitimer(signal.ITIMER_REAL, 0.00002 * (number + 1))
            try:
                run_in_loop_thread(act)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)


def test_can_run_in_a_signal_handler_while_another_call_runs() -> None:
    done: list[str] = []

    async def note() -> None:
        done.append("in the handler")

    async def act() -> None:
        kill()
        await asyncio.sleep(0.1)
        done.append("after it")

    previous = signal.signal(signal.SIGALRM, lambda *_: run_in_loop_thread(note))
    try:
        run_in_loop_thread(act)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert sorted(done) == ["after it", "in the handler"]
