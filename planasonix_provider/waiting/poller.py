"""One poll loop for all the waits of one process on one Airflow connection.

A wait registers what it wants to know and sleeps; the poller asks, over one client and with few requests in flight,
and hands each answer to the waits that it concerns.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.client_config import DEFAULT_CONNECT_TIMEOUT
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixLostTrackError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.bulk_poll import BulkPoll
from planasonix_provider.waiting.outages import is_outage
from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.waiting.shared_client import MOST_IN_FLIGHT, SharedClient, for_each

T = TypeVar("T")

log = logging.getLogger(__name__)

#: For how many seconds the first looks may keep the others waiting, to learn whether this is an outage: a little more
#: than it takes not to get a connection.
LONGEST_DOUBT = DEFAULT_CONNECT_TIMEOUT + 1
#: How many seconds there are between two sweeps at the least: so much later than its interval a wait may be looked at.
SWEEP_EVERY = 1.0
#: The same between two rounds, so that waits which begin one by one are looked at together.
ROUND_EVERY = 0.5
#: For how many seconds a page is waited for before the lists are taken for out of order.
LONGEST_PAGE = 5.0
#: Where intervals are short, so much of the shortest is between two rounds.
ROUND_SHARE = 0.1
# Errors that all waits of an Airflow connection share.
_OF_THE_CONNECTION = (PlanasonixAuthenticationError, PlanasonixConfigurationError)


class PollSubscription(Generic[T]):
    """One wait: what it asks, how often, and what has been answered.

    :param request: asks for the state of what is waited for.
    :param interval: the seconds between two looks.
    :param due: when to look first, by the event loop's clock.
    """

    def __init__(self, request: Request[T], interval: float, due: float) -> None:
        self.request = request
        #: The job, where it is one's state that is asked for.
        self.job_id = request.ids["job_id"] if request.path == routes.get_job("any").path else None
        #: What it has in common with waits for the same thing.
        self.name = self.job_id or request.key
        self.interval = interval
        self.due = due
        #: When it was answered last.
        self.answered_at = due
        self._answer: T | PlanasonixError | None = None
        self._status: str | None = None
        self._woken: asyncio.Future[None] | None = None

    def answer(self, answer: T | PlanasonixError) -> None:
        """Hand over what a look has brought.

        :param answer: what was asked for, or why it could not be had.
        """
        status = answer.status if isinstance(answer, Job) else None
        is_news = status is None or status != self._status
        # Whoever is slower than the looks gets the newest, and not all that it has missed.
        self._answer, self._status, self.answered_at = answer, status, _now()
        if is_news:
            self._wake()

    async def next(self, seconds: float) -> T | PlanasonixError | None:
        """Sleep until a look brings something new: a job that is in the same state still wakes nobody.

        :param seconds: for how long to sleep at the most.
        :return: what the last look brought, or ``None`` if there was none in that time.
        """
        if self._answer is None:
            # A queue and a timeout would do the same, in three kilobytes a wait.
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await self._woken
            finally:
                timer.cancel()
        answer, self._answer = self._answer, None
        return answer

    @property
    def age(self) -> float:
        """How many seconds ago the last answer came."""
        return _now() - self.answered_at

    def _wake(self) -> None:
        if self._woken and not self._woken.done():
            self._woken.set_result(None)


class Poller:
    """Asks for all waits of one Airflow connection. It runs while somebody waits, and closes its clients then.

    :param connect: reads the Airflow connection and makes a client; called again when that may have changed.
    """

    def __init__(self, connect: Callable[[], Awaitable[AsyncClient]]) -> None:
        self.client = SharedClient(connect)
        self._sweeps = BulkPoll(partial(self.client.send, retry=False, within=LONGEST_PAGE), _now)
        self._next_sweep = 0.0
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._waits: set[PollSubscription[Any]] = set()
        self._named: defaultdict[str, set[PollSubscription[Any]]] = defaultdict(set)
        self._woken = asyncio.Event()
        self._next_round = 0.0
        self._wakes_at = math.inf

    @asynccontextmanager
    async def wait(
        self, request: Request[T], interval: float, delay: float = 0.0
    ) -> AsyncIterator[PollSubscription[T]]:
        """Register a wait for as long as the block lasts.

        :param request: asks for the state of what is waited for; waits for the same thing share its answers.
        :param interval: the seconds between two looks.
        :param delay: the seconds until the first look; default none.
        :return: the wait, to be asked for its next answer.
        """
        loop = asyncio.get_running_loop()
        wait = PollSubscription(request, interval, due=loop.time() + delay)
        self._waits.add(wait)
        self._named[wait.name].add(wait)
        self._wake_for(wait)
        if self._task is None:
            # A context of its own, for a task inherits the context of whoever made it, and with it the log of the
            # trigger that happened to come first.
            self._task = loop.create_task(self._run(), context=contextvars.Context())
        try:
            yield wait
        finally:
            self._waits.discard(wait)
            self._named[wait.name].discard(wait)
            if not self._named[wait.name]:
                del self._named[wait.name]
                self._sweeps.forget(wait.name)
            if not self._waits:
                self._woken.set()

    async def _run(self) -> None:
        try:
            while self._waits:
                self._start_looks()
                await self._sleep()
        except Exception as bug:
            log.exception("The looks at Planasonix broke. Please report this.")
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
            await self.client.close()

    def _start_looks(self) -> None:
        """Ask for all that is due, in the way that takes the fewest requests."""
        now = _now()
        due = [wait for wait in self._waits if self._starts_at(wait) <= now]
        listed: set[str] = set()
        if any(map(self._may_be_swept, due)):
            # What is due soon may come along: then all of them are due together the next time.
            soon = (wait for wait in self._waits if wait.due <= now + wait.interval / 2)
            listed = self._sweeps.select(wait.job_id for wait in soon if wait.job_id)
        if swept := [wait for wait in due if wait.job_id in listed]:
            self._next_sweep = math.inf
            self._begin(self._sweep(swept, listed))
        if each := [wait for wait in due if wait.job_id not in listed]:
            self._begin(self._look_at_each(each))
        for wait in due:
            wait.due = math.inf

    def _starts_at(self, wait: PollSubscription[Any]) -> float:
        """Say when a wait is looked at: what comes amid a sweep, or right after one, waits for the next."""
        return self._next_sweep if wait.due < self._next_sweep and self._may_be_swept(wait) else wait.due

    def _may_be_swept(self, wait: PollSubscription[Any]) -> bool:
        return wait.job_id is not None and self._sweeps.is_listable(wait.job_id)

    def _begin(self, looking: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        look = asyncio.get_running_loop().create_task(looking)
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        return look

    async def _sleep(self) -> None:
        """Sleep until the next round, and until a wait is due; no longer than somebody waits."""
        pause = min(ROUND_EVERY, ROUND_SHARE * min((wait.interval for wait in self._waits), default=0.0))
        self._next_round = _now() + pause
        while self._waits:
            self._wakes_at = max(self._next_round, min(map(self._starts_at, self._waits)))
            if (seconds := self._wakes_at - _now()) <= 0:
                return
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await self._woken.wait()

    def _wake_for(self, wait: PollSubscription[Any]) -> None:
        """Let the sleep end in time for a wait; going through all of them each time would cost most."""
        if max(self._starts_at(wait), self._next_round) < self._wakes_at:
            self._woken.set()

    async def _sweep(self, waits: list[PollSubscription[Any]], job_ids: set[str]) -> None:
        """Ask the lists for many jobs at once, and look at each that is due and that they do not tell of."""
        began = _now()
        told: set[str] = set()
        try:
            async with aclosing(self._sweeps.find(job_ids)) as pages:
                async for jobs in pages:
                    for job in jobs:
                        self._answer(job.id, job, asked_at=began)
                    told.update(job.id for job in jobs)
                    # Each that is woken goes on, and writes a log, before the next page.
                    await asyncio.sleep(0)
        except Exception as bug:
            log.exception("A look at all jobs in Planasonix broke, going on with each by itself. Please report this.")
            self._sweeps.back_off(bug)
        finally:
            self._next_sweep = _now() + SWEEP_EVERY
            self._woken.set()
        # Some may have gone meanwhile.
        self._sweeps.forget_all_but(self._named)
        left = [wait for wait in waits if wait.job_id not in told]
        if self._sweeps.has_stumbled:
            for wait in left:
                wait.due = _now() + max(SWEEP_EVERY, self.client.retry_after_remaining)
        else:
            await self._look_at_each(left, were_missing=True)

    async def _look_at_each(self, waits: list[PollSubscription[Any]], *, were_missing: bool = False) -> None:
        """Look at each thing by itself, once however many wait for it."""
        requests = {wait.name: wait.request for wait in waits}
        names = list(requests)
        # Whoever comes first learns for the others what is wrong: it is not to be the same each time.
        random.shuffle(names)
        first, others = names[:MOST_IN_FLIGHT], names[MOST_IN_FLIGHT:]
        looks = [self._begin(self._look(name, requests[name], was_missing=were_missing)) for name in first]
        if others and (outage := await _outage_of_all(looks)):
            # Nobody else needs to see it for himself.
            for name in others:
                self._answer(name, outage)
            return
        # One after the other, so that what nobody waits for any more is left out.
        await for_each(others, lambda name: self._look(name, requests[name], was_missing=were_missing))

    async def _look(self, name: str, request: Request[Any], *, was_missing: bool) -> Any:
        if name not in self._named:
            return None
        try:
            answer = await self.client.send(request, retry=False)
        except PlanasonixError as error:
            answer = error
        except Exception as bug:
            log.exception("A look at Planasonix broke. Please report this.")
            answer = _broken(bug)
        if isinstance(answer, Job) and name in self._named:
            self._sweeps.record_poll(name, answer, was_missing=was_missing)
        self._answer(name, answer)
        return answer

    def _answer(self, name: str, answer: Any, asked_at: float | None = None) -> None:
        """Answer all who wait for a thing; their intervals count from when it was asked for, by default from now."""
        now = _now()
        since = now if asked_at is None else asked_at
        for wait in self._named.get(name, ()):
            wait.due = max(since + wait.interval, now + self.client.retry_after_remaining)
            wait.answer(answer)
            self._wake_for(wait)


async def _outage_of_all(looks: list[asyncio.Task[Any]]) -> PlanasonixError | None:
    """Return what all requests have failed with, if it says nothing about a single job, and if they know soon."""
    error = None
    with suppress(TimeoutError):
        for look in asyncio.as_completed(looks, timeout=LONGEST_DOUBT):
            answer = await look
            if not (isinstance(answer, _OF_THE_CONNECTION) or is_outage(answer)):
                return None
            error = answer
        return error
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _broken(bug: Exception) -> PlanasonixError:
    """Tell a wait that what it relies on has died: it may fail, but it may not hang."""
    return PlanasonixLostTrackError(f"The looks at Planasonix broke ({type(bug).__name__}: {bug}). Please report this.")


#: The pollers, by Airflow connection.
POLLERS: PerLoop[Poller] = PerLoop()
