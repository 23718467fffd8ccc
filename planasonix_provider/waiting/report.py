"""What a task says of work that is over: the error that it is, or the plain dict that it returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
    add_details,
)
from planasonix_provider.api.json_bodies import shortened
from planasonix_provider.api.models import Backfill, Job, JobResults, JobWarning, TableResult, WorkError
from planasonix_provider.waiting.subjects import Work
from planasonix_provider.waiting.words import count

#: How many tables and warnings the report of a job lists; an XCom lives in Airflow's database, and rows there are to
#: stay small.
MOST_LISTED = 1_000
#: How many bytes each list in the report of a backfill takes at the most, for it may have thousands of jobs.
LARGEST_LIST = 28_000
#: How many failed jobs an error names.
MOST_NAMED = 10
#: How many characters of its reason an error has for each of them.
LONGEST_REASON = 300

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
_BACKFILL_FIELDS = (
    "status",
    "connection_id",
    "start_at",
    "end_at",
    "progress_percent",
    "rows_processed",
    "created_at",
    "updated_at",
)


def error_of_work(work: Work, url: str | None, failed_jobs: Sequence[Job] = ()) -> PlanasonixError | None:
    """Say which error the end of a job or a backfill is.

    :param work: a job or backfill that is over.
    :param url: the page that tells more, for the message.
    :param failed_jobs: of a backfill, the jobs that failed.
    :return: the error, or ``None`` for work that was done.
    """
    error = _error_of_work(work, url, failed_jobs)
    if error:
        culprit = failed_jobs[0].id if failed_jobs else first_job_of(work)
        add_details(error, job_url=url, **details_of(work) | {"job_id": culprit})
    return error


def details_of(work: Work) -> dict[str, str | None]:
    """Return the ids by which an exception names a job or a backfill."""
    backfill_id = work.id if isinstance(work, Backfill) else None
    return {"job_id": first_job_of(work), "backfill_id": backfill_id, "connection_id": work.connection_id}


def _error_of_work(work: Work, url: str | None, failed_jobs: Sequence[Job]) -> PlanasonixError | None:
    name = f"{'Backfill' if isinstance(work, Backfill) else 'Job'} {work.id}"
    see = f" See {url}" if url else ""
    if work.status in ("succeeded", "completed"):
        return None
    if work.status == "failed":
        codes = [error.code for error in (work.error, *(job.error for job in failed_jobs)) if error and error.code]
        return PlanasonixJobFailedError(
            f"{name} failed: {_reason(work.error)}.{_culprits(failed_jobs)}{see}", code=next(iter(codes), None)
        )
    if work.status == "cancelled":
        return PlanasonixJobCancelledError(f"{name} was cancelled before it was done.{see}")
    return PlanasonixLostTrackError(
        f"{name} is {work.status}, a state that this version of airflow-provider-planasonix does not know, "
        f"and takes for an end.{see}"
    )


def _reason(error: WorkError | None) -> str:
    words = [part.rstrip(".") for part in (error.code, error.message) if part] if error else []
    return ": ".join(words) or "Planasonix gave no reason"


def _culprits(jobs: Sequence[Job]) -> str:
    if not jobs:
        return ""
    named = "; ".join(f"job {job.id}: {shortened(_reason(job.error), LONGEST_REASON)}" for job in jobs[:MOST_NAMED])
    more = f"; and {len(jobs) - MOST_NAMED:,} more" if len(jobs) > MOST_NAMED else ""
    return f" What failed of it: {named}{more}."


def log_results(results: Sequence[JobResults], *, info: Callable[[str], object], warn: Callable[[str], object]) -> None:
    """Write what was loaded, and what its owner should know of, to the task's log.

    :param results: what each job loaded.
    :param info: writes a line.
    :param warn: writes a line that deserves attention.
    """
    warnings = [(one.job_id, warning) for one in results for warning in one.warnings]
    for job_id, warning in warnings[:MOST_LISTED]:
        words = ": ".join(filter(None, (warning.code, warning.message))) or "Planasonix gave no reason"
        warn(f"Job {job_id} warns: {words}")
    if len(warnings) > MOST_LISTED:
        info(f"These are the first {MOST_LISTED:,} of {len(warnings):,} warnings.")
    tables = {table.name for one in results for table in one.tables}
    rows = sum(table.rows_loaded or 0 for one in results for table in one.tables)
    by_jobs = f" by {len(results):,} jobs" if len(results) > 1 else ""
    info(f"Loaded {count(rows, 'row')} into {count(len(tables), 'table')}{by_jobs}.")


def tables_of(results: Iterable[JobResults]) -> tuple[TableResult, ...]:
    """Say what was loaded, table by table.

    :param results: what each job loaded.
    :return: each table once, in the order of the results, with the rows of all jobs; a table that several jobs loaded
        has no checksum, for each of them vouches for its own part only.
    """
    tables: dict[str, TableResult] = {}
    for loaded in (table for one in results for table in one.tables):
        if before := tables.get(loaded.name):
            rows = [rows for rows in (before.rows_loaded, loaded.rows_loaded) if rows is not None]
            loaded = TableResult(name=loaded.name, rows_loaded=sum(rows) if rows else None)
        tables[loaded.name] = loaded
    return tuple(tables.values())


def first_job_of(work: Work) -> str | None:
    """Say which job's page tells of it: Planasonix has pages of jobs, so of a backfill it is the first one's.

    :param work: a job or backfill.
    :return: the job, or ``None`` while a backfill has made none.
    """
    job_ids = (work.job_ids or []) if isinstance(work, Backfill) else [work.id]
    return job_ids[0] if job_ids else None


def report(work: Work, job_url: Callable[[str], str]) -> dict[str, Any]:
    """Account for a job or a backfill without what it has loaded.

    :param work: the job or backfill.
    :param job_url: gives the address of a job's page.
    :return: as :func:`report_job` or :func:`report_backfill`.
    """
    return report_backfill(work) if isinstance(work, Backfill) else report_job(work, job_url(work.id))


def report_job(job: Job, url: str, results: JobResults | None = None) -> dict[str, Any]:
    """Account for a job in plain JSON types, as a task returns it.

    :param job: the job.
    :param url: the job's page.
    :param results: what it loaded, once it is over.
    :return: ``job_id``, ``job_url``, the job's own fields and, with results, ``tables``, ``tables_total``,
        ``warnings`` and ``warnings_total``; of tables and warnings the first thousand, and how many there are.
    """
    plain = job.known("metadata")
    answer: dict[str, Any] = {"job_id": job.id, "job_url": url} | {name: plain[name] for name in _JOB_FIELDS}
    if results is not None:
        for name, items in (("tables", results.tables), ("warnings", results.warnings)):
            answer[name] = [item.known() for item in items[:MOST_LISTED]]
            answer[f"{name}_total"] = len(items)
    return answer


def report_backfill(backfill: Backfill, results: Iterable[JobResults] | None = None) -> dict[str, Any]:
    """Account for a backfill in plain JSON types, as a task returns it.

    :param backfill: the backfill.
    :param results: what each of its jobs loaded, once it is over.
    :return: ``backfill_id``, the backfill's own fields and, with results, ``rows_loaded``, ``jobs``, ``tables`` and
        ``warnings``, of each as many as 28 kB hold, and how many there are (``jobs_total``, …). Jobs that did not
        succeed come first; a table is listed once, with the rows of all jobs, and how many jobs loaded it.
    """
    plain = backfill.known("metadata", "job_ids", "tables")
    answer: dict[str, Any] = {"backfill_id": backfill.id} | {name: plain[name] for name in _BACKFILL_FIELDS}
    if results is not None:
        answer |= _Sum.of(results).as_dict()
    return answer


@dataclass
class _Sum:
    """What all jobs of a backfill have loaded."""

    rows: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[JobWarning] = field(default_factory=list)

    @classmethod
    def of(cls, results: Iterable[JobResults]) -> _Sum:
        total = cls()
        for one in results:
            total.add(one)
        return total

    def add(self, results: JobResults) -> None:
        rows = 0
        for loaded in results.tables:
            rows += loaded.rows_loaded or 0
            table = self.tables.setdefault(loaded.name, {"name": loaded.name, "rows_loaded": 0, "jobs": 0})
            table["rows_loaded"] += loaded.rows_loaded or 0
        for name in {loaded.name for loaded in results.tables}:
            self.tables[name]["jobs"] += 1
        self.rows += rows
        self.jobs.append({"job_id": results.job_id, "status": results.status, "rows_loaded": rows})
        self.warnings.extend(results.warnings)

    def as_dict(self) -> dict[str, Any]:
        lists: dict[str, list[dict[str, Any]]] = {
            "jobs": sorted(self.jobs, key=lambda job: job["status"] == "succeeded"),
            "tables": list(self.tables.values()),
            "warnings": [warning.known() for warning in self.warnings],
        }
        answer: dict[str, Any] = {"rows_loaded": self.rows}
        for name, items in lists.items():
            answer[name] = _as_many_as_fit(items)
            answer[f"{name}_total"] = len(items)
        return answer


def _as_many_as_fit(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the first items that fit into a list of the largest size."""
    taken, left = [], LARGEST_LIST
    for item in items:
        if (size := len(json.dumps(item)) + 2) <= left:
            taken.append(item)
            left -= size
    return taken
