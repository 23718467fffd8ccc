"""Cancels Planasonix work: a job by its own route; a backfill, which has none, by its jobs until it is over.

An outage is sat out, within limits: work that nobody cancels runs on unowned.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixPermissionError,
)
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.outages import LOG_OUTAGE_EVERY, Contact, OutageTracker, Verdict
from planasonix_provider.waiting.shared_client import AsyncSend, for_each
from planasonix_provider.waiting.targets import BackfillTarget, WaitTarget, Work
from planasonix_provider.waiting.wait_state import pause_after

T = TypeVar("T")

#: For how many seconds an outage is sat out, and jobs that appear meanwhile are cancelled, too, before a backfill is
#: left to end by itself.
CANCEL_TIMEOUT = 600.0
#: The seconds between two tries while the API cannot be reached; whoever has less patience than that tries no more.
RETRY_INTERVAL = 10.0
#: The seconds between two looks at a backfill whose jobs are being cancelled.
CANCEL_POLL_INTERVAL = 2.0
#: How many jobs are cancelled between two looks.
_AT_A_TIME = 25
_REFUSALS_OF_THE_KEY = (PlanasonixAuthenticationError, PlanasonixPermissionError)


async def cancel(
    send: AsyncSend,
    subject: WaitTarget,
    job_ids: Sequence[str] = (),
    *,
    patience: float = CANCEL_TIMEOUT,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    warn: Callable[[PlanasonixError], object] = lambda error: None,
    asked: set[str] | None = None,
) -> Work:
    """Cancel a job, or all jobs of a backfill.

    :param send: sends a request, and again where that can help.
    :param subject: the job or backfill.
    :param job_ids: the jobs of the backfill that are known already; they are cancelled before anything is asked.
    :param patience: for how many seconds to go on through an outage, and while a backfill makes new jobs.
    :param sleep: waits for a number of seconds.
    :param warn: is told what is in the way while the cancel is repeated, at most once a minute.
    :param asked: the jobs of a backfill that have been cancelled already, for whoever calls this again; gets more.
    :return: the job or backfill as it is then; a backfill is over, unless patience was.
    :raises PlanasonixError: if it could not be cancelled.
    """
    stubborn = _RetryingSender(send, asyncio.get_running_loop().time() + patience, sleep, warn)
    if isinstance(subject, BackfillTarget):
        pursuit = _BackfillCanceller(send, set() if asked is None else asked)
        return await _cancel_backfill(stubborn, subject.id, job_ids, pursuit, patience)
    job = await stubborn.send(routes.cancel_job(subject.id))
    if job.is_over:
        # The answer to a cancel has only part of what the account of an ended job needs.
        with suppress(PlanasonixError):
            job = await send(routes.get_job(subject.id))
    return job


def through_outages(send: AsyncSend, patience: float) -> AsyncSend:
    """Return a function that sends a request again for as long as an outage lasts, but not after a refusal by the API.

    :param send: sends a request once.
    :param patience: for how many seconds from now to send requests again.
    """
    stubborn = _RetryingSender(send, asyncio.get_running_loop().time() + patience, contact=Contact.API)
    return stubborn.send


@dataclass(frozen=True)
class _RetryingSender:
    """Asks again until there is an answer, or until patience ends.

    :param ask: sends a request, and again where that can help.
    :param give_up: when patience ends, by the event loop's clock.
    :param sleep: waits for a number of seconds.
    :param warn: is told what is in the way.
    :param contact: the best response so far, which decides what an error means.
    """

    ask: AsyncSend
    give_up: float
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    warn: Callable[[PlanasonixError], object] = lambda error: None
    contact: Contact = Contact.WORK

    async def send(self, request: Request[T]) -> T:
        """Send a request.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        outage = OutageTracker(contact=self.contact)
        while True:
            try:
                return await self.ask(request)
            except PlanasonixError as error:
                trouble = error
            pause = self.pause_after(trouble, RETRY_INTERVAL)
            # How long an outage lasts is bounded by this call's own patience.
            if outage.fail(trouble, _now()) is Verdict.REFUSED or self.is_over_in(pause):
                raise trouble
            if outage.is_news(_now()):
                self.warn(trouble)
            await self.sleep(pause)

    def pause_after(self, trouble: PlanasonixError | None, interval: float) -> float:
        """Say how long to wait until the next try: so that there is one before patience ends, whatever was asked for.

        :param trouble: what the last one has met.
        :param interval: the seconds between two tries.
        :return: the seconds.
        """
        left = self.give_up - asyncio.get_running_loop().time()
        return max(interval, min(pause_after(trouble, interval), left - RETRY_INTERVAL))

    def is_over_in(self, seconds: float) -> bool:
        """Say whether patience ends before some time has passed."""
        return asyncio.get_running_loop().time() + seconds >= self.give_up


async def _cancel_backfill(
    stubborn: _RetryingSender, backfill_id: str, job_ids: Sequence[str], pursuit: _BackfillCanceller, patience: float
) -> Backfill:
    # Without patience it is one round, and a whole one.
    pursuit.give_up = stubborn.give_up if patience else math.inf
    await pursuit.cancel(job_ids)
    while True:
        backfill = await stubborn.send(routes.get_backfill(backfill_id))
        if backfill.is_over:
            return backfill
        if known := backfill.job_ids or job_ids:
            active = await _listed_as_active(stubborn.ask, backfill) if len(known) > _AT_A_TIME else ()
            await pursuit.cancel(known, active)
        if stubborn.is_over_in(0):
            if pursuit.trouble:
                raise pursuit.trouble
            return backfill
        if pursuit.trouble and pursuit.is_news():
            stubborn.warn(pursuit.trouble)
        interval = RETRY_INTERVAL if isinstance(pursuit.trouble, _REFUSALS_OF_THE_KEY) else CANCEL_POLL_INTERVAL
        await stubborn.sleep(stubborn.pause_after(pursuit.trouble, min(interval, patience / 10)))


async def _listed_as_active(send: AsyncSend, backfill: Backfill) -> set[str]:
    """Ask which jobs have not ended: a hint that finds an old one among thousands."""
    active: set[str] = set()
    for request in BackfillTarget.lists_of_active_jobs(backfill):
        with suppress(PlanasonixError):
            active.update(job.id for job in (await send(request)).data if not job.is_over)
    return active


class _BackfillCanceller:
    """Cancels the jobs of one backfill, each once.

    :param send: sends a request, and again where that can help.
    :param asked: the jobs that have been cancelled already.
    """

    def __init__(self, send: AsyncSend, asked: set[str]) -> None:
        self._send = send
        self._asked = asked
        self.trouble: PlanasonixError | None = None
        #: When to stop amid thousands of jobs, by the event loop's clock; the first few are always asked.
        self.give_up = math.inf
        self._next_word = -math.inf
        self._refusals = OutageTracker()

    def is_news(self) -> bool:
        """Say whether it is time for a word of what is in the way; between two looks there are only seconds."""
        now = asyncio.get_running_loop().time()
        if now < self._next_word:
            return False
        self._next_word = now + LOG_OUTAGE_EVERY.total_seconds()
        return True

    async def cancel(self, job_ids: Sequence[str], active: Collection[str] = ()) -> None:
        """Cancel those that were not asked yet, newest first, up to where all have ended by themselves.

        :param job_ids: the backfill's jobs, oldest first.
        :param active: those that are cancelled before the others.
        :raises PlanasonixError: if the API refuses.
        """
        self.trouble = None
        left = [job_id for job_id in reversed(job_ids) if job_id not in self._asked]
        left.sort(key=lambda job_id: job_id not in active)
        for position in range(0, len(left), _AT_A_TIME):
            jobs = await for_each(left[position : position + _AT_A_TIME], self._cancel_one)
            if asyncio.get_running_loop().time() >= self.give_up:
                return
            if not any(jobs):
                # An outage: to sit it out for each of thousands would take hours. The next round begins here.
                return
            # A backfill works through its jobs in turn: those before these have ended, too. If not, the next round
            # goes on from here, for the backfill is not over then.
            if all(job and job.status in ("succeeded", "failed") for job in jobs):
                return

    async def _cancel_one(self, job_id: str) -> Job | None:
        if isinstance(self.trouble, _REFUSALS_OF_THE_KEY):
            # The key is refused for the others, too.
            return None
        if self.trouble and asyncio.get_running_loop().time() >= self.give_up:
            # Silence: a try takes minutes, and others wait until this ends.
            return None
        try:
            job = await self._send(routes.cancel_job(job_id))
        except PlanasonixError as error:
            # Another refusal may be about this job alone: one that was made this moment is not seen everywhere yet. A
            # key may be being rotated: the look at the backfill, which comes next, tells.
            if isinstance(error, PlanasonixPermissionError) and self._refusals.fail(error, _now()) is Verdict.REFUSED:
                raise
            self.trouble = error
            return None
        self._refusals.succeed()
        self._asked.add(job_id)
        return job


def _now() -> datetime:
    # By the event loop's clock, of which only differences count.
    return datetime.fromtimestamp(asyncio.get_running_loop().time(), UTC)
