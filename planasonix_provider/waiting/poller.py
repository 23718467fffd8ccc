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
from weakref import WeakKeyDictionary

from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixRateLimitError,
)
from planasonix_provider.api.retry import ONCE
from planasonix_provider.api.routes import Request

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How many requests a poller has in flight; httpx's pool slows down with more callers than that.
MOST_IN_FLIGHT = 5
#: For how many seconds the API can silence a poller at one go, whatever its ``Retry-After`` says.
LONGEST_SILENCE = 900.0


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

    :param connect: reads the Airflow connection and makes a client; called again when the key is refused.
    """

    def __init__(self, connect: Callable[[], Awaitable[AsyncClient]]) -> None:
        self._connect = connect
        self._clients: list[AsyncClient] = []
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._waits: set[Wait[Any]] = set()
        self._woken = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._gate = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._silence: tuple[float, PlanasonixRateLimitError] | None = None

    @asynccontextmanager
    async def wait(self, request: Request[T], interval: float) -> AsyncIterator[Wait[T]]:
        """Register a wait for as long as the block lasts.

        :param request: asks for the state of what is waited for; waits for the same thing share its answers.
        :param interval: the seconds between two looks; the first one is at once.
        :return: the wait, to be asked for its next answer.
        """
        loop = asyncio.get_running_loop()
        wait = Wait(request, interval, due=loop.time())
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
            clients, self._clients = self._clients, []
            self._task = None
            for look in looks:
                look.cancel()
            for client in clients:
                await client.close()

    def _start_looks(self) -> None:
        """Ask for all that is due, each thing once however many wait for it."""
        loop = asyncio.get_running_loop()
        due: dict[str, list[Wait[Any]]] = {}
        for wait in self._waits:
            if wait.due <= loop.time():
                due.setdefault(str(wait.request), []).append(wait)
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
            async with self._gate:
                answer = await self._ask(waits[0].request)
        except PlanasonixError as error:
            answer = error
        except Exception as bug:
            log.exception("A look at Planasonix broke")
            answer = _broken(bug)
        now = asyncio.get_running_loop().time()
        silent_until = self._silence[0] if self._silence else now
        for wait in waits:
            wait.due = max(now + wait.interval, silent_until)
            wait.answer(answer)
        self._woken.set()

    async def _ask(self, request: Request[T]) -> T:
        """Ask once; a refused key is read again, once, for it may have been rotated meanwhile."""
        if self._silence and self._silence[0] > asyncio.get_running_loop().time():
            raise self._silence[1]
        client = await self._connected()
        try:
            try:
                return await client.send(request, ONCE)
            except PlanasonixAuthenticationError:
                renewed = await self._connected(instead_of=client)
                if renewed is client:
                    raise
                return await renewed.send(request, ONCE)
        except PlanasonixRateLimitError as refusal:
            self._keep_silent(refusal)
            raise

    async def _connected(self, instead_of: AsyncClient | None = None) -> AsyncClient:
        """Give the client; make one where there is none, or where the Airflow connection has changed since.

        :param instead_of: the client whose key was refused.
        """
        async with self._connecting:
            current = self._clients[-1] if self._clients else None
            if current is not None and current is not instead_of:
                return current
            fresh = await self._connect()
            if current is not None and fresh.account == current.account:
                await fresh.close()
                return current
            # The client before stays open until the end: others may be in the middle of a request with it.
            self._clients.append(fresh)
            return fresh

    def _keep_silent(self, refusal: PlanasonixRateLimitError) -> None:
        """Let the whole poller rest after a 429: the limit is the key's, not that of one wait."""
        rest = min(refusal.retry_after or 0.0, LONGEST_SILENCE)
        self._silence = (asyncio.get_running_loop().time() + rest, refusal)


def _broken(bug: Exception) -> PlanasonixError:
    """Tell a wait that what it relies on has died: it may fail, but it may not hang."""
    return PlanasonixError(f"The poller broke ({type(bug).__name__}: {bug}). Please report it.")


# Keyed by event loop as well: ``dag.test()`` runs each trigger in a loop of its own.
_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


def poller_for(key: str, connect: Callable[[], Awaitable[AsyncClient]]) -> Poller:
    """Give the poller that serves an Airflow connection in this event loop.

    :param key: the Airflow connection's id.
    :param connect: reads that connection and makes a client; used where there is no poller yet.
    :return: the one that all waits of this key share.
    """
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    if key not in pollers:
        pollers[key] = Poller(connect)
    return pollers[key]
