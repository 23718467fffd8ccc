"""Polls many jobs by list requests: one request per hundred jobs instead of one per job."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixError, PlanasonixRateLimitError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.api.states import ACTIVE_STATES
from planasonix_provider.clock import loop_time
from planasonix_provider.waiting.outages import is_outage
from planasonix_provider.waiting.shared_client import AsyncSend

#: For fewer jobs than this, lists take more requests than they save.
MIN_BATCH = 5
#: The lists that are requested, in this order: most jobs run, and most that end succeed. A job that leaves the queue
#: between the first two requests is polled by itself.
LISTS = (ACTIVE_STATES[::-1], ("succeeded", "failed", "cancelled"))
#: The maximum seconds without lists after an error, and without lists for a job that they did not contain.
MAX_BACKOFF_SECONDS = 300.0
#: The first such pause; later ones are twice as long.
FIRST_BACKOFF_SECONDS = 15.0
#: After useless lists, this many times more jobs let them be requested again.
GROWTH_FACTOR = 4
#: The lists are read no further if useless pages exceed this fraction of the jobs that are still missing.
MAX_WASTE = 0.25
#: After this many seconds a job is polled by itself, because lists may be wrong about it for ever.
RECHECK_AFTER_SECONDS = 480.0
#: With many jobs it takes longer: on average, such polls are this many seconds apart.
MIN_RECHECK_SPACING_SECONDS = 1.0


@dataclass
class _JobInfo:
    """A job with waits. Times are by the event loop's clock; ``unlisted_for`` is a duration in seconds."""

    created_at: datetime | None
    trusted_until: float
    unlisted_until: float = 0.0
    unlisted_for: float = 0.0


class BulkPoll:
    """Finds jobs in lists, and remembers between the polls whether the lists are worth their requests.

    A list is a hint for a job that runs, and final for one that is over. Jobs that are in no list are polled by
    themselves.
    """

    def __init__(self, send: AsyncSend) -> None:
        self._send = send
        self._avoided_until = 0.0
        self._failures = 0
        #: Whether to request the lists again after a transient error, instead of polling one by one.
        self.should_retry = False
        # After lists were useless for some jobs, only many more jobs justify them; for longer each time.
        self._useless_until = 0.0
        self._useless_for = 0.0
        self._useless_jobs = 0
        self._known: dict[str, _JobInfo] = {}

    def is_listable(self, job_id: str) -> bool:
        """Return whether to request lists for a job: they work and may contain it, and it needs no poll by itself."""
        now, known = loop_time(), self._known.get(job_id)
        if now < self._avoided_until:
            return False
        return known is None or known.unlisted_until <= now < known.trusted_until

    def select(self, job_ids: Iterable[str]) -> set[str]:
        """Return the jobs to find in lists; none if they are too few."""
        chosen = {job_id for job_id in job_ids if self.is_listable(job_id)}
        fewest = GROWTH_FACTOR * self._useless_jobs if loop_time() < self._useless_until else MIN_BATCH
        return chosen if len(chosen) >= fewest else set()

    def record_poll(self, job_id: str, job: Job, *, was_missing: bool) -> None:
        """Record the response for a single job; ``was_missing`` if the lists have just not contained it."""
        now, before = loop_time(), self._known.get(job_id)
        known = self._known[job_id] = _JobInfo(job.created_at, self._trusted_until())
        if was_missing and now >= self._avoided_until:
            known.unlisted_for = _next_backoff(before.unlisted_for if before else 0.0)
            known.unlisted_until = now + known.unlisted_for
        elif before:
            known.unlisted_for, known.unlisted_until = before.unlisted_for, before.unlisted_until

    def expect(self, job_id: str, created_after: datetime) -> None:
        """Record the earliest time at which a job can have been created, so that lists begin there."""
        self._known[job_id] = _JobInfo(created_after, self._trusted_until())

    def forget(self, job_id: str) -> None:
        """Forget a job without waits."""
        self._known.pop(job_id, None)

    def forget_all_but(self, job_ids: Collection[str]) -> None:
        """Forget all other jobs."""
        for job_id in self._known.keys() - job_ids:
            del self._known[job_id]

    async def find(self, job_ids: Iterable[str]) -> AsyncGenerator[list[Job]]:
        """Yield the jobs that lists contain, page by page, for as long as that saves requests."""
        missing = set(job_ids)
        total, requests, useless_pages = len(missing), 0, 0
        try:
            for states in LISTS:
                for status in states:
                    if len(missing) <= len(states):
                        # The rest may be in any of the lists, and each costs at least one request.
                        break
                    paginator = Paginator(self._list(status, missing))
                    while True:
                        page: Page[Job] = await self._send(paginator.request)
                        requests += 1
                        matches = [job for job in page.data if job.id in missing]
                        missing.difference_update(job.id for job in matches)
                        for job in matches:
                            self._known.setdefault(job.id, _JobInfo(job.created_at, self._trusted_until()))
                        if matches:
                            yield matches
                        is_useless = len(matches) < 2
                        useless_pages += is_useless
                        is_waste = is_useless and useless_pages > MAX_WASTE * len(missing) - sum(map(len, LISTS))
                        if len(missing) < 2 or is_waste or not paginator.advance(page):
                            break
        except PlanasonixError as error:
            self.back_off(error)
        else:
            self._failures, self.should_retry = 0, False
            is_useless = requests > total - len(missing)
            self._useless_for = _next_backoff(self._useless_for) if is_useless else 0.0
            self._useless_until, self._useless_jobs = loop_time() + self._useless_for, total

    def back_off(self, error: Exception) -> None:
        """Stop requesting lists for a while after an error, unless they will probably work the next time."""
        if isinstance(error, PlanasonixRateLimitError):
            # Polls one by one would only make it worse.
            self.should_retry = True
            return
        self._failures += 1
        is_key = isinstance(error, PlanasonixAuthenticationError)
        is_transient = is_outage(error) or is_key
        self.should_retry = is_transient and self._failures == 1
        # A refused key does not concern the lists: a few polls show it to all waits.
        if not (self.should_retry or is_key):
            seconds = FIRST_BACKOFF_SECONDS * 2 ** min(self._failures - 2, 10) if is_transient else MAX_BACKOFF_SECONDS
            self._avoided_until = loop_time() + min(seconds, MAX_BACKOFF_SECONDS)

    def _trusted_until(self) -> float:
        # At random times, or all jobs would be polled by themselves together again.
        seconds = max(RECHECK_AFTER_SECONDS, 4 / 3 * MIN_RECHECK_SPACING_SECONDS * len(self._known))
        return loop_time() + random.uniform(0.5, 1.0) * seconds  # noqa: S311 - not for security

    def _list(self, status: str, wanted: Iterable[str]) -> Request[Page[Job]]:
        known = [self._known[job_id].created_at if job_id in self._known else None for job_id in wanted]
        created = [moment for moment in known if moment is not None]
        # An unknown job may be of any age.
        since = min(created) if len(created) == len(known) else None
        return routes.list_jobs(status=status, since=since, limit=PAGE_SIZE).without("metadata")


def _next_backoff(seconds: float) -> float:
    return min(2 * seconds, MAX_BACKOFF_SECONDS) or FIRST_BACKOFF_SECONDS
