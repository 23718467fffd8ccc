"""Finds out which work has ended: one scan of the lists serves all watchers of an Airflow connection.

Lists can be bounded by creation time, but not by end time. Their order is undocumented, and they may show new work
late. So each watcher has a :class:`~planasonix_provider.watchers.cursor.Cursor`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider import metrics
from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.clock import loop_time, utcnow
from planasonix_provider.waiting.formatting import capitalize, format_duration
from planasonix_provider.waiting.outages import is_outage, pause_after
from planasonix_provider.waiting.shared_client import SharedClient
from planasonix_provider.waiting.targets import Work
from planasonix_provider.waiting.work_metrics import end_of
from planasonix_provider.watchers.event_filter import BACKFILL, event_of, event_payload, started_by_an_asset
from planasonix_provider.watchers.list_scan import BACKFILLS, JOBS, ApiClock, ListScan
from planasonix_provider.watchers.subscribers import Subscriber, SubscriberRegistry

log = logging.getLogger(__name__)

#: The warning if the API has shown no metadata, and the filter depends on it.
NO_METADATA = (
    "Planasonix has shown no metadata so far, so the filter metadata matches nothing, and ignore_own cannot tell which "
    "jobs operators have started. To start no endless loop, ignore_own skips each job that was created after this "
    "watcher's first event, until Planasonix shows the metadata of any job. If it never does, remove ignore_own, and "
    "keep the DAG from its own jobs with pipeline_id or types."
)
#: The warning about each job that is skipped for that reason.
SKIPPED_AS_POSSIBLY_OWN = (
    "%s has ended (%s), and starts no DAG: Planasonix shows no metadata, so ignore_own cannot tell whether an operator "
    "has started it."
)
#: The warning, once per DAG, about a sync in a run that an asset has started.
POSSIBLE_LOOP = (
    "A sync of the DAG {dag_id} has ended, in a run that an asset has started. If it is the asset that this watcher "
    "feeds, the DAG starts itself again and again: ignore_own={dag_id!r} ends that."
)
#: Minimum seconds between two scans, however many watchers start one by one.
MIN_SCAN_INTERVAL_SECONDS = 1.0
#: The same after an error that a person has to fix, as a missing Airflow connection or a 403.
RETRY_AFTER_REFUSAL_SECONDS = 60.0
#: Seconds between two warnings of one outage.
OUTAGE_LOG_INTERVAL_SECONDS = 600.0
#: Seconds between two scans of the backfills while the list of jobs contains no new job of a backfill.
MAX_BACKFILL_INTERVAL_SECONDS = 300.0
#: Work that no list shows is polled by itself: every 1 % of its age, but at least every 300 s.
POLL_AGE_FRACTION, MAX_POLL_INTERVAL_SECONDS = 0.01, 300.0
#: For how many seconds a known job may be answered with 404 until it is given up.
MAX_NOT_FOUND_SECONDS = 3600.0
#: How many jobs of backfills are remembered.
MAX_BACKFILL_JOBS = 50 * PAGE_SIZE


@dataclass(eq=False)
class CompletionBatch:
    """Work that has ended: one event payload per job or backfill, by subscriber.

    :param is_checkpoint: whether cursors may be saved: every event of an earlier batch is stored.
    :param is_scan_end: whether this is the last batch of a scan.
    """

    by_subscriber: dict[Subscriber, list[dict[str, Any]]] = field(default_factory=dict)
    is_checkpoint: bool = False
    is_scan_end: bool = False
    #: Set by the consumer once every subscriber has received the batch, and its events need not be repeated.
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)


class CompletionStream:
    """Scans the lists for the subscribers of a registry."""

    def __init__(
        self,
        client: SharedClient,
        registry: SubscriberRegistry,
        job_url: Callable[[str], str],
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._client = client
        self._registry = registry
        self._job_url = job_url
        self._now = now
        self._outage_log = _OutageLog()
        self._shows_metadata = False
        # When unlisted work is polled next, by kind and id, and since when it is not found.
        self._due: dict[str, dict[str, float]] = {}
        self._not_found_since: dict[str, float] = {}
        self._clocks = {kind.name: ApiClock() for kind in (JOBS, BACKFILLS)}
        self._backfill_jobs: set[tuple[str, str]] = set()
        self._backfills_due = 0.0

    async def batches(self) -> AsyncGenerator[CompletionBatch]:
        """Yield batches for ever, each one after the previous one was acknowledged. Raises nothing."""
        while True:
            await self._registry.wait_for_subscriber()
            started_at = loop_time()
            error: Exception | None = None
            subscribers = list(self._registry.subscribers)
            scan = self._scan_all(subscribers)
            try:
                async for batch in scan:
                    for item in (batch, CompletionBatch(is_checkpoint=True)):
                        yield item
                        await item.acknowledged.wait()
            except PlanasonixError as trouble:
                error = trouble
                self._outage_log.log_error(trouble)
            except Exception as bug:
                error = bug
                log.exception("A scan for finished work in Planasonix broke, and is tried again. Please report this.")
            else:
                self._outage_log.log_recovery()
            finally:
                await scan.aclose()
            yield (end := CompletionBatch(is_checkpoint=True, is_scan_end=True))
            await end.acknowledged.wait()
            await self._pause(subscribers, started_at, error)

    async def _pause(self, subscribers: Sequence[Subscriber], started_at: float, error: Exception | None) -> None:
        interval = min(subscriber.interval for subscriber in subscribers)
        if error and not (isinstance(error, PlanasonixError) and is_outage(error)):
            interval = max(interval, RETRY_AFTER_REFUSAL_SECONDS)
        passed = loop_time() - started_at
        left = max(pause_after(error, interval) - passed, self._client.retry_after_remaining, 0.0)
        minimum = min(left, max(0.0, MIN_SCAN_INTERVAL_SECONDS - passed))
        await asyncio.sleep(minimum)
        # A new subscriber ends the pause, but not the one after an error.
        if error:
            await asyncio.sleep(left - minimum)
        else:
            await self._registry.wait_for_new_subscriber(left - minimum)

    async def _scan_all(self, subscribers: Sequence[Subscriber]) -> AsyncGenerator[CompletionBatch]:
        failure = None
        for kind in (JOBS, BACKFILLS):
            interested = [subscriber for subscriber in subscribers if kind.name in subscriber.event_filter.kinds]
            if not interested or (kind is BACKFILLS and not self._has_backfills_due(interested)):
                continue
            scan = ListScan(self._client, kind, interested, self._now, self._clocks[kind.name])
            try:
                async for batch in self._scan(scan):
                    yield batch
            except PlanasonixError as error:
                # An outage concerns both kinds; a refusal may concern this list alone.
                if is_outage(error):
                    raise
                failure = failure or error
            failure = failure or scan.failure
        if failure:
            raise failure

    async def _scan(self, scan: ListScan) -> AsyncGenerator[CompletionBatch]:
        async for page in scan.pages():
            if scan.has_new_subscribers:
                scan.has_new_subscribers = False
                # A checkpoint follows, which saves the new cursors: work that ends from now on survives a kill.
                yield CompletionBatch()
            self._note_backfill_jobs(page)
            async for batch in self._report(scan, page):
                yield batch
        scan.check_clock()
        async for batch in self._poll_unlisted(scan):
            yield batch
        scan.advance()
        if scan.kind is BACKFILLS:
            self._backfills_due = loop_time() + MAX_BACKFILL_INTERVAL_SECONDS

    # --- Backfills, which cannot be listed by creation time ---

    def _note_backfill_jobs(self, page: Iterable[Work]) -> None:
        """Scan the backfills now if a job of one is new, or has changed its state."""
        jobs = {(job.id, job.status) for job in page if getattr(job, "type", None) == BACKFILL}
        if jobs - self._backfill_jobs:
            self._backfills_due = 0.0
        self._backfill_jobs |= jobs
        if len(self._backfill_jobs) > MAX_BACKFILL_JOBS:
            self._backfill_jobs = jobs

    def _has_backfills_due(self, subscribers: Sequence[Subscriber]) -> bool:
        cursors = [subscriber.cursors.get(BACKFILL) for subscriber in subscribers]
        # The list of jobs is scanned only for subscribers that watch jobs, too.
        sees_jobs = all("job" in subscriber.event_filter.kinds for subscriber in subscribers)
        return (
            not sees_jobs
            or loop_time() >= self._backfills_due
            or any(not cursor or cursor.pending for cursor in cursors)
        )

    # --- Reports ---

    async def _poll_unlisted(self, scan: ListScan) -> AsyncGenerator[CompletionBatch]:
        """Poll pending work that the lists did not contain, because it was created before they begin."""
        unlisted, now = scan.unlisted(), loop_time()
        before = self._due.get(scan.kind.name, {})
        dues = self._due[scan.kind.name] = {work_id: before.get(work_id, 0.0) for work_id in unlisted}
        due = [work_id for work_id, at in dues.items() if at <= now or scan.is_due_now(work_id)]
        for first in range(0, len(due), PAGE_SIZE):
            responses = await scan.get_each(due[first : first + PAGE_SIZE])
            for work_id, response in responses.items():
                age = max(0.0, (scan.started_at - unlisted[work_id]).total_seconds()) if scan.started_at else 0.0
                dues[work_id] = now + min(POLL_AGE_FRACTION * age, MAX_POLL_INTERVAL_SECONDS)
                if isinstance(response, PlanasonixNotFoundError):
                    self._handle_not_found(scan, work_id, response)
                else:
                    self._not_found_since.pop(work_id, None)
            found = [response for response in responses.values() if not isinstance(response, PlanasonixError)]
            async for batch in self._report(scan, found, details={work.id: work for work in found}):
                yield batch
            self._check_failures(scan, responses)

    def _handle_not_found(self, scan: ListScan, work_id: str, error: PlanasonixError) -> None:
        since = self._not_found_since.setdefault(work_id, loop_time())
        if loop_time() - since >= MAX_NOT_FOUND_SECONDS:
            del self._not_found_since[work_id]
            scan.discard(work_id)
            name, passed = capitalize(f"{scan.kind.name} {work_id}"), format_duration(MAX_NOT_FOUND_SECONDS)
            log.warning(f"{name} was not found for {passed}, so its end is not reported. {error}")

    async def _report(
        self, scan: ListScan, page: Iterable[Work], details: dict[str, Work] | None = None
    ) -> AsyncGenerator[CompletionBatch]:
        """Record a page in the cursors, and yield at most one batch with the work in it that has ended."""
        ended: dict[str, tuple[Work, list[Subscriber]]] = {}
        for work in page:
            if (candidates := scan.classify(work)) and work.is_over:
                ended[work.id] = (work, candidates)
        if not ended:
            return
        responses: dict[str, Any] = details or await scan.get_each(ended)
        self._shows_metadata |= any(getattr(work, "metadata", None) for work in responses.values())
        batch = CompletionBatch()
        for work_id, (listed, candidates) in ended.items():
            response = responses.get(work_id)
            # Not found: deleted since the list was made.
            detailed = listed if isinstance(response, PlanasonixNotFoundError) else response
            for subscriber in candidates:
                if detailed is None or isinstance(detailed, PlanasonixError) or not detailed.is_over:
                    # Another part of the API lags behind or does not answer: the next scan asks again.
                    scan.add_pending(subscriber, listed)
                    continue
                scan.mark_reported(subscriber, detailed)
                if self._matches(scan, subscriber, detailed):
                    subscriber.has_unsaved_events = True
                    self._record_lag(scan, detailed)
                    batch.by_subscriber.setdefault(subscriber, []).append(event_payload(detailed, self._job_url))
        if batch.by_subscriber:
            yield batch
        self._check_failures(scan, responses)

    def _record_lag(self, scan: ListScan, work: Work) -> None:
        if ended_at := end_of(work):
            lag = self._now() + (self._client.skew or timedelta()) - ended_at
            tags = {"conn_id": self._client.conn_id, "kind": scan.kind.name}
            metrics.WATCHER_LAG.record(lag.total_seconds(), tags)

    def _check_failures(self, scan: ListScan, responses: Mapping[str, Any]) -> None:
        """End the scan if all requests fail; the failure of single items must not stop the others."""
        failures = [response for work_id, response in responses.items() if scan.is_failure(work_id, response)]
        if scan.is_failing and failures:
            raise failures[0]
        scan.failure = scan.failure or next(iter(failures), None)

    def _matches(self, scan: ListScan, subscriber: Subscriber, work: Work) -> bool:
        event_filter = subscriber.event_filter
        self._shows_metadata |= subscriber.has_seen_metadata
        subscriber.has_seen_metadata = self._shows_metadata
        if event_filter.needs_metadata and not self._shows_metadata:
            subscriber.warn_once(NO_METADATA)
        if not event_filter.matches(work):
            return False
        if event_filter.ignore_own and not self._shows_metadata and self._may_be_response(scan, subscriber, work):
            subscriber.warn(SKIPPED_AS_POSSIBLY_OWN % (capitalize(f"{scan.kind.name} {work.id}"), event_of(work)))
            return False
        if dag_id := started_by_an_asset(work):
            subscriber.warn_once(POSSIBLE_LOOP.format(dag_id=dag_id))
        return True

    def _may_be_response(self, scan: ListScan, subscriber: Subscriber, work: Work) -> bool:
        """Return whether work is so new that a DAG may have started it in response to the subscriber's events."""
        if subscriber.responses_since is None:
            subscriber.responses_since = scan.started_at or self._now()
        return work.created_at is None or work.created_at > subscriber.responses_since


class _OutageLog:
    """Logs the beginning of an outage, a reminder every ten minutes, and its end."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._logged_at = 0.0

    def log_error(self, error: PlanasonixError) -> None:
        """Log the error of a scan, if it is time."""
        now = loop_time()
        if self._since is None:
            self._since = self._logged_at = now
            log.warning("The lists of Planasonix cannot be read yet, still trying; nothing is lost. %s", error)
        elif now - self._logged_at >= OUTAGE_LOG_INTERVAL_SECONDS:
            self._logged_at = now
            passed = format_duration(now - self._since)
            log.warning(f"The lists of Planasonix cannot be read for {passed} now, still trying. {error}")

    def log_recovery(self) -> None:
        """Log the end of the outage, if there was one."""
        if self._since is not None:
            log.info("Planasonix answers again, after %s.", format_duration(loop_time() - self._since))
        self._since = None
