"""Cancels jobs by their own route, and backfills, which have none, by cancelling their jobs until the backfill is over.

A cancel is retried through an outage, within limits: work that is not cancelled runs on without an owner.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from tenacity import AsyncRetrying

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixPermissionError,
)
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import has_unknown_effect
from planasonix_provider.clock import loop_time
from planasonix_provider.waiting import outages
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.outages import Contact, OutageTracker, Verdict, outage_retry_options, pause_after
from planasonix_provider.waiting.shared_client import AsyncSend, for_each
from planasonix_provider.waiting.targets import BackfillTarget, WaitTarget, Work, WorkTarget

T = TypeVar("T")

#: For how many seconds a cancel is retried through an outage, and the new jobs of a backfill are cancelled. It is less
#: than the tolerated outage, which would end the retries as well.
CANCEL_TIMEOUT_SECONDS = 600.0
#: The seconds between two polls of a backfill whose jobs are being cancelled.
CANCEL_POLL_INTERVAL_SECONDS = 2.0
#: How many jobs are cancelled between two polls.
_BATCH_SIZE = 25
_KEY_REFUSALS = (PlanasonixAuthenticationError, PlanasonixPermissionError)


class Cancellation:
    """Cancels a job or a backfill for code that blocks, and during a wait also the jobs that the backfill creates.

    ``run`` calls a function with the ``send`` of a client, with priority, and blocks until it returns.
    """

    def __init__(self, target: WorkTarget, run: Callable[[Callable[[AsyncSend], Awaitable[Work]]], Work]) -> None:
        self.target = target
        self._run = run
        self._cancelled: set[str] = set()
        #: Whether the API has confirmed a cancel request.
        self.is_sent = False
        #: Whether the last request failed in a way that leaves open whether it arrived.
        self.is_in_doubt = False

    def cancel(
        self,
        job_ids: Sequence[str] = (),
        *,
        max_seconds: float = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        warn: Callable[[PlanasonixError], object] = lambda error: None,
    ) -> Work:
        """Cancel the job or, of the backfill, the jobs that were not cancelled yet; arguments as of :func:`cancel`."""
        action = partial(
            cancel,
            target=self.target,
            job_ids=job_ids,
            max_seconds=max_seconds,
            sleep=sleep,
            warn=warn,
            cancelled=self._cancelled,
        )
        self.is_in_doubt = True
        try:
            work = self._run(action)
        except PlanasonixError as error:
            self.is_in_doubt = has_unknown_effect(error)
            raise
        self.is_sent, self.is_in_doubt = True, False
        return work

    @property
    def has_effect(self) -> bool:
        """Whether anything was cancelled: a backfill that has created no jobs yet has nothing to cancel."""
        return self.is_sent and (not isinstance(self.target, BackfillTarget) or bool(self._cancelled))

    def poll(self, request: Request[Any], send: Callable[[Request[Any]], Any]) -> Any:
        """Send the request of a poll. If the backfill still runs, cancel the jobs that it has created since."""
        response = send(request)
        if isinstance(response, Backfill) and not response.is_over:
            return self.cancel(response.job_ids or ())
        return response

    def poll_interval(self, interval: float) -> float:
        """Return how often to poll, so that jobs of a backfill which start and end between two polls are not missed."""
        return min(interval, CANCEL_POLL_INTERVAL_SECONDS) if isinstance(self.target, BackfillTarget) else interval

    def raise_if_without_effect(self, work: Work, advice: str) -> None:
        """Raise an error with advice, if the cancel has done nothing; call this if it will not be repeated."""
        if not work.is_over and not self.has_effect:
            raise PlanasonixConflictError(
                f"{capitalize(self.target.name)} is {work.status} and has made no jobs yet, so there is nothing to "
                f"cancel. Try later, or {advice}"
            )

    def describe_effect(self, work: Work) -> str:
        """Return a sentence about what the cancel has done."""
        name = capitalize(self.target.name)
        if work.is_over:
            return f"{name} is over: it is {work.status}."
        if self.has_effect:
            return f"{name} was asked to cancel: it is {work.status}."
        return f"{name} is {work.status} and has made no jobs yet; they are cancelled as they come."


async def cancel(
    send: AsyncSend,
    target: WaitTarget,
    job_ids: Sequence[str] = (),
    *,
    max_seconds: float = CANCEL_TIMEOUT_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    warn: Callable[[PlanasonixError], object] = lambda error: None,
    cancelled: set[str] | None = None,
) -> Work:
    """Cancel a job, or all jobs of a backfill, and return the job or backfill as it is then.

    A backfill is over when this returns, unless ``max_seconds`` have passed. Until then this retries through an outage,
    and cancels the new jobs of a backfill. ``job_ids`` are known jobs of the backfill, and are cancelled first.
    ``cancelled`` are jobs that were cancelled by an earlier call; this call adds to them. ``warn`` gets the error of a
    failing cancel, at most once a minute.
    """
    sender = _RetryingSender(send, loop_time() + max_seconds, sleep, warn)
    if isinstance(target, BackfillTarget):
        canceller = _BackfillCanceller(sender, set() if cancelled is None else cancelled, max_seconds)
        return await canceller.cancel_until_over(target.id, job_ids)
    job = await sender.send(routes.cancel_job(target.id))
    if job.is_over:
        # The response to a cancel lacks fields that the report of a finished job needs.
        with suppress(PlanasonixError):
            job = await send(routes.get_job(target.id))
    return job


def through_outages(send: AsyncSend, max_seconds: float) -> AsyncSend:
    """Return a function that retries requests during an outage, for ``max_seconds`` from now.

    It does not retry after an error of the API itself.
    """
    return _RetryingSender(send, loop_time() + max_seconds, contact=Contact.API).send


@dataclass(frozen=True)
class _RetryingSender:
    """Repeats each request until it succeeds, or until ``give_up`` by the event loop's clock."""

    send_once: AsyncSend
    give_up: float
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    warn: Callable[[PlanasonixError], object] = lambda error: None
    contact: Contact = Contact.WORK

    async def send(self, request: Request[T]) -> T:
        """Send a request; return the parsed response, or raise a ``PlanasonixError``."""
        options = outage_retry_options(
            OutageTracker(contact=self.contact),
            pause=lambda error: self.pause_after(error, outages.RETRY_INTERVAL_SECONDS),
            warn=self.warn,
            now=_now,
        )
        retrying = AsyncRetrying(**options, stop=lambda state: self.is_over_in(state.upcoming_sleep), sleep=self.sleep)
        response: T = await retrying(self.send_once, request)
        return response

    def pause_after(self, error: PlanasonixError | None, interval: float) -> float:
        """Return the seconds until the next request. A long ``Retry-After`` still leaves time for one more."""
        left = self.give_up - loop_time()
        return max(interval, min(pause_after(error, interval), left - outages.RETRY_INTERVAL_SECONDS))

    def is_over_in(self, seconds: float) -> bool:
        """Return whether ``give_up`` is reached within some seconds."""
        return loop_time() + seconds >= self.give_up


class _BackfillCanceller:
    """Cancels the jobs of one backfill, each once, until the backfill is over."""

    def __init__(self, sender: _RetryingSender, cancelled: set[str], max_seconds: float) -> None:
        self._sender = sender
        self._cancelled = cancelled
        self._max_seconds = max_seconds
        # When to stop among thousands of jobs. With no time there is one complete round.
        self._give_up = sender.give_up if max_seconds else math.inf
        self._error: PlanasonixError | None = None
        self._outage = OutageTracker()

    async def cancel_until_over(self, backfill_id: str, job_ids: Sequence[str]) -> Backfill:
        """Return the backfill when it is over, or when the time is up."""
        await self._cancel_jobs(job_ids)
        while True:
            backfill = await self._sender.send(routes.get_backfill(backfill_id))
            if backfill.is_over:
                return backfill
            if known := backfill.job_ids or job_ids:
                active = await self._active_jobs(backfill) if len(known) > _BATCH_SIZE else ()
                await self._cancel_jobs(known, active)
            if self._sender.is_over_in(0):
                if self._error:
                    raise self._error
                return backfill
            if self._error and self._outage.is_news(_now()):
                self._sender.warn(self._error)
            is_refused = isinstance(self._error, _KEY_REFUSALS)
            interval = outages.RETRY_INTERVAL_SECONDS if is_refused else CANCEL_POLL_INTERVAL_SECONDS
            await self._sender.sleep(self._sender.pause_after(self._error, min(interval, self._max_seconds / 10)))

    async def _active_jobs(self, backfill: Backfill) -> set[str]:
        """Return jobs that have not ended, as far as lists show them: they find an old one among thousands."""
        active: set[str] = set()
        for request in BackfillTarget.lists_of_active_jobs(backfill):
            with suppress(PlanasonixError):
                page = await self._sender.send_once(request)
                active.update(job.id for job in page.data if not job.is_over)
        return active

    async def _cancel_jobs(self, job_ids: Sequence[str], active: Collection[str] = ()) -> None:
        """Cancel the jobs that were not cancelled yet: the active ones, then the others from new to old.

        ``job_ids`` are sorted from old to new. Raises an error that no retry can help.
        """
        self._error = None
        left = [job_id for job_id in reversed(job_ids) if job_id not in self._cancelled]
        left.sort(key=lambda job_id: job_id not in active)
        for position in range(0, len(left), _BATCH_SIZE):
            jobs = await for_each(left[position : position + _BATCH_SIZE], self._cancel_job)
            if loop_time() >= self._give_up:
                return
            if not any(jobs):
                # An outage. Retrying each of thousands of jobs would take hours, so the next round begins here.
                return
            # A backfill loads its jobs in turn, so the older ones have ended, too. If not, the backfill is not over
            # then, and the next round goes on from here.
            if all(job and job.status in ("succeeded", "failed") for job in jobs):
                return

    async def _cancel_job(self, job_id: str) -> Job | None:
        if isinstance(self._error, _KEY_REFUSALS):
            # The other requests would be refused, too.
            return None
        if self._error and loop_time() >= self._give_up:
            # A request that times out takes minutes, and callers wait for this to end.
            return None
        try:
            job = await self._sender.send_once(routes.cancel_job(job_id))
        except PlanasonixError as error:
            # Another refusal may concern this job alone: a new job is not visible everywhere yet. If a key is being
            # rotated, the next poll of the backfill shows that.
            is_forbidden = isinstance(error, PlanasonixPermissionError)
            if is_forbidden and self._outage.fail(error, _now()) is Verdict.REFUSED:
                raise
            self._error = error
            return None
        self._outage.succeed()
        self._cancelled.add(job_id)
        return job


def _now() -> datetime:
    # By the event loop's clock, of which only differences count.
    return datetime.fromtimestamp(loop_time(), UTC)
