"""Reports of finished work: the error that a task raises, or the dict that it returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from heapq import heappush, heapreplace
from typing import Any, NamedTuple, Self

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
    add_details,
)
from planasonix_provider.api.json_bodies import shorten
from planasonix_provider.api.models import Backfill, Job, JobResults, JobWarning, TableResult, WorkError
from planasonix_provider.waiting.formatting import pluralize
from planasonix_provider.waiting.targets import Work

#: How many tables and warnings the report of a job lists. An XCom is a row of Airflow's database, which must stay
#: small.
MAX_LISTED = 1_000
#: The maximum size of each of these lists, in bytes.
MAX_LIST_BYTES_OF_JOB = 256_000
#: The maximum size of each list in the report of a backfill, in bytes: a backfill may have thousands of jobs.
MAX_LIST_BYTES = 28_000
#: Every item of such a list has more bytes than this.
MIN_ITEM_BYTES = 20
#: How many tables are listed. The rows of further tables are counted, but the tables are not listed.
MAX_TABLES = 30_000
#: The largest sum of rows; Airflow stores no larger whole number.
MAX_ROWS = 2**63 - 1
#: How many failed jobs an error names.
MAX_NAMED = 10
#: How many characters of each job's reason an error quotes.
MAX_REASON = 300

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
    """Return the error of a finished job or backfill; ``None`` if it has succeeded. The message names ``url``."""
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
    kind = "Backfill" if isinstance(work, Backfill) else "Job"
    name = f"{kind} {work.id}"
    see = f" See {url}" if url else ""
    if work.status in ("succeeded", "completed"):
        return None
    if work.status == "failed":
        codes = [error.code for error in (work.error, *(job.error for job in failed_jobs)) if error and error.code]
        # The reason precedes the long id, because Airflow's UI cuts lines off.
        return PlanasonixJobFailedError(
            f"{kind} failed: {_reason(work.error)} ({kind.lower()} {work.id}).{_culprits(failed_jobs)}{see}",
            code=next(iter(codes), None),
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
    named = "; ".join(f"{job.id}: {shorten(_reason(job.error), MAX_REASON)}" for job in jobs[:MAX_NAMED])
    more = f"; and {len(jobs) - MAX_NAMED:,} more" if len(jobs) > MAX_NAMED else ""
    return f" Failed jobs: {named}{more}."


def log_results(summary: Summary, *, info: Callable[[str], object], warn: Callable[[str], object]) -> None:
    """Log the warnings of the jobs, and how much was loaded."""
    warnings = summary.warnings
    for job_id, warning in warnings:
        words = ": ".join(filter(None, (warning.code, warning.message))) or "Planasonix gave no reason"
        warn(f"Job {job_id} warns: {words}")
    if len(warnings) < summary.warnings_total:
        info(f"These are the first {len(warnings):,} of {summary.warnings_total:,} warnings.")
    by_jobs = f" by {summary.jobs_total:,} jobs" if summary.jobs_total > 1 else ""
    info(f"Loaded {pluralize(summary.rows, 'row')} into {pluralize(summary.tables_total, 'table')}{by_jobs}.")


def first_job_of(work: Work) -> str | None:
    """Return the job whose page shows the work; of a backfill its first job, since backfills have no pages."""
    job_ids = (work.job_ids or []) if isinstance(work, Backfill) else [work.id]
    return job_ids[0] if job_ids else None


def report(work: Work, job_url: Callable[[str], str]) -> dict[str, Any]:
    """Return the report of a job or backfill without its results."""
    return report_backfill(work) if isinstance(work, Backfill) else report_job(work, job_url(work.id))


def report_job(job: Job, url: str, results: JobResults | None = None) -> dict[str, Any]:
    """Return the report of a job in JSON types. ``results`` are known once the job is over.

    Of tables and warnings it has the first thousand, as far as 256 kB hold them, and the total.
    """
    plain = job.known_fields("metadata")
    answer: dict[str, Any] = {"job_id": job.id, "job_url": url} | {name: plain[name] for name in _JOB_FIELDS}
    if results is not None:
        for name, items in (("tables", results.tables), ("warnings", results.warnings)):
            answer[name] = _as_many_as_fit((item.known_fields() for item in items[:MAX_LISTED]), MAX_LIST_BYTES_OF_JOB)
            answer[f"{name}_total"] = len(items)
    return answer


def report_backfill(backfill: Backfill, summary: Summary | None = None) -> dict[str, Any]:
    """Return the report of a backfill in JSON types. ``summary`` is known once the backfill is over.

    Of jobs, tables and warnings it has as many as 28 kB hold, and the total. Jobs that did not succeed come first.
    """
    plain = backfill.known_fields("metadata", "job_ids", "tables")
    answer: dict[str, Any] = {"backfill_id": backfill.id} | {name: plain[name] for name in _BACKFILL_FIELDS}
    if summary is not None:
        answer |= summary.as_dict()
    return answer


class LoadedTable(NamedTuple):
    """A table that was loaded.

    :param rows_loaded: ``None`` if no job reports it.
    :param checksum: only if a single job loaded the table, because each covers its own part.
    """

    name: str
    rows_loaded: int | None
    checksum: str | None


class Summary:
    """The sum of the results of one or many jobs. Each result is added and dropped, so that memory stays small."""

    def __init__(self) -> None:
        self.rows = 0
        self.warnings_total = 0
        self._jobs: dict[int, tuple[str, str, int]] = {}
        self._tables: dict[str, _Table] = {}
        # Names beyond the limit, by their hashes: they are only counted.
        self._further: set[int] = set()
        # The first warnings in the order of the jobs, as a heap whose first item is the last of them.
        self._warnings: list[tuple[int, int, str, JobWarning]] = []

    @classmethod
    def of(cls, results: Iterable[JobResults]) -> Self:
        """Return the sum of the results of each job."""
        summary = cls()
        for position, one in enumerate(results):
            summary.add(one, position)
        return summary

    def add(self, results: JobResults, position: int) -> None:
        """Add the results of the job at a position. They may arrive in any order; lists follow the jobs' order."""
        rows = 0
        for number, loaded in enumerate(results.tables):
            rows = _total(rows, loaded.rows_loaded or 0)
            self._add_table(loaded, position, number)
        self.rows = _total(self.rows, rows)
        self._jobs[position] = (results.job_id, results.status, rows)
        self.warnings_total += len(results.warnings)
        for number, warning in enumerate(results.warnings[:MAX_LISTED]):
            entry = (-position, -number, results.job_id, warning)
            if len(self._warnings) < MAX_LISTED:
                heappush(self._warnings, entry)
            elif entry[:2] > self._warnings[0][:2]:
                heapreplace(self._warnings, entry)

    def _add_table(self, loaded: TableResult, position: int, number: int) -> None:
        table = self._tables.get(loaded.name)
        if table is None and len(self._tables) >= MAX_TABLES:
            self._further.add(hash(loaded.name))
            return
        if table is None:
            self._tables[loaded.name] = _Table(position, number, loaded.rows_loaded, loaded.checksum)
        else:
            table.add(loaded, position, number)

    @property
    def jobs_total(self) -> int:
        """How many jobs there are."""
        return len(self._jobs)

    @property
    def tables_total(self) -> int:
        """How many tables were loaded."""
        return len(self._tables) + len(self._further)

    @property
    def warnings(self) -> list[tuple[str, JobWarning]]:
        """The first thousand warnings, each with the id of its job."""
        return [entry[2:] for entry in sorted(self._warnings, key=lambda entry: entry[:2], reverse=True)]

    @property
    def tables(self) -> tuple[LoadedTable, ...]:
        """Each table once, in the order of the jobs, with the rows of all of them; 30,000 at most."""
        return tuple(LoadedTable(name, table.rows, table.checksum) for name, table in self._in_order())

    def _in_order(self) -> list[tuple[str, _Table]]:
        return sorted(self._tables.items(), key=lambda item: (item[1].position, item[1].number))

    def as_dict(self) -> dict[str, Any]:
        """Return the sum in JSON types."""
        jobs = [job for _, job in sorted(self._jobs.items())]
        jobs.sort(key=lambda job: job[1] == "succeeded")
        lists: dict[str, tuple[int, Iterable[dict[str, Any]]]] = {
            "jobs": (
                len(jobs),
                ({"job_id": job_id, "status": status, "rows_loaded": rows} for job_id, status, rows in jobs),
            ),
            "tables": (
                self.tables_total,
                ({"name": name, "rows_loaded": it.rows or 0, "jobs": it.jobs} for name, it in self._in_order()),
            ),
            "warnings": (self.warnings_total, (warning.known_fields() for _, warning in self.warnings)),
        }
        answer: dict[str, Any] = {"rows_loaded": self.rows}
        for name, (total, items) in lists.items():
            answer[name] = _as_many_as_fit(items, MAX_LIST_BYTES)
            answer[f"{name}_total"] = total
        return answer


class _Table:
    """The sum of one table, in as little memory as possible."""

    __slots__ = ("checksum", "jobs", "last", "number", "position", "rows")

    def __init__(self, position: int, number: int, rows: int | None, checksum: str | None) -> None:
        self.position = self.last = position
        self.number = number
        self.rows = rows
        self.checksum = checksum
        self.jobs = 1

    def add(self, loaded: TableResult, position: int, number: int) -> None:
        self.jobs += position != self.last
        self.last = position
        self.checksum = None
        if loaded.rows_loaded is not None:
            self.rows = _total(self.rows or 0, loaded.rows_loaded)
        if (position, number) < (self.position, self.number):
            self.position, self.number = position, number


def _total(rows: int, further: int) -> int:
    return max(-MAX_ROWS, min(rows + further, MAX_ROWS))


def _as_many_as_fit(items: Iterable[dict[str, Any]], largest: int) -> list[dict[str, Any]]:
    """Return the first items that fit into a number of bytes."""
    taken, left = [], largest
    for item in items:
        if (size := len(json.dumps(item)) + 2) <= left:
            taken.append(item)
            left -= size
        elif left < MIN_ITEM_BYTES:
            break
    return taken
