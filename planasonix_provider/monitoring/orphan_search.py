"""Finds out which work of ended tasks still runs, and deletes the records of work that is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.request import Request
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.connection_lookup import public_message
from planasonix_provider.monitoring.attempt_records import StoredRecord, delete_records
from planasonix_provider.monitoring.connection_groups import NO_ANSWER, for_each_connection
from planasonix_provider.monitoring.orphans import ListingProblem, Orphan, OrphanListing
from planasonix_provider.waiting.attempt import AttemptRecord
from planasonix_provider.waiting.bulk_poll import MIN_BATCH, BulkPoll
from planasonix_provider.waiting.cancellation import through_outages
from planasonix_provider.waiting.lost_start_search import CLOCK_SLACK, START_WINDOW, MatchCriteria, search
from planasonix_provider.waiting.shared_client import AsyncSend, SharedClient, for_each
from planasonix_provider.waiting.targets import Work

#: The maximum number of jobs and backfills that one listing requests one by one, per Airflow connection, after lists
#: have shown most of them. The others follow in the next listing.
MAX_SINGLE_REQUESTS = 200
#: The maximum number of searches for lost starts, each of which takes several requests.
MAX_SEARCHES = 10
#: How long a listing may take for each Airflow connection.
LIST_SECONDS = 120.0
#: Work that the API no longer knows for this long is over. Before, the API or a list may lag behind.
MIN_AGE_OF_MISSING_WORK = timedelta(days=1)


async def examine(records: Sequence[StoredRecord], *, max_seconds: float | None = None) -> OrphanListing:
    """Return the orphans among the work of tasks that are over, and delete the records of work that is over."""
    seconds = LIST_SECONDS if max_seconds is None else max_seconds

    async def look(client: SharedClient, some: Sequence[StoredRecord]) -> _Findings:
        findings = _Findings()
        try:
            async with asyncio.timeout(seconds):
                await _look(through_outages(partial(client.send, retry=False), seconds), some, findings)
        except TimeoutError:
            findings.errors.append(NO_ANSWER)
        except PlanasonixError as error:
            findings.errors.append(public_message(error))
        return findings

    orphans: list[Orphan] = []
    problems: list[ListingProblem] = []
    for some, findings in await for_each_connection(records, lambda stored: stored.record.planasonix_conn_id, look):
        name = some[0].record.planasonix_conn_id
        if isinstance(findings, str):
            findings = _Findings(errors=[findings])
        await asyncio.to_thread(delete_records, findings.finished)
        orphans += findings.orphans
        problems += [ListingProblem(name, text) for text in findings.problems(name)]
    return OrphanListing(sorted(orphans, key=lambda orphan: orphan.started_at), problems)


@dataclass
class _Findings:
    """The findings for one Airflow connection: orphans, and records that are no longer needed."""

    orphans: list[Orphan] = field(default_factory=list)
    finished: list[StoredRecord] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    #: How many records were not looked at.
    left: int = 0

    def problems(self, conn_id: str) -> Iterator[str]:
        """Yield why there may be more orphans."""
        if self.errors:
            scope = "Some" if self.orphans or self.finished else "The"
            more = f" ({len(self.errors)} errors in all.)" if len(self.errors) > 1 else ""
            yield f"{scope} orphaned jobs of Airflow connection {conn_id!r} cannot be found. {self.errors[0]}{more}"
        if self.left:
            yield (
                f"There are more ended tasks of Airflow connection {conn_id!r} to look at: {self.left:,}. List again "
                "for them."
            )

    def add(self, stored: StoredRecord, work: Work | None) -> None:
        """Add the work of a start; ``None`` if the API does not know it."""
        if work is None:
            if utcnow() - stored.record.last_sent_at >= MIN_AGE_OF_MISSING_WORK:
                self.finished.append(stored)
        elif work.is_over:
            self.finished.append(stored)
        # It is cancelled already.
        elif work.status != "cancelling":
            self.orphans.append(Orphan(stored, work))


async def _look(send: AsyncSend, some: Sequence[StoredRecord], findings: _Findings) -> None:
    # The newest first: they are more likely to run, and the others are looked at later.
    started = sorted((stored for stored in some if stored.record.id), key=_last_sent_at, reverse=True)
    works = await _listed_jobs(send, started)
    for stored in started:
        if stored.record.id in works:
            findings.add(stored, works[stored.record.id])
    unlisted = [stored for stored in started if stored.record.id not in works]
    lost = sorted((stored for stored in some if not stored.record.id), key=_last_sent_at)
    findings.left = len(unlisted[MAX_SINGLE_REQUESTS:]) + len(lost[MAX_SEARCHES:])

    async def find(stored: StoredRecord) -> None:
        try:
            if stored.record.id:
                findings.add(stored, await _get(send, stored.record))
            else:
                await _search(send, stored, findings)
        except PlanasonixAuthenticationError:
            # The others would fail, too.
            raise
        except PlanasonixError as error:
            findings.errors.append(public_message(error))

    await for_each([*unlisted[:MAX_SINGLE_REQUESTS], *lost[:MAX_SEARCHES]], find)


async def _listed_jobs(send: AsyncSend, started: Sequence[StoredRecord]) -> dict[str | None, Work]:
    """Return jobs by lists, of which each request shows a hundred."""
    jobs = {stored.record.id: stored.record for stored in started if stored.record.kind == "job" and stored.record.id}
    if len(jobs) < MIN_BATCH:
        return {}
    bulk, listed = BulkPoll(send), dict[str | None, Work]()
    for job_id, record in jobs.items():
        bulk.expect(job_id, record.first_sent_at - CLOCK_SLACK)
    async for some in bulk.find(jobs):
        listed |= {job.id: job for job in some}
    return listed


async def _get(send: AsyncSend, record: AttemptRecord) -> Work | None:
    get: Callable[[str], Request[Any]] = routes.get_backfill if record.kind == "backfill" else routes.get_job
    try:
        work: Work = await send(get(record.id or "").without("metadata"))
    except PlanasonixNotFoundError as error:
        if not error.has_envelope:
            raise
        return None
    return work


async def _search(send: AsyncSend, stored: StoredRecord, findings: _Findings) -> None:
    """Search for the work of a start that had no response."""
    criteria = MatchCriteria.of(stored.record)
    found = await search(send, criteria)
    # Work without metadata may have been started by anybody since, so it is never cancelled.
    active = [work for work in found if not work.is_over]
    ours = [work for work in active if criteria.matches(work)]
    if ours:
        findings.orphans += [Orphan(stored, work) for work in ours if work.status != "cancelling"]
    elif active or (not found and utcnow() - stored.record.last_sent_at < START_WINDOW):
        findings.orphans.append(Orphan(stored, None))
    else:
        findings.finished.append(stored)


def _last_sent_at(stored: StoredRecord) -> datetime:
    return stored.record.last_sent_at
