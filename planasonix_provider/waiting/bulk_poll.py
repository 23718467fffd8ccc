"""Finds out about many jobs at once, from the lists: a request for a hundred in place of one for each."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixError, PlanasonixRateLimitError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.waiting.outages import is_outage
from planasonix_provider.waiting.shared_client import AsyncSend

#: For fewer jobs than this, the lists are not worth their requests.
MIN_BATCH = 5
#: The states whose lists are asked for. Most jobs run, and most that end succeed.
ACTIVE_STATES = ("running", "queued")
ENDED = ("succeeded", "failed", "cancelled")
#: For how many seconds at most the lists are left alone after they were refused, and a job after they did not name it.
MAX_BACKOFF = 300.0
#: The same at first, and where the reason is one that passes.
AVOIDED_AT_FIRST = 15.0
#: So many times as many jobs make another try of lists that were asked in vain.
GROWTH_FACTOR = 4
#: Of the requests that looks would take, such a part may be spent on pages that tell nothing.
MAX_WASTE = 0.25
#: For how many seconds a job is known from the lists alone: they may be wrong about one for ever.
RECHECK_AFTER = 480.0
#: Where there are many jobs, it is longer: on average, looks at jobs that the lists tell of are so many seconds apart.
MIN_RECHECK_SPACING = 1.0


@dataclass
class _JobInfo:
    """What is known of a job that somebody waits for.

    :param created_at: when it was created.
    :param trusted_until: until when the lists are believed about it.
    :param unlisted_until: until when the lists are not asked about it, since they did not name it.
    :param unlisted_for: how long that is, in seconds.
    """

    created_at: datetime | None
    trusted_until: float
    unlisted_until: float = 0.0
    unlisted_for: float = 0.0


class BulkPoll:
    """Sweeps the lists for whole groups of jobs, and knows from one sweep to the next what they are worth.

    A list is a hint for what still runs, and a verdict for what it says is over. What it does not tell is for a look at
    the job itself.

    :param ask: sends a request once.
    :param clock: tells the seconds that have passed; only its differences count.
    :param draw: draws a number from the range of its two arguments.
    """

    def __init__(
        self, ask: AsyncSend, clock: Callable[[], float], draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._draw = draw
        self._avoided_until = 0.0
        self._failures = 0
        #: Whether the last sweep has met what passes, and the next one is to make it good, in place of looks.
        self.has_stumbled = False
        # After lists were asked in vain for a number of jobs, it takes many more to ask them: for longer each time.
        self._vain_until = 0.0
        self._vain_for = 0.0
        self._vain_number = 0
        self._known: dict[str, _JobInfo] = {}

    def is_listable(self, job_id: str) -> bool:
        """Say whether the lists are to be asked about a job.

        :param job_id: the job.
        :return: whether they can be had, have told of it before or may do so now, and are still to be believed.
        """
        now, known = self._clock(), self._known.get(job_id)
        if now < self._avoided_until:
            return False
        return known is None or known.unlisted_until <= now < known.trusted_until

    def select(self, job_ids: Iterable[str]) -> set[str]:
        """Choose what to ask the lists for.

        :param job_ids: jobs that are to be looked at.
        :return: those that the lists may tell of; none if they are too few.
        """
        chosen = {job_id for job_id in job_ids if self.is_listable(job_id)}
        fewest = GROWTH_FACTOR * self._vain_number if self._clock() < self._vain_until else MIN_BATCH
        return chosen if len(chosen) >= fewest else set()

    def record_poll(self, job_id: str, job: Job, *, was_missing: bool) -> None:
        """Learn what a look at a job itself has brought.

        :param job_id: the job.
        :param job: what the look has brought.
        :param was_missing: whether the lists have just been asked for it, and did not tell.
        """
        now, before = self._clock(), self._known.get(job_id)
        known = self._known[job_id] = _JobInfo(job.created_at, self._trusted_until())
        if was_missing and now >= self._avoided_until:
            known.unlisted_for = min(2 * before.unlisted_for if before else 0.0, MAX_BACKOFF) or AVOIDED_AT_FIRST
            known.unlisted_until = now + known.unlisted_for
        elif before:
            known.unlisted_for, known.unlisted_until = before.unlisted_for, before.unlisted_until

    def forget(self, job_id: str) -> None:
        """Forget a job that nobody waits for; whoever does so again learns it anew.

        :param job_id: the job.
        """
        self._known.pop(job_id, None)

    def forget_all_but(self, job_ids: Collection[str]) -> None:
        """Forget all jobs but some.

        :param job_ids: the jobs to keep.
        """
        for job_id in self._known.keys() - job_ids:
            del self._known[job_id]

    async def find(self, job_ids: Iterable[str]) -> AsyncGenerator[list[Job]]:
        """Ask the lists, for as long as that spares requests.

        :param job_ids: the jobs to find.
        :return: what the lists tell of them, page by page.
        """
        missing = set(job_ids)
        number, asked, vain = len(missing), 0, 0
        try:
            for lists in (ACTIVE_STATES, ENDED):
                for status in lists:
                    if len(missing) <= len(lists):
                        # What is left may be in any of the lists, and each costs a request at the least.
                        break
                    cursors = Paginator(self._list(status, missing))
                    while True:
                        page: Page[Job] = await self._ask(cursors.request)
                        asked += 1
                        told = [job for job in page.data if job.id in missing]
                        missing.difference_update(job.id for job in told)
                        for job in told:
                            self._known.setdefault(job.id, _JobInfo(job.created_at, self._trusted_until()))
                        if told:
                            yield told
                        is_vain = len(told) < 2
                        vain += is_vain
                        is_too_vain = is_vain and vain > MAX_WASTE * len(missing) - len(ACTIVE_STATES + ENDED)
                        if len(missing) < 2 or is_too_vain or not cursors.advance(page):
                            break
        except PlanasonixError as error:
            self.back_off(error)
        else:
            self._failures, self.has_stumbled = 0, False
            is_vain = asked > number - len(missing)
            self._vain_for = (min(2 * self._vain_for, MAX_BACKOFF) or AVOIDED_AT_FIRST) if is_vain else 0.0
            self._vain_until, self._vain_number = self._clock() + self._vain_for, number

    def back_off(self, error: Exception) -> None:
        """Leave the lists alone for a while, unless it is likely that they answer the next time.

        :param error: what a sweep has ended with.
        """
        if isinstance(error, PlanasonixRateLimitError):
            # Looks in place of pages would only make it worse.
            self.has_stumbled = True
            return
        self._failures += 1
        is_key = isinstance(error, PlanasonixAuthenticationError)
        passes = is_outage(error) or is_key
        self.has_stumbled = passes and self._failures == 1
        # A refused key is nothing about the lists: a few looks tell it to all.
        if not (self.has_stumbled or is_key):
            seconds = AVOIDED_AT_FIRST * 2 ** min(self._failures - 2, 10) if passes else MAX_BACKOFF
            self._avoided_until = self._clock() + min(seconds, MAX_BACKOFF)

    def _trusted_until(self) -> float:
        # At different times, or all would be looked at together again.
        return self._clock() + self._draw(0.5, 1.0) * max(RECHECK_AFTER, 4 / 3 * MIN_RECHECK_SPACING * len(self._known))

    def _list(self, status: str, wanted: Iterable[str]) -> Request[Page[Job]]:
        known = [self._known[job_id].created_at if job_id in self._known else None for job_id in wanted]
        created = [moment for moment in known if moment is not None]
        # A job that nothing is known of may be of any age.
        since = min(created) if len(created) == len(known) else None
        return routes.list_jobs(status=status, since=since, limit=PAGE_SIZE).without("metadata")
