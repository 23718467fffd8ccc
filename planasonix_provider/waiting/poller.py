"""One poll loop for all the waits of one process on one Airflow connection.

A wait registers what it wants to know and sleeps; the poller asks, over one client and with few requests in flight,
and hands each answer to the waits that it concerns.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.routes import Request
from planasonix_provider.waiting.channel import Channel

T = TypeVar("T")

log = logging.getLogger(__name__)


class Wait(Generic[T]):
    """One wait: what it asks, how often, and what has been answered.

    :param request: asks for the state of what is waited for.
    :param interval: the seconds between two looks.
    :param due: when to look first, by the event loop's clock.
    """

    def __init__(self, request: Request[T], interval: float, due: float) -> None:
        self.request = request
        self.interval = interval
        self.due = due
        self._answers: asyncio.Queue[T | PlanasonixError] = asyncio.Queue()

    def answer(self, answer: T | PlanasonixError) -> None:
        """Hand over what a look has brought.

        :param answer: what was asked for, or why it could not be had.
        """
        # Whoever is slower than the looks gets the newest, and not all that it has missed.
        while not self._answers.empty():
            self._answers.get_nowait()
        self._answers.put_nowait(answer)

    async def next(self, seconds: float) -> T | PlanasonixError | None:
        """Sleep until a look brings something.

        :param seconds: for how long to sleep at the most.
        :return: what the look brought, or ``None`` if there was none in that time.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._answers.get()
        except TimeoutError:
            return None


class Poller:
    """Asks for all waits of one Airflow connection. It runs while somebody waits, and closes its clients then.

    :param connect: reads the Airflow connection and makes a client; called again when that may have changed.
    """

    def __init__(self, connect: Callable[[], Awaitable[AsyncClient]]) -> None:
        self.channel = Channel(connect)
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._waits: set[Wait[Any]] = set()
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def wait(self, request: Request[T], interval: float, delay: float = 0.0) -> AsyncIterator[Wait[T]]:
        """Register a wait for as long as the block lasts.

        :param request: asks for the state of what is waited for; waits for the same thing share its answers.
        :param interval: the seconds between two looks.
        :param delay: the seconds until the first look; default none.
        :return: the wait, to be asked for its next answer.
        """
        loop = asyncio.get_running_loop()
        wait = Wait(request, interval, due=loop.time() + delay)
        self._waits.add(wait)
        self._woken.set()
        if self._task is None:
            # A context of its own, for a task inherits the context of whoever made it, and with it the log of the
            # trigger that happened to come first.
            self._task = loop.create_task(self._run(), context=contextvars.Context())
        try:
            yield wait
        finally:
            self._waits.discard(wait)
            self._woken.set()

    async def _run(self) -> None:
        try:
            while self._waits:
                self._start_looks()
                await self._sleep()
        except Exception as bug:
            log.exception("The Planasonix poller broke")
            for wait in self._waits:
                wait.answer(_broken(bug))
        finally:
            # Nothing between here and the reset may await: whoever registers now must find either a loop that will
            # see it, or none at all.
            looks, self._looks = self._looks, set()
            self._task = None
            for look in looks:
                look.cancel()
            await self.channel.close()

    def _start_looks(self) -> None:
        """Ask for all that is due, each thing once however many wait for it."""
        loop = asyncio.get_running_loop()
        due: dict[str, list[Wait[Any]]] = {}
        for wait in self._waits:
            if wait.due <= loop.time():
                due.setdefault(wait.request.key, []).append(wait)
                wait.due = math.inf
        for waits in due.values():
            look = loop.create_task(self._look(waits))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _sleep(self) -> None:
        """Sleep until the next wait is due, or somebody comes, goes or has been answered."""
        self._woken.clear()
        next_due = min((wait.due for wait in self._waits), default=0.0)
        seconds = None if next_due == math.inf else next_due - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _look(self, waits: list[Wait[Any]]) -> None:
        try:
            answer = await self.channel.ask(waits[0].request)
        except PlanasonixError as error:
            answer = error
        except Exception as bug:
            log.exception("A look at Planasonix broke")
            answer = _broken(bug)
        now = asyncio.get_running_loop().time()
        for wait in waits:
            wait.due = now + max(wait.interval, self.channel.silence)
            wait.answer(answer)
        self._woken.set()


def _broken(bug: Exception) -> PlanasonixError:
    """Tell a wait that what it relies on has died: it may fail, but it may not hang."""
    return PlanasonixLostTrackError(f"The poller broke ({type(bug).__name__}: {bug}). Please report it.")


# Keyed by event loop as well, for ``dag.test()`` runs each trigger in a loop of its own; and weakly, so that a poller
# goes when the last wait that holds it does, and its loop with it.
_POLLERS: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], Poller] = WeakValueDictionary()


def poller_for(key: str, connect: Callable[[], Awaitable[AsyncClient]]) -> Poller:
    """Give the poller that serves an Airflow connection in this event loop.

    :param key: the Airflow connection's id.
    :param connect: reads that connection and makes a client; used where there is no poller yet.
    :return: the one that all waits of this key share.
    """
    return _POLLERS.setdefault((asyncio.get_running_loop(), key), Poller(connect))
