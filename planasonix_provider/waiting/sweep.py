"""Finds out about many jobs at once, from the lists: a request for a hundred in place of one for each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.api.operation import Cursors
from planasonix_provider.api.retry import is_passing
from planasonix_provider.api.routes import PAGE_SIZE, Request
from planasonix_provider.waiting.channel import Send

#: For fewer jobs than this, the lists are not worth their requests.
FEWEST = 5
#: The states whose lists are asked for. Most jobs run, and most that end succeed.
ACTIVE = ("running", "queued")
ENDED = ("succeeded", "failed", "cancelled")
#: For how many seconds at most the lists are left alone after they were refused, and a job after they did not name it.
AVOIDED = 300.0
#: The same at first, and where the reason is one that passes.
AVOIDED_AT_FIRST = 15.0
#: For how many seconds a job is known from the lists alone: they may be wrong about one for ever.
TRUSTED = 480.0


@dataclass
class _Known:
    """What is known of a job.

    :param job: the job, as a look at it has brought it, or at first a list.
    :param trusted_until: until when the lists are believed about it.
    :param unlisted_until: until when the lists are not asked about it, since they did not name it.
    :param unlisted_for: how long that is, in seconds.
    """

    job: Job
    trusted_until: float
    unlisted_until: float = 0.0
    unlisted_for: float = 0.0


class Sweeps:
    """Sweeps the lists for whole groups of jobs, and knows from one sweep to the next what they are worth.

    A list is a hint for what still runs, and a verdict for what it says is over. What it does not tell is for a look at
    the job itself.

    :param ask: sends a request once.
    :param clock: tells the seconds that have passed; only its differences count.
    :param draw: draws a number from the range of its two arguments.
    """

    def __init__(
        self, ask: Send, clock: Callable[[], float], draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._draw = draw
        self._avoided_until = 0.0
        # For how long the lists are left alone after they were asked in vain, in seconds: longer each time.
        self._vain = 0.0
        self._known: dict[str, _Known] = {}

    def may_tell(self, job_id: str) -> bool:
        """Say whether the lists are to be asked about a job.

        :param job_id: the job.
        :return: whether they can be had, have told of it before or may do so now, and are still to be believed.
        """
        now, known = self._clock(), self._known.get(job_id)
        if now < self._avoided_until:
            return False
        return known is None or known.unlisted_until <= now < known.trusted_until

    def looked_at(self, job: Job, *, was_missing: bool) -> None:
        """Learn what a look at a job itself has brought.

        :param job: the job.
        :param was_missing: whether the lists have just been asked for it, and did not tell.
        """
        now, before = self._clock(), self._known.get(job.id)
        known = self._known[job.id] = _Known(job, self._trusted_until())
        if was_missing and now >= self._avoided_until:
            known.unlisted_for = min(2 * before.unlisted_for if before else 0.0, AVOIDED) or AVOIDED_AT_FIRST
            known.unlisted_until = now + known.unlisted_for
        elif before:
            known.unlisted_for, known.unlisted_until = before.unlisted_for, before.unlisted_until

    def forget(self, job_id: str) -> None:
        """Forget a job that somebody waits for no longer; whoever else does so learns it anew.

        :param job_id: the job.
        """
        self._known.pop(job_id, None)

    async def find(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """Ask the lists, for as long as that spares requests.

        :param job_ids: the jobs to find.
        :return: what the lists tell of them.
        """
        missing, found = set(job_ids), dict[str, Job]()
        number, asked = len(missing), 0
        try:
            for lists in (ACTIVE, ENDED):
                for status in lists:
                    # What is left may be in any of the lists, and each costs a request at the least.
                    if len(missing) > len(lists):
                        asked += await self._walk(status, missing, found)
        except PlanasonixError as error:
            self.avoid(AVOIDED_AT_FIRST if is_passing(error) else AVOIDED)
        else:
            self._vain = 0.0 if asked <= number - len(missing) else min(2 * self._vain, AVOIDED) or AVOIDED_AT_FIRST
            self.avoid(self._vain)
        return found

    def avoid(self, seconds: float = AVOIDED) -> None:
        """Leave the lists alone for a while.

        :param seconds: for how long.
        """
        self._avoided_until = self._clock() + seconds

    async def _walk(self, status: str, missing: set[str], found: dict[str, Job]) -> int:
        """Go through a list, for as long as each page spares more requests than it costs; say how many it cost."""
        cursors, asked = Cursors(self._list(status, missing)), 0
        while True:
            asked += 1
            page: Page[Job] = await self._ask(cursors.request)
            told = [job for job in page.data if job.id in missing]
            found.update((job.id, self._with_what_is_known(job)) for job in told)
            for job in told:
                self._known.setdefault(job.id, _Known(job, self._trusted_until()))
            missing.difference_update(job.id for job in told)
            if len(told) < 2 or len(missing) < 2 or not cursors.step(page):
                return asked

    def _trusted_until(self) -> float:
        # At different times, or all would be looked at together again.
        return self._clock() + self._draw(0.5, 1.0) * TRUSTED

    def _list(self, status: str, wanted: Iterable[str]) -> Request[Page[Job]]:
        known = [self._known[job_id].job.created_at if job_id in self._known else None for job_id in wanted]
        created = [moment for moment in known if moment is not None]
        # A job that nothing is known of may be of any age.
        since = min(created) if len(created) == len(known) else None
        return routes.list_jobs(status=status, since=since, limit=PAGE_SIZE)

    def _with_what_is_known(self, listed: Job) -> Job:
        """Lists name only some of a job's fields: what a look has brought is better than nothing while it runs."""
        known = self._known.get(listed.id)
        if known is None or listed.is_over:
            return listed
        more = {name: value for name, value in known.job if getattr(listed, name) is None and value is not None}
        return listed.model_copy(update=more)
