"""One poll loop for all waits of a process on one Airflow connection.

A wait subscribes and sleeps. The poller sends the requests over one client, with few in flight, and passes each
response to the subscriptions for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

from planasonix_provider import metrics
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
from planasonix_provider.clock import loop_time
from planasonix_provider.waiting.bulk_poll import BulkPoll
from planasonix_provider.waiting.outages import is_outage
from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.waiting.shared_client import MAX_IN_FLIGHT, SharedClient, for_each

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How many seconds the first requests may delay the others, to find out whether there is an outage: slightly more than
#: a connect timeout.
OUTAGE_CHECK_SECONDS = DEFAULT_CONNECT_TIMEOUT + 1
#: The minimum seconds between two bulk polls. A wait may be polled this much later than its interval.
BULK_POLL_INTERVAL_SECONDS = 1.0
#: The same between two rounds, so that waits which begin one by one are polled together.
ROUND_INTERVAL_SECONDS = 0.5
#: If a page takes longer, the lists count as broken.
PAGE_TIMEOUT_SECONDS = 5.0
#: With short intervals, this part of the shortest one is between two rounds.
ROUND_SHARE = 0.1
#: Tells the gauges of several triggerers apart.
HOSTNAME = socket.gethostname()
# Errors that concern all waits of an Airflow connection.
_CONNECTION_ERRORS = (PlanasonixAuthenticationError, PlanasonixConfigurationError)


class PollSubscription(Generic[T]):
    """One wait at the poller: its request, its interval, and the last response. ``due`` is when to poll first."""

    def __init__(self, request: Request[T], interval: float, due: float) -> None:
        self.request = request
        #: The job, if this is a request for one.
        self.job_id = request.ids["job_id"] if request.path == routes.get_job("any").path else None
        #: Equal for all waits for the same thing.
        self.name = self.job_id or request.key
        self.interval = interval
        self.due = due
        #: When the last response came.
        self.answered_at = due
        self._answer: T | PlanasonixError | None = None
        self._status: str | None = None
        self._notified: asyncio.Future[None] | None = None

    def answer(self, answer: T | PlanasonixError) -> None:
        """Pass on a response or an error. A job in the same state as before does not wake the wait."""
        status = answer.status if isinstance(answer, Job) else None
        is_new = status is None or status != self._status
        # A wait that is slower than the polls gets only the newest response.
        self._answer, self._status, self.answered_at = answer, status, loop_time()
        if is_new:
            self._notify()

    async def next(self, seconds: float) -> T | PlanasonixError | None:
        """Return the next new response, or ``None`` after some seconds."""
        if self._answer is None:
            # A queue and a timeout would do the same, but take three kilobytes per wait.
            loop = asyncio.get_running_loop()
            self._notified = loop.create_future()
            timer = loop.call_later(seconds, self._notify)
            try:
                await self._notified
            finally:
                timer.cancel()
        answer, self._answer = self._answer, None
        return answer

    @property
    def age(self) -> float:
        """The seconds since the last response."""
        return loop_time() - self.answered_at

    def _notify(self) -> None:
        if self._notified and not self._notified.done():
            self._notified.set_result(None)


class Poller:
    """Polls for all waits of one Airflow connection. It runs while there are waits, and then closes its clients.

    :param conn_id: the id of the Airflow connection, for metrics.
    """

    def __init__(self, connect: Callable[[], Awaitable[AsyncClient]], conn_id: str | None = None) -> None:
        self._conn_id = conn_id
        self.client = SharedClient(connect)
        self._bulk_poll = BulkPoll(partial(self.client.send, retry=False, within=PAGE_TIMEOUT_SECONDS))
        self._next_bulk_poll = 0.0
        self._task: asyncio.Task[None] | None = None
        self._polls: set[asyncio.Task[None]] = set()
        self._waits: set[PollSubscription[Any]] = set()
        self._named: defaultdict[str, set[PollSubscription[Any]]] = defaultdict(set)
        self._end_of_sleep = asyncio.Event()
        self._next_round = 0.0
        self._sleeps_until = math.inf

    @asynccontextmanager
    async def wait(
        self, request: Request[T], interval: float, delay: float = 0.0
    ) -> AsyncIterator[PollSubscription[T]]:
        """Subscribe for as long as the block lasts; the first poll comes after ``delay`` seconds."""
        wait = PollSubscription(request, interval, due=loop_time() + delay)
        self._waits.add(wait)
        self._named[wait.name].add(wait)
        self._end_sleep_for(wait)
        if self._task is None:
            # In its own context: a task inherits the context of its creator, and so the log of the trigger that
            # happened to come first.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            yield wait
        finally:
            self._waits.discard(wait)
            self._named[wait.name].discard(wait)
            if not self._named[wait.name]:
                del self._named[wait.name]
                self._bulk_poll.forget(wait.name)
            if not self._waits:
                self._end_of_sleep.set()

    async def _run(self) -> None:
        try:
            while self._waits:
                self._count_waits()
                self._start_polls()
                await self._sleep()
        except Exception as bug:
            log.exception("The polls of Planasonix broke. Please report this.")
            for wait in self._waits:
                wait.answer(_poller_error(bug))
        finally:
            # Do not await between here and the reset: a wait that subscribes now must find either a loop that will see
            # it, or none at all.
            polls, self._polls = self._polls, set()
            self._task = None
            self._next_bulk_poll = 0.0
            self._count_waits()
            for poll in polls:
                poll.cancel()
            await self.client.close()

    def _count_waits(self) -> None:
        # At each round, because servers of StatsD forget a gauge that is not set for some minutes.
        metrics.WAITS_DEFERRED.set(len(self._waits), {"conn_id": self._conn_id, "hostname": HOSTNAME})

    def _record_poll(self, began: float, method: str) -> None:
        metrics.POLL_DURATION.record(loop_time() - began, {"conn_id": self._conn_id, "method": method})

    def _start_polls(self) -> None:
        """Poll everything that is due, in the way that takes the fewest requests."""
        now = loop_time()
        due = [wait for wait in self._waits if self._starts_at(wait) <= now]
        listed: set[str] = set()
        if any(map(self._is_listable, due)):
            # Waits that are due soon join: then all of them are due together the next time.
            soon = (wait for wait in self._waits if wait.due <= now + wait.interval / 2)
            listed = self._bulk_poll.select(wait.job_id for wait in soon if wait.job_id)
        if in_lists := [wait for wait in due if wait.job_id in listed]:
            self._next_bulk_poll = math.inf
            self._start(self._poll_lists(in_lists, listed))
        if others := [wait for wait in due if wait.job_id not in listed]:
            self._start(self._poll_each(others))
        for wait in due:
            wait.due = math.inf

    def _starts_at(self, wait: PollSubscription[Any]) -> float:
        """Return when to poll a wait: during a bulk poll, or right after one, it waits for the next."""
        return self._next_bulk_poll if wait.due < self._next_bulk_poll and self._is_listable(wait) else wait.due

    def _is_listable(self, wait: PollSubscription[Any]) -> bool:
        return wait.job_id is not None and self._bulk_poll.is_listable(wait.job_id)

    def _start(self, poll: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(poll)
        self._polls.add(task)
        task.add_done_callback(self._polls.discard)
        return task

    async def _sleep(self) -> None:
        """Sleep until the next round and until a wait is due, or until there are no waits."""
        pause = min(ROUND_INTERVAL_SECONDS, ROUND_SHARE * min((wait.interval for wait in self._waits), default=0.0))
        self._next_round = loop_time() + pause
        while self._waits:
            self._sleeps_until = max(self._next_round, min(map(self._starts_at, self._waits)))
            if (seconds := self._sleeps_until - loop_time()) <= 0:
                return
            self._end_of_sleep.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await self._end_of_sleep.wait()

    def _end_sleep_for(self, wait: PollSubscription[Any]) -> None:
        """End the sleep in time for a wait. Checking all waits each time would be the largest cost."""
        if max(self._starts_at(wait), self._next_round) < self._sleeps_until:
            self._end_of_sleep.set()

    async def _poll_lists(self, waits: list[PollSubscription[Any]], job_ids: set[str]) -> None:
        """Poll many jobs by lists, then each job that is due and was not in them."""
        began = loop_time()
        found: set[str] = set()
        try:
            async with aclosing(self._bulk_poll.find(job_ids)) as pages:
                async for jobs in pages:
                    for job in jobs:
                        self._answer(job.id, job, asked_at=began)
                    found.update(job.id for job in jobs)
                    # Let the notified waits run, and write their logs, before the next page.
                    await asyncio.sleep(0)
        except Exception as bug:
            log.exception("The poll of all jobs in Planasonix broke, going on with each by itself. Please report this.")
            self._bulk_poll.back_off(bug)
        finally:
            self._record_poll(began, "lists")
            self._next_bulk_poll = loop_time() + BULK_POLL_INTERVAL_SECONDS
            self._end_of_sleep.set()
        # Some waits may have ended meanwhile.
        self._bulk_poll.forget_all_but(self._named)
        left = [wait for wait in waits if wait.job_id not in found]
        if self._bulk_poll.should_retry:
            for wait in left:
                wait.due = loop_time() + max(BULK_POLL_INTERVAL_SECONDS, self.client.retry_after_remaining)
        else:
            await self._poll_each(left, were_missing=True)

    async def _poll_each(self, waits: list[PollSubscription[Any]], *, were_missing: bool = False) -> None:
        """Poll each thing by itself, once for all its waits."""
        if not waits:
            return
        began = loop_time()
        requests = {wait.name: wait.request for wait in waits}
        names = list(requests)
        # The first ones detect an outage for the others. They should not be the same each time.
        random.shuffle(names)
        first, others = names[:MAX_IN_FLIGHT], names[MAX_IN_FLIGHT:]
        polls = [self._start(self._poll(name, requests[name], was_missing=were_missing)) for name in first]
        if others and (outage := await _outage_of_all(polls)):
            for name in others:
                self._answer(name, outage)
            return
        # One after the other, so that those without waits by then are skipped.
        await for_each(others, lambda name: self._poll(name, requests[name], was_missing=were_missing))
        await asyncio.gather(*polls)
        self._record_poll(began, "each")

    async def _poll(self, name: str, request: Request[Any], *, was_missing: bool) -> Any:
        if name not in self._named:
            return None
        try:
            answer = await self.client.send(request, retry=False)
        except PlanasonixError as error:
            answer = error
        except Exception as bug:
            log.exception("A poll of Planasonix broke. Please report this.")
            answer = _poller_error(bug)
        if isinstance(answer, Job) and name in self._named:
            self._bulk_poll.record_poll(name, answer, was_missing=was_missing)
        self._answer(name, answer)
        return answer

    def _answer(self, name: str, answer: Any, asked_at: float | None = None) -> None:
        """Pass a response to all waits for a thing; their intervals count from the request, by default from now."""
        now = loop_time()
        since = now if asked_at is None else asked_at
        for wait in self._named.get(name, ()):
            wait.due = max(since + wait.interval, now + self.client.retry_after_remaining)
            wait.answer(answer)
            self._end_sleep_for(wait)


async def _outage_of_all(polls: list[asyncio.Task[Any]]) -> PlanasonixError | None:
    """Return the error of all requests, if they fail soon and it says nothing about a single job."""
    error = None
    with suppress(TimeoutError):
        for poll in asyncio.as_completed(polls, timeout=OUTAGE_CHECK_SECONDS):
            answer = await poll
            if not (isinstance(answer, _CONNECTION_ERRORS) or is_outage(answer)):
                return None
            error = answer
        return error
    return None


def _poller_error(bug: Exception) -> PlanasonixError:
    """Return the error for a wait whose poller has died: the wait may fail, but must not hang."""
    return PlanasonixLostTrackError(f"The polls of Planasonix broke ({type(bug).__name__}: {bug}). Please report this.")


#: The pollers, by Airflow connection.
POLLERS: PerLoop[Poller] = PerLoop()
