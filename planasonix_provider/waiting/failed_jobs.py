"""Finds the failed jobs of a backfill, and their reasons."""

from __future__ import annotations

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.operations import Paginator
from planasonix_provider.waiting.report import MAX_NAMED
from planasonix_provider.waiting.shared_client import AsyncSend, for_each


async def failed_jobs(send: AsyncSend, backfill: Backfill) -> list[Job]:
    """Return the failed jobs of a backfill, oldest first; the first ten have the reason."""
    failed = set(await _listed(send, backfill)).intersection(backfill.job_ids or ())
    # The list only saves requests: it may be late, or forbidden. Then each job is requested.
    suspects = [job_id for job_id in backfill.job_ids or () if job_id in failed] or list(backfill.job_ids or ())
    named = suspects[:MAX_NAMED] if failed else suspects

    async def ask(job_id: str) -> Job | None:
        # Only the failed ones of thousands are kept in memory.
        job = await send(routes.get_job(job_id).without("metadata"))
        return job if job.status == "failed" else None

    jobs = await for_each(named, ask)
    unnamed = [Job(id=job_id, status="failed") for job_id in suspects[len(named) :]]
    return [job for job in jobs if job] + unnamed


async def _listed(send: AsyncSend, backfill: Backfill) -> list[str]:
    paginator = Paginator(
        routes.list_jobs(connection_id=backfill.connection_id, status="failed", since=backfill.created_at).without(
            "metadata"
        )
    )
    found: list[str] = []
    try:
        while True:
            page = await send(paginator.request)
            found.extend(job.id for job in page.data if job.status == "failed")
            if not paginator.advance(page):
                return found
    except PlanasonixError:
        return found
