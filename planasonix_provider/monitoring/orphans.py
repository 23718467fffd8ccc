"""Finds and cancels orphans: jobs and backfills that run on although the tasks that have started them are over."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.clock import loop_time, utcnow
from planasonix_provider.hooks.connection_lookup import public_message
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.attempt_records import StoredRecord, delete_records, read_records, still_over
from planasonix_provider.waiting.attempt import AttemptRecord
from planasonix_provider.waiting.bulk_poll import MIN_BATCH, BulkPoll
from planasonix_provider.waiting.cancellation import cancel, through_outages
from planasonix_provider.waiting.cli_hints import cancel_command, list_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.loop_thread import run_in_loop_thread
from planasonix_provider.waiting.lost_start_search import CLOCK_SLACK, START_WINDOW, MatchCriteria, search
from planasonix_provider.waiting.outages import RETRY_INTERVAL_SECONDS, is_outage
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority, SharedClient, for_each
from planasonix_provider.waiting.targets import Work, target_of
from planasonix_provider.waiting.work_metrics import WorkMetrics

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: The maximum number of jobs and backfills that one listing requests one by one, per Airflow connection, after lists
#: have shown most of them. The others follow in the next listing.
MAX_SINGLE_REQUESTS = 200
#: The maximum number of searches for lost starts, each of which takes several requests.
MAX_SEARCHES = 10
#: How many orphans are cancelled between two checks of their tasks' states.
CANCEL_BATCH_SIZE = 25
#: How long a listing, and the cancel of an orphan, may take for each Airflow connection.
LIST_SECONDS, CANCEL_SECONDS = 120.0, 120.0
#: Work that the API no longer knows for this long is over. Before, the API or a list may lag behind.
MIN_AGE_OF_MISSING_WORK = timedelta(days=1)
_NO_ANSWER = "Planasonix does not answer in time."


@dataclass(frozen=True)
class Orphan:
    """A job or a backfill that runs on, although its task is over.

    :param stored: the record of the start, with the task's state.
    :param work: the job or the backfill; ``None`` if the start had no response, and it is unknown what it has started.
    """

    stored: StoredRecord
    work: Work | None

    @property
    def conn_id(self) -> str:
        """The Airflow connection."""
        return self.stored.record.planasonix_conn_id

    @property
    def dag_id(self) -> str:
        """The DAG of the task."""
        return self.stored.record.task_key.dag_id

    @property
    def connection_id(self) -> str:
        """Planasonix's connection."""
        return (self.work and self.work.connection_id) or self.stored.record.connection_id

    @property
    def kind(self) -> Literal["job", "backfill"]:
        """``job`` or ``backfill``."""
        return self.stored.record.kind

    @property
    def id(self) -> str | None:
        """The id of the job or the backfill, if it is known."""
        return self.work.id if self.work else None

    @property
    def status(self) -> str:
        """Its state in Planasonix, or ``unknown``."""
        return self.work.status if self.work else "unknown"

    @property
    def task_state(self) -> str | None:
        """The state of the task; ``None`` if the DAG run or the task is deleted."""
        return self.stored.task.state if self.stored.task else None

    @property
    def task_ended_at(self) -> datetime | None:
        """When the task ended, as far as Airflow knows."""
        return self.stored.task.ended_at if self.stored.task else None

    @property
    def started_at(self) -> datetime:
        """When the work was started."""
        return (self.work and self.work.created_at) or self.stored.record.last_sent_at

    @property
    def manual_command(self) -> str:
        """The command that cancels it, or that lists what it may be."""
        if self.work:
            return cancel_command(target_of(self.work), self.conn_id)
        return list_command(self.kind, self.connection_id, self.conn_id)


class ListingProblem(NamedTuple):
    """Why there may be more orphans, in a sentence; ``conn_id`` is ``None`` if that concerns no single connection."""

    conn_id: str | None
    text: str


@dataclass(frozen=True)
class OrphanListing:
    """The orphans that were found, and why there may be more."""

    orphans: Sequence[Orphan]
    all_problems: Sequence[ListingProblem] = ()

    @property
    def problems(self) -> list[str]:
        """The texts of the problems."""
        return [problem.text for problem in self.all_problems]


@dataclass(frozen=True)
class CancelResult:
    """The result of cancelling an orphan.

    :param orphan: with the state after the cancel.
    :param outcome: ``cancelled``; ``kept``, because its task runs again or its record has changed; ``ended``, because
        the work was over before; ``unknown``, because it is unknown what the start has made; or ``failed``.
    :param error: why it was not cancelled.
    """

    orphan: Orphan
    outcome: Literal["cancelled", "kept", "ended", "unknown", "failed"]
    error: str | None = None

    @property
    def message(self) -> str:
        """The outcome in words, with the command for a person if there is something left to do."""
        orphan = self.orphan
        key = orphan.stored.record.task_key
        mapped = f", map index {key.map_index}" if key.map_index >= 0 else ""
        task = f"task {key.task_id} of DAG {key.dag_id}, run {key.run_id}{mapped}"
        if self.outcome == "unknown":
            return (
                f"It is unknown whether {task} has started a {orphan.kind} on connection {orphan.connection_id}. Check "
                f"whether one runs there, and cancel it: {orphan.manual_command}"
            )
        name = f"{capitalize(orphan.kind)} {orphan.id} of {task}"
        if self.outcome == "kept":
            return f"{name} was not cancelled, because its task runs again, or its record has changed."
        if self.outcome == "ended":
            return f"{name} was not cancelled, because it had ended: it is {orphan.status}."
        if self.outcome == "failed":
            return f"{name} could not be cancelled and may still run: {self.error} To end it: {orphan.manual_command}"
        return f"{name} was asked to cancel: it is {orphan.status}."


def list_orphans(
    conn_id: str | None = None, *, older_than: timedelta = timedelta(0), max_seconds: float | None = None
) -> OrphanListing:
    """List the orphans, and delete the records of work that is over. Blocks, and needs Airflow's database.

    :param conn_id: only of this Airflow connection; default: of all.
    :param older_than: only those whose task ended this long ago; default: all.
    :param max_seconds: how long each Airflow connection may take. All are asked at the same time.
    """
    return run_in_loop_thread(partial(find_orphans, conn_id, older_than=older_than, max_seconds=max_seconds))


def cancel_orphans(orphans: Sequence[Orphan], *, max_seconds: float | None = None) -> list[CancelResult]:
    """Cancel orphans whose tasks are still over. Blocks, and needs Airflow's database.

    :param max_seconds: how long an outage may last, and how long to cancel the jobs that a backfill creates meanwhile.
    """
    return run_in_loop_thread(partial(cancel_found, orphans, max_seconds=max_seconds))


async def find_orphans(
    conn_id: str | None = None,
    *,
    older_than: timedelta = timedelta(0),
    max_seconds: float | None = None,
) -> OrphanListing:
    """Do the same as :func:`list_orphans` without blocking."""
    listing = await asyncio.to_thread(read_records)
    over = [
        stored
        for stored in listing.records
        if stored.is_task_over and conn_id in (None, stored.record.planasonix_conn_id)
    ]
    # Nothing is ever cancelled because of the others.
    await asyncio.to_thread(delete_records, [stored for stored in over if not stored.record.may_be_orphaned])
    ended_before = utcnow() - older_than
    candidates = [stored for stored in over if stored.record.may_be_orphaned and stored.task_ended_at <= ended_before]
    found = await examine(without_awaited(candidates, listing.records), max_seconds=max_seconds)
    unread = [ListingProblem(None, listing.problem)] if listing.problem else []
    return OrphanListing(found.orphans, [*unread, *found.all_problems])


def without_awaited(candidates: Sequence[StoredRecord], records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the records whose work no other task waits for: ``on_conflict="attach"`` waits for that of others."""
    awaited = {stored.record.work_key for stored in records if stored.record.id and not stored.is_task_over}
    return [stored for stored in candidates if stored.record.work_key not in awaited]


async def examine(records: Sequence[StoredRecord], *, max_seconds: float | None = None) -> OrphanListing:
    """Return the orphans among the work of tasks that are over, and delete the records of work that is over."""
    seconds = LIST_SECONDS if max_seconds is None else max_seconds

    async def look(client: SharedClient, some: Sequence[StoredRecord]) -> _Findings:
        findings = _Findings()
        try:
            async with asyncio.timeout(seconds):
                await _look(through_outages(partial(client.send, retry=False), seconds), some, findings)
        except TimeoutError:
            findings.errors.append(_NO_ANSWER)
        except PlanasonixError as error:
            findings.errors.append(public_message(error))
        return findings

    orphans: list[Orphan] = []
    problems: list[ListingProblem] = []
    for some, findings in await _for_each_connection(records, lambda stored: stored.record, look):
        name = some[0].record.planasonix_conn_id
        if isinstance(findings, str):
            findings = _Findings(errors=[findings])
        await asyncio.to_thread(delete_records, findings.finished)
        orphans += findings.orphans
        problems += [ListingProblem(name, text) for text in findings.problems(name)]
    return OrphanListing(sorted(orphans, key=lambda orphan: orphan.started_at), problems)


async def cancel_found(orphans: Sequence[Orphan], *, max_seconds: float | None = None) -> list[CancelResult]:
    """Do the same as :func:`cancel_orphans` without blocking."""

    async def cancel_some(client: SharedClient, some: Sequence[Orphan]) -> list[CancelResult]:
        send = partial(client.send, priority=RequestPriority.URGENT, retry=False)
        return await _Canceller(send, loop_time() + (CANCEL_SECONDS if max_seconds is None else max_seconds)).cancel(
            some
        )

    results: list[CancelResult] = []
    for some, result in await _for_each_connection(orphans, lambda orphan: orphan.stored.record, cancel_some):
        results += [CancelResult(orphan, "failed", result) for orphan in some] if isinstance(result, str) else result
    return results


async def _for_each_connection(
    items: Sequence[T],
    record_of: Callable[[T], AttemptRecord],
    action: Callable[[SharedClient, Sequence[T]], Awaitable[R]],
) -> list[tuple[Sequence[T], R | str]]:
    """Call an action for the items of each Airflow connection. Return its result, or the message of its error."""
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[record_of(item).planasonix_conn_id].append(item)

    async def act(conn_id: str, some: Sequence[T]) -> tuple[Sequence[T], R | str]:
        try:
            async with SharedClient(PlanasonixHook(conn_id).async_client) as client:
                return some, await action(client, some)
        except PlanasonixError as error:
            return some, public_message(error)
        except TimeoutError:
            return some, _NO_ANSWER
        except Exception as error:
            # Airflow's database may be away. That must not hide what the other connections have done.
            log.warning("The orphaned jobs of Airflow connection %r cannot be handled.", conn_id, exc_info=True)
            return some, f"{type(error).__name__}, see the log."

    return await asyncio.gather(*(act(conn_id, some) for conn_id, some in groups.items()))


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


class _Canceller:
    """Cancels orphans of one Airflow connection. After ``give_up``, an outage is not tolerated any more."""

    def __init__(self, send: AsyncSend, give_up: float) -> None:
        self._send = send
        self._give_up = give_up
        self._outage: str | None = None

    async def cancel(self, orphans: Sequence[Orphan]) -> list[CancelResult]:
        """Cancel orphans, in batches, whose tasks are still over."""
        results: list[CancelResult] = []
        for start in range(0, len(orphans), CANCEL_BATCH_SIZE):
            batch = orphans[start : start + CANCEL_BATCH_SIZE]
            over = {stored.row_id for stored in await asyncio.to_thread(still_over, [one.stored for one in batch])}
            results += [CancelResult(one, "kept") for one in batch if one.stored.row_id not in over]
            results += await for_each([one for one in batch if one.stored.row_id in over], self._cancel_one)
        return results

    async def _cancel_one(self, orphan: Orphan) -> CancelResult:
        if orphan.work is None:
            return CancelResult(orphan, "unknown", "It is unknown whether it has started anything.")
        if self._outage:
            return CancelResult(orphan, "failed", self._outage)
        job_ids = (orphan.work.job_ids or ()) if isinstance(orphan.work, Backfill) else ()
        left = max(self._give_up - loop_time(), 0)
        try:
            work = await cancel(self._send, target_of(orphan.work), job_ids, max_seconds=left)
        except PlanasonixError as error:
            if is_outage(error) and loop_time() >= self._give_up - RETRY_INTERVAL_SECONDS:
                self._outage = error.message
            return CancelResult(orphan, "failed", error.message)
        # Its task is over, so no task counts its end.
        WorkMetrics(orphan.conn_id, "operator", orphan.connection_id).count_cancel(work)
        cancelled = replace(orphan, work=work)
        if work.is_over:
            await asyncio.to_thread(delete_records, [orphan.stored])
            if isinstance(work, Job) and work.status != "cancelled":
                return CancelResult(cancelled, "ended")
        elif isinstance(work, Backfill):
            return CancelResult(cancelled, "failed", f"Its jobs so far were asked to cancel, but it is {work.status}.")
        return CancelResult(cancelled, "cancelled")


def _last_sent_at(stored: StoredRecord) -> datetime:
    return stored.record.last_sent_at
