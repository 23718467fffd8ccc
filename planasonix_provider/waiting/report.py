"""What a task says of a job that is over: the error that it is, or the plain dict that it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planasonix_provider.api.errors import PlanasonixError, PlanasonixJobCancelledError, PlanasonixJobFailedError
from planasonix_provider.api.models import Job, JobResults
from planasonix_provider.waiting.words import count

#: How many tables and warnings a report lists; an XCom lives in Airflow's database, and rows there are to stay small.
MOST_LISTED = 1_000

_JOB_FIELDS = (
    "status",
    "type",
    "connection_id",
    "pipeline_id",
    "created_at",
    "queued_at",
    "started_at",
    "finished_at",
    "duration_seconds",
    "metrics",
)


def error_of_job(job: Job, url: str) -> PlanasonixError | None:
    """Say which error a job's end is.

    :param job: a job that is over.
    :param url: the job's page, for the message.
    :return: the error, or ``None`` for a job that succeeded.
    """
    if job.status == "failed":
        code, message = (job.error.code, job.error.message) if job.error else (None, None)
        reason = ": ".join(part for part in (code, message) if part) or "Planasonix gave no reason"
        return PlanasonixJobFailedError(f"Job {job.id} failed: {reason}. See {url}", code=code)
    if job.status == "cancelled":
        return PlanasonixJobCancelledError(f"Job {job.id} was cancelled before it was done. See {url}")
    return None


def log_results(results: JobResults, *, info: Callable[[str], object], warn: Callable[[str], object]) -> None:
    """Write what a job has loaded, and what its owner should know of, to the task's log.

    :param results: what it loaded.
    :param info: writes a line.
    :param warn: writes a line that deserves attention.
    """
    for warning in results.warnings[:MOST_LISTED]:
        warn(f"Warning of the job: {warning.code or 'without a code'}: {warning.message or 'without a message'}")
    rows = sum(table.rows_loaded or 0 for table in results.tables)
    info(f"Loaded {count(rows, 'row')} into {count(len(results.tables), 'table')}.")
    for name, items in (("tables", results.tables), ("warnings", results.warnings)):
        if len(items) > MOST_LISTED:
            info(f"The task's result lists the first {MOST_LISTED:,} of {len(items):,} {name}, and counts them all.")


def report(job: Job, url: str, results: JobResults | None = None) -> dict[str, Any]:
    """Account for a job in plain JSON types, as a task returns it.

    :param job: the job.
    :param url: the job's page.
    :param results: what it loaded, once it is over.
    :return: ``job_id``, ``job_url``, the job's own fields and, with results, ``tables``, ``tables_total``,
        ``warnings`` and ``warnings_total``; of tables and warnings the first thousand, and how many there are.
    """
    plain = job.model_dump(mode="json", include=set(_JOB_FIELDS))
    answer: dict[str, Any] = {"job_id": job.id, "job_url": url} | {name: plain[name] for name in _JOB_FIELDS}
    if results is not None:
        for name, items in (("tables", results.tables), ("warnings", results.warnings)):
            answer[name] = [item.model_dump(mode="json") for item in items[:MOST_LISTED]]
            answer[f"{name}_total"] = len(items)
    return answer
