"""A single job with its tables, and a single backfill with its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from datetime import timedelta
from typing import TypeAlias, TypedDict

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.waiting.shared_client import AsyncSend

#: How many jobs of a backfill are listed, and how many pages are searched for them.
MAX_JOBS, MAX_PAGES = 100, 5
#: How many of its ended jobs are read one by one at a time.
MAX_SINGLE_REQUESTS = 20
#: By how much the times of a backfill and of its first jobs may differ.
_SLACK = timedelta(minutes=1)


class LoadedTableRow(TypedDict):
    """A table that a job has loaded."""

    name: str
    rows_loaded: int | None


JobTables: TypeAlias = list[LoadedTableRow]


async def read_job(send: AsyncSend, job_id: str) -> tuple[Job, JobTables | None]:
    """Return a job and, once it is over, its tables."""
    job = await send(routes.get_job(job_id))
    if not job.is_over:
        return job, None
    try:
        results = await send(routes.get_job_results(job_id))
    except (PlanasonixConflictError, PlanasonixNotFoundError):
        return job, None
    return job, [{"name": table.name, "rows_loaded": table.rows_loaded} for table in results.tables]


async def read_backfill(
    send: AsyncSend, backfill_id: str, ended: MutableMapping[str, Job] | None = None
) -> tuple[Backfill, list[Job]]:
    """Return a backfill, and the newest of its jobs by their start.

    The API has no list of the jobs of a backfill, so they are searched for among those of its connection.

    :param ended: the ended jobs that have been read one by one, by their ids; lists do not say when jobs have ended.
    """
    backfill = await send(routes.get_backfill(backfill_id))
    wanted = {job_id: position for position, job_id in enumerate(backfill.job_ids or ())}
    found: dict[str, Job] = {}
    since = backfill.created_at - _SLACK if backfill.created_at else None
    request: Request[Page[Job]] = routes.list_jobs(
        connection_id=backfill.connection_id, since=since, limit=PAGE_SIZE
    ).without("metadata")
    for _ in range(MAX_PAGES if wanted else 0):
        page = await send(request)
        found |= {job.id: job for job in page.data if job.id in wanted}
        if page.cursor is None or len(found) >= min(len(wanted), MAX_JOBS):
            break
        request = request.next_page(page.cursor)
    # Jobs that have not started are the last ones.
    jobs = sorted(found.values(), key=lambda job: (not job.started_at, str(job.started_at), wanted[job.id]))
    return backfill, await _with_ends(send, jobs[-MAX_JOBS:], {} if ended is None else ended)


async def _with_ends(send: AsyncSend, jobs: Sequence[Job], ended: MutableMapping[str, Job]) -> list[Job]:
    missing = [job.id for job in jobs if job.is_over and not job.finished_at and job.id not in ended]
    # The newest first: they are what a person looks at.
    wanted = missing[-MAX_SINGLE_REQUESTS:]
    for result in await asyncio.gather(*(send(routes.get_job(job_id)) for job_id in wanted), return_exceptions=True):
        if isinstance(result, Job):
            ended[result.id] = result
        elif not isinstance(result, (PlanasonixError, TimeoutError)):
            raise result
    return [ended.get(job.id, job) for job in jobs]
