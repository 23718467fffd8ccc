"""One poll loop for all the waits of one process on one Airflow connection.

A wait registers what it wants to know and sleeps; the poller asks, over one client and with few requests in flight,
and hands each answer to the waits that it concerns.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from planasonix_provider.api import routes
from planasonix_provider.api.client import DEFAULT_CONNECT_TIMEOUT, AsyncClient
from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import Job
from planasonix_provider.api.retry import is_passing
from planasonix_provider.api.routes import Request
from planasonix_provider.waiting.channel import MOST_IN_FLIGHT, Channel
from planasonix_provider.waiting.sweep import FEWEST, Sweeps

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How many waits are answered before others in the event loop have their turn: each goes on, and writes a log, at once.
ANSWERED_AT_ONCE = 50
#: For how many seconds the first looks may keep the others waiting, to learn whether this is an outage: a little more
#: than it takes not to get a connection.
LONGEST_DOUBT = DEFAULT_CONNECT_TIMEOUT + 1
#: How many seconds there are between two sweeps at the least: so much later than its interval a wait may be looked at.
SWEEP_EVERY = 1.0


class Wait(Generic[T]):
    """One wait: what it asks, how often, and what has been answered.

    :param request: asks for the state of what is waited for.
    :param interval: the seconds between two looks.
    :param due: when to look first, by the event loop's clock.
    """

    def __init__(self, request: Request[T], interval: float, due: float) -> None:
        self.request = request
        #: The job, where it is one's state that is asked for.
        self.job_id = request.ids["job_id"] if request.path == routes.get_job("any").path else None
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
        self._sweeps = Sweeps(self.channel.ask, _now)
        self._next_sweep = 0.0
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
            if wait.job_id:
                self._sweeps.forget(wait.job_id)
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
            self._next_sweep = 0.0
            for look in looks:
                look.cancel()
            await self.channel.close()

    def _start_looks(self) -> None:
        """Ask for all that is due, in the way that takes the fewest requests."""
        now = _now()
        swept: list[Wait[Any]] = []
        each: list[Wait[Any]] = []
        for wait in self._waits:
            if self._starts_at(wait) <= now:
                (swept if self._may_be_swept(wait) else each).append(wait)
        if swept and len(soon := self._due_soon(now)) >= FEWEST:
            self._next_sweep = math.inf
            self._begin(swept, self._sweep(swept, soon))
        else:
            each += swept
        if each:
            self._begin(each, self._look_at_each(each))

    def _due_soon(self, now: float) -> set[str]:
        """Say which jobs a sweep may as well look for: then all of them are due together the next time."""
        return {
            wait.job_id
            for wait in self._waits
            if wait.job_id and wait.due <= now + wait.interval / 2 and self._may_be_swept(wait)
        }

    def _starts_at(self, wait: Wait[Any]) -> float:
        """Say when a wait is looked at: what comes amid a sweep, or right after one, waits for the next."""
        return max(wait.due, self._next_sweep) if self._may_be_swept(wait) else wait.due

    def _may_be_swept(self, wait: Wait[Any]) -> bool:
        return wait.job_id is not None and self._sweeps.may_tell(wait.job_id)

    def _begin(self, waits: list[Wait[Any]], looking: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        for wait in waits:
            wait.due = math.inf
        look = asyncio.get_running_loop().create_task(looking)
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        return look

    async def _sleep(self) -> None:
        """Sleep until the next wait is due, or somebody comes, goes or has been answered."""
        self._woken.clear()
        next_due = min(map(self._starts_at, self._waits), default=math.inf)
        seconds = None if next_due == math.inf else next_due - _now()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _sweep(self, waits: list[Wait[Any]], job_ids: set[str]) -> None:
        """Ask the lists for many jobs at once, and look at each that is due and that they do not tell of."""
        try:
            found = await self._sweeps.find(job_ids)
        except Exception:
            log.exception("A sweep of Planasonix's jobs broke")
            self._sweeps.avoid()
            found = {}
        finally:
            self._next_sweep = _now() + SWEEP_EVERY
            self._woken.set()
        told = [(wait, found[wait.job_id]) for wait in self._waits if wait.job_id and wait.job_id in found]
        for position in range(0, len(told), ANSWERED_AT_ONCE):
            for wait, job in told[position : position + ANSWERED_AT_ONCE]:
                self._answer([wait], job)
            await asyncio.sleep(0)
        if left := [wait for wait in waits if wait.job_id not in found]:
            await self._look_at_each(left, were_missing=True)

    async def _look_at_each(self, waits: list[Wait[Any]], *, were_missing: bool = False) -> None:
        """Look at each thing by itself, once however many wait for it."""
        by_request: dict[str, list[Wait[Any]]] = {}
        for wait in waits:
            by_request.setdefault(wait.request.key, []).append(wait)
        groups = list(by_request.values())
        first, others = groups[:MOST_IN_FLIGHT], groups[MOST_IN_FLIGHT:]
        looks = [self._begin(group, self._look(group, was_missing=were_missing)) for group in first]
        if others and (outage := await _outage_of_all(looks)):
            # Nobody else needs to see it for himself.
            for group in others:
                self._answer(group, outage)
            return
        for group in others:
            self._begin(group, self._look(group, was_missing=were_missing))

    async def _look(self, waits: list[Wait[Any]], *, was_missing: bool) -> Any:
        try:
            answer = await self.channel.ask(waits[0].request)
        except PlanasonixError as error:
            answer = error
        except Exception as bug:
            log.exception("A look at Planasonix broke")
            answer = _broken(bug)
        if isinstance(answer, Job) and not self._waits.isdisjoint(waits):
            self._sweeps.looked_at(answer, was_missing=was_missing)
        self._answer(waits, answer)
        return answer

    def _answer(self, waits: list[Wait[Any]], answer: Any) -> None:
        for wait in waits:
            wait.due = _now() + max(wait.interval, self.channel.silence)
            wait.answer(answer)
        self._woken.set()


async def _outage_of_all(looks: list[asyncio.Task[Any]]) -> PlanasonixError | None:
    """Say what all looks have failed with, if that passes, and if they know soon."""
    error = None
    with suppress(TimeoutError):
        for look in asyncio.as_completed(looks, timeout=LONGEST_DOUBT):
            answer = await look
            if not (isinstance(answer, PlanasonixError) and is_passing(answer)):
                return None
            error = answer
        return error
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()


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
