"""Cancels Planasonix work: a job by its own route; a backfill, which has none, by its jobs until it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.retry import is_passing
from planasonix_provider.waiting.channel import Send, for_each
from planasonix_provider.waiting.subjects import BackfillSubject, Subject, Work

#: For how many seconds jobs that appear meanwhile are cancelled, too, before a backfill is left to end by itself.
LONGEST_PURSUIT = 600.0
#: The seconds between two looks at a backfill whose jobs are being cancelled.
PURSUE_EVERY = 2.0
#: How many jobs are cancelled between two looks.
_AT_A_TIME = 25


async def cancel(
    send: Send,
    subject: Subject,
    job_ids: Sequence[str] = (),
    *,
    patience: float = LONGEST_PURSUIT,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Work:
    """Cancel a job, or all jobs of a backfill.

    :param send: sends a request, and again where that can help.
    :param subject: the job or backfill.
    :param job_ids: the jobs of the backfill that are known already; they are cancelled before anything is asked.
    :param patience: for how many seconds to go on while a backfill makes new jobs.
    :param sleep: waits for a number of seconds.
    :return: the job or backfill as it is then; a backfill is over, unless patience was.
    :raises PlanasonixError: if it could not be cancelled.
    """
    if isinstance(subject, BackfillSubject):
        return await _cancel_backfill(send, subject.id, job_ids, patience, sleep)
    job = await send(routes.cancel_job(subject.id))
    if job.is_over:
        # The answer to a cancel has only part of what the account of an ended job needs.
        job = await send(routes.get_job(subject.id))
    return job


async def _cancel_backfill(
    send: Send,
    backfill_id: str,
    job_ids: Sequence[str],
    patience: float,
    sleep: Callable[[float], Awaitable[None]],
) -> Backfill:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    pursuit = _Pursuit(send)
    await pursuit.cancel(job_ids)
    while True:
        backfill = await send(routes.get_backfill(backfill_id))
        if backfill.is_over:
            return backfill
        await pursuit.cancel(backfill.job_ids or job_ids)
        if loop.time() >= give_up:
            if pursuit.trouble:
                raise pursuit.trouble
            return backfill
        await sleep(min(PURSUE_EVERY, patience / 10))


class _Pursuit:
    """Cancels the jobs of one backfill, each once.

    :param send: sends a request, and again where that can help.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._asked: set[str] = set()
        self.trouble: PlanasonixError | None = None

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel those that were not asked yet, newest first, up to where all have ended by themselves.

        :param job_ids: the backfill's jobs, oldest first.
        :raises PlanasonixError: if the API refuses.
        """
        self.trouble = None
        left = [job_id for job_id in reversed(job_ids) if job_id not in self._asked]
        for position in range(0, len(left), _AT_A_TIME):
            jobs = await for_each(left[position : position + _AT_A_TIME], self._cancel_one)
            if not any(jobs):
                # An outage: to sit it out for each of thousands would take hours. The next round begins here.
                return
            # A backfill works through its jobs in turn: those before these have ended, too. If not, the next round
            # goes on from here, for the backfill is not over then.
            if all(job and job.status in ("succeeded", "failed") for job in jobs):
                return

    async def _cancel_one(self, job_id: str) -> Job | None:
        try:
            job = await self._send(routes.cancel_job(job_id))
        except PlanasonixError as error:
            if not is_passing(error):
                raise
            self.trouble = error
            return None
        self._asked.add(job_id)
        return job
