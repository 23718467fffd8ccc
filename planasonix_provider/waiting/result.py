"""Fetches the result of finished work: its loaded tables, or the reason of its failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.operations import Paginator
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.report import (
    MAX_NAMED,
    LoadedTable,
    Summary,
    error_of_work,
    log_results,
    report_backfill,
    report_job,
)
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import AsyncSend, for_each
from planasonix_provider.waiting.targets import Work
from planasonix_provider.waiting.wait_state import LOG_EVERY


@dataclass(frozen=True)
class WorkResult:
    """The result of finished work.

    :param url: the page of the job; of a backfill, that of its first failed job, or of its first job.
    :param report: the report in JSON types, if the work has succeeded.
    :param tables: all loaded tables; ``report`` may list only some.
    :param rows: the rows in all tables.
    """

    work: Work
    url: str | None
    error: PlanasonixError | None = None
    report: dict[str, Any] | None = None
    tables: tuple[LoadedTable, ...] = ()
    rows: int = 0


async def fetch_result(
    work: Work, fetcher: ResultFetcher, *, job_url: Callable[[str], str], info: Callable[[str], object]
) -> WorkResult:
    """Return the result of a finished job or backfill, and log what it has loaded."""
    if isinstance(work, Backfill):
        return await _fetch_backfill_result(work, fetcher, job_url, info)
    # A job that ended in a list has only some of its fields.
    job = work if work.finished_at else await fetcher.job(work.id)
    url = job_url(job.id)
    if error := error_of_work(job, url):
        return WorkResult(job, url, error)
    results = await fetcher.results_of(job.id)
    summary = Summary.of([results])
    log_results(summary, info=info, warn=fetcher.warn)
    result = _log_omissions(report_job(job, url, results), info)
    return WorkResult(job, url, report=result, tables=summary.tables, rows=summary.rows)


async def _fetch_backfill_result(
    seen: Backfill, fetcher: ResultFetcher, job_url: Callable[[str], str], info: Callable[[str], object]
) -> WorkResult:
    # The event of a trigger has no list of the jobs.
    backfill = await fetcher.backfill(seen.id)
    if error_of_work(backfill, None):
        return await explain(backfill, fetcher, job_url=job_url)
    job_ids = backfill.job_ids or []
    summary = await _results_of_all(job_ids, fetcher, info)
    log_results(summary, info=info, warn=fetcher.warn)
    url = job_url(job_ids[0]) if job_ids else None
    result = _log_omissions(report_backfill(backfill, summary), info)
    return WorkResult(backfill, url, report=result, tables=summary.tables, rows=summary.rows)


async def _results_of_all(job_ids: Sequence[str], fetcher: ResultFetcher, info: Callable[[str], object]) -> Summary:
    """Return the sum of the results of each job. Log the progress, because thousands of jobs take minutes."""
    logged_at, summary = utcnow(), Summary()

    async def ask(job: tuple[int, str]) -> None:
        nonlocal logged_at
        position, job_id = job
        summary.add(await fetcher.results_of(job_id), position)
        if utcnow() - logged_at >= LOG_EVERY:
            logged_at = utcnow()
            info(f"Fetched the results of {summary.jobs_total:,} of {len(job_ids):,} jobs.")

    await for_each(enumerate(job_ids), ask)
    return summary


def _log_omissions(result: dict[str, Any], info: Callable[[str], object]) -> dict[str, Any]:
    """Log if a result does not list everything, and return it."""
    for name in ("jobs", "tables", "warnings"):
        listed, total = len(result.get(name, ())), result.get(f"{name}_total", 0)
        if listed < total:
            info(f"The task's result lists the first {listed:,} of {total:,} {name}, and counts them all.")
    return result


async def explain(backfill: Backfill, fetcher: ResultFetcher, *, job_url: Callable[[str], str]) -> WorkResult:
    """Return the result of a backfill that has not succeeded; its error names the failed jobs."""
    failed: list[Job] = []
    if backfill.status == "failed":
        try:
            failed = await failed_jobs(fetcher.send, backfill)
        except PlanasonixError as trouble:
            fetcher.warn(f"Which jobs of backfill {backfill.id} failed cannot be found out: {trouble}")
    pages = [job.id for job in failed] or backfill.job_ids or []
    url = job_url(pages[0]) if pages else None
    return WorkResult(backfill, url, error_of_work(backfill, url, failed))


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
    jobs = routes.list_jobs(connection_id=backfill.connection_id, status="failed", since=backfill.created_at)
    paginator = Paginator(jobs.without("metadata"))
    found: list[str] = []
    try:
        while True:
            page = await send(paginator.request)
            found.extend(job.id for job in page.data if job.status == "failed")
            if not paginator.advance(page):
                return found
    except PlanasonixError:
        return found
