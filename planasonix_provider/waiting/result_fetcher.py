"""Fetches finished work and its results, and retries through an outage: a failure now would repeat the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import AsyncRetrying

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixOutageError,
)
from planasonix_provider.api.models import Backfill, Job, JobResults
from planasonix_provider.api.request import Request
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.outages import (
    OutagePolicy,
    OutageTracker,
    is_outage,
    outage_retry_options,
    pause_after,
)
from planasonix_provider.waiting.shared_client import AsyncSend

T = TypeVar("T")
W = TypeVar("W", Job, Backfill)


@dataclass(frozen=True)
class ResultFetcher:
    """Repeats requests every ``interval`` seconds for as long as the policy tolerates their errors.

    Errors that last become a ``PlanasonixOutageError`` or ``PlanasonixLostTrackError``.
    """

    send: AsyncSend
    interval: float
    warn: Callable[[str], object]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    policy: OutagePolicy = field(default_factory=OutagePolicy)

    async def results_of(self, job_id: str) -> JobResults:
        """Return the results of a finished job."""

        async def ask() -> JobResults:
            results = await self.send(routes.get_job_results(job_id).without())
            if results.status not in JOB_OVER:
                # Results of a running job: a replica of the API may lag behind.
                raise PlanasonixConflictError(
                    f"The results of job {job_id} are not complete yet: they say that it is {results.status}."
                )
            return results

        return await self._fetch(ask, f"Job {job_id}")

    async def job(self, job_id: str) -> Job:
        """Return a finished job with all its fields."""
        return await self._get_finished(routes.get_job(job_id).without("metadata"), f"job {job_id}")

    async def backfill(self, backfill_id: str) -> Backfill:
        """Return a finished backfill with all its jobs."""
        return await self._get_finished(routes.get_backfill(backfill_id).without("metadata"), f"backfill {backfill_id}")

    async def _get_finished(self, request: Request[W], name: str) -> W:
        async def ask() -> W:
            work = await self.send(request)
            if not work.is_over:
                # It was over before: a replica of the API lags behind, perhaps with its jobs, too.
                raise PlanasonixConflictError(
                    f"The details of {name} are not complete yet: they say that it is {work.status}."
                )
            return work

        return await self._fetch(ask, capitalize(name))

    async def _fetch(self, fetch: Callable[[], Awaitable[T]], name: str) -> T:
        options = outage_retry_options(
            # Results may be late. If they stay refused, the loaded tables are unknown.
            OutageTracker(self.policy, passes=lambda error: isinstance(error, PlanasonixConflictError)),
            pause=lambda error: pause_after(error, self.interval),
            warn=lambda error: self.warn(
                f"{name} is over, but its results cannot be fetched yet, still trying: {error}"
            ),
        )
        try:
            return await AsyncRetrying(**options, sleep=self.sleep)(fetch)
        except PlanasonixError as error:
            kind = PlanasonixOutageError if is_outage(error) else PlanasonixLostTrackError
            failure = kind(f"{name} is over, but its results cannot be fetched. {error}")
            failure.code = error.code
            raise failure from None
