"""One scan of the lists of jobs, or of backfills, for all watchers of an Airflow connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError, PlanasonixUnreadableError
from planasonix_provider.api.models import Page
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.api.states import ACTIVE_STATES
from planasonix_provider.waiting.formatting import format_time
from planasonix_provider.waiting.shared_client import SharedClient, for_each
from planasonix_provider.waiting.targets import Work
from planasonix_provider.watchers.cursor import Cursor
from planasonix_provider.watchers.event_filter import BACKFILL
from planasonix_provider.watchers.subscribers import Subscriber

log = logging.getLogger(__name__)

#: How often a new watcher reads the lists of active work, at most, while they change.
MAX_PASSES = 10
#: The page size shrinks by this in each pass: an item that falls between two pages of one pass does not in the next.
PAGE_SIZE_STEP = 7
#: A scan ends after this many consecutive requests for single items have failed.
MAX_CONSECUTIVE_FAILURES = 5
#: Fewer rows may be sorted by chance.
MIN_ROWS_IN_ORDER = 20
#: In how many consecutive scans the API's clock must be behind until it counts as set back: the date of one response
#: may be wrong.
SCANS_UNTIL_SET_BACK = 3
#: The assumed age of work whose row cannot be read: old enough that it is polled every few minutes only.
ASSUMED_AGE_OF_UNREADABLE = timedelta(hours=8)
#: How far this machine's clock may be off if the API's responses have no date.
MAX_CLOCK_ERROR = timedelta(days=1)


@dataclass(frozen=True)
class ResourceKind:
    """The requests for jobs, or for backfills."""

    name: str
    #: Requests one by its id.
    get: Callable[[str], Request[Any]]
    #: Lists those of a connection in one state.
    active: Callable[[str | None, str], Request[Page[Any]]]
    #: Lists those of a connection since a time of creation, which a list of backfills ignores.
    recent: Callable[[str | None, datetime], Request[Page[Any]]]


# Unknown fields are dropped, because no event contains them.
JOBS = ResourceKind(
    "job",
    lambda job_id: routes.get_job(job_id).without(),
    lambda connection_id, status: routes.list_jobs(connection_id=connection_id, status=status).without(),
    lambda connection_id, since: routes.list_jobs(connection_id=connection_id, since=since).without(),
)
BACKFILLS = ResourceKind(
    BACKFILL,
    lambda backfill_id: routes.get_backfill(backfill_id).without("job_ids"),
    lambda connection_id, status: routes.list_backfills(connection_id=connection_id, status=status).without("job_ids"),
    lambda connection_id, since: routes.list_backfills(connection_id=connection_id).without("job_ids"),
)


class ApiClock:
    """Detects that the API's clock was set back; one instance per kind, for all scans."""

    def __init__(self) -> None:
        self._last_scan: datetime | None = None
        self._candidates: list[datetime] = []

    def set_back_to(self, local_start: datetime, started_at: datetime, watermark: datetime) -> datetime | None:
        """Return the earliest time that the clock may have been set back to, once it is certain.

        The scan started at ``local_start`` by this machine's clock, and at ``started_at`` by the API's.
        """
        # The clock may have been set back right after the previous scan.
        since_last_scan = local_start - (self._last_scan or local_start)
        self._last_scan = local_start
        if watermark <= started_at:
            self._candidates = []
            return None
        self._candidates.append(started_at - since_last_scan)
        if len(self._candidates) < SCANS_UNTIL_SET_BACK:
            return None
        earliest, self._candidates = min(self._candidates), []
        return earliest


class ListScan:
    """Scans the lists of one kind once, for at least one subscriber."""

    def __init__(
        self,
        client: SharedClient,
        kind: ResourceKind,
        subscribers: Sequence[Subscriber],
        now: Callable[[], datetime],
        clock: ApiClock,
    ) -> None:
        self._client = client
        self.kind = kind
        self._subscribers = subscribers
        self._local_start = now()
        self._clock = clock
        self._skew: timedelta | None = None
        self._was_set_back = False
        connections = {subscriber.event_filter.connection_id for subscriber in subscribers}
        self._connection_id = connections.pop() if len(connections) == 1 else None
        #: Creation times of what the lists contained, by id.
        self.listed: dict[str, datetime | None] = {}
        self._newest: datetime | None = None
        #: Whether cursors of new subscribers were created, which should be saved before anything is reported.
        self.has_new_subscribers = False
        self._failures = 0
        self._unreadable: set[str] = set()
        #: Why one of the items could not be fetched.
        self.failure: PlanasonixError | None = None

    @property
    def started_at(self) -> datetime | None:
        """Return when the scan started, by the API's clock, as far as its responses tell."""
        return self._newest if self._skew is None else self._local_start + self._skew

    async def pages(self) -> AsyncGenerator[list[Work]]:
        """Yield the pages of the lists."""
        if new := [subscriber for subscriber in self._subscribers if self._needs_active(subscriber)]:
            self._start_cursors(new, list((await self._read_active()).values()))
            self.has_new_subscribers = True
        since = min(self._cursor(subscriber).watermark for subscriber in self._subscribers)
        async for page in self._pages(self.kind.recent(self._connection_id, since)):
            self.listed |= {work.id: work.created_at for work in page}
            self._newest = max([created for work in page if (created := work.created_at)], default=self._newest)
            yield page
            if _is_newest_first(page) and page[-1].created_at and page[-1].created_at < since:
                # All further pages are older.
                return

    async def _read_active(self) -> dict[str, Work]:
        """Read the lists of active work, again and again until a pass finds nothing new.

        Jobs leave these lists while their pages are read. If a cursor is an offset, the later items move up, and the
        next page skips some.
        """
        active: dict[str, Work] = {}
        for number in range(MAX_PASSES):
            has_several_pages = has_found = False
            for status in ACTIVE_STATES:
                request = self.kind.active(self._connection_id, status)
                count, query = 0, {**request.query, "limit": PAGE_SIZE - PAGE_SIZE_STEP * number}
                async for page in self._pages(replace(request, query=query)):
                    count += 1
                    found = {work.id: work for work in page if not work.is_over and work.id not in active}
                    # Jobs that were created since are reported anyway.
                    has_found |= any(not work.created_at or work.created_at < self._baseline for work in found.values())
                    active |= found
                has_several_pages |= count > 1
            if not has_several_pages or (number and not has_found):
                return active
        log.warning(
            f"The lists of {' or '.join(ACTIVE_STATES)} {self.kind.name}s in Planasonix have changed so fast that a "
            f"new watcher has read them {MAX_PASSES} times. If a {self.kind.name} that ran by then is missing, its end "
            "is not reported."
        )
        return active

    @property
    def _baseline(self) -> datetime:
        """Return from when on a new watcher reports all work that is created, by the API's clock."""
        if self._skew is None:
            # Without the API's clock, all work that has ended by now counts as past.
            return self._local_start + MAX_CLOCK_ERROR
        # Creation times have whole seconds.
        return self._local_start + timedelta(seconds=self._skew.total_seconds() // 1)

    def _start_cursors(self, subscribers: Iterable[Subscriber], active: list[Work]) -> None:
        baseline = self._baseline
        since = self._local_start - MAX_CLOCK_ERROR if self._skew is None else min(baseline, self._local_start)
        for subscriber in subscribers:
            matching = [work for work in active if subscriber.event_filter.could_match(work)]
            if cursor := subscriber.cursors.get(self.kind.name):
                for work in matching:
                    cursor.add_pending(work, baseline)
                cursor.needs_active = False
            else:
                subscriber.cursors[self.kind.name] = cursor = Cursor.new(baseline, since, matching)
                cursor.rewind(since)

    def _needs_active(self, subscriber: Subscriber) -> bool:
        cursor = subscriber.cursors.get(self.kind.name)
        return cursor is None or cursor.needs_active

    def check_clock(self) -> None:
        """Rewind the cursors if the API's clock was set back by more than ``MAX_LISTING_DELAY``."""
        started_at = self.started_at
        if self._skew is None or started_at is None:
            return
        cursors = [self._cursor(subscriber) for subscriber in self._subscribers]
        watermark = max(cursor.watermark for cursor in cursors)
        set_back_to = self._clock.set_back_to(self._local_start, started_at, watermark)
        if set_back_to is not None:
            log.info(
                f"The clock of Planasonix was set back, to {format_time(set_back_to)}. The watchers read again what "
                "has ended since."
            )
            self._was_set_back = True
            for cursor in cursors:
                cursor.rewind(set_back_to)

    def classify(self, work: Work) -> list[Subscriber]:
        """Record work in the cursors.

        :return: the subscribers that may have to report it, if it has ended; its end is marked as reported for those
            whose filter rejects it.
        """
        candidates = []
        for subscriber in self._subscribers:
            cursor = self._cursor(subscriber)
            if not subscriber.event_filter.could_match(work):
                # An earlier list may have shown fewer fields.
                cursor.discard(work.id)
            elif not cursor.needs_report(work):
                if work.created_at is None:
                    # Only its mark shows that it was reported, so renew the mark while lists contain the work.
                    self.mark_reported(subscriber, work)
            elif not work.is_over:
                self.add_pending(subscriber, work)
            elif cursor.ended_before_baseline(work) or not subscriber.event_filter.has_event(work):
                self.mark_reported(subscriber, work)
            else:
                candidates.append(subscriber)
        return candidates

    def add_pending(self, subscriber: Subscriber, work: Work) -> None:
        """Record work that the subscriber must report later."""
        self._cursor(subscriber).add_pending(work, self.started_at or self._local_start)

    def mark_reported(self, subscriber: Subscriber, work: Work) -> None:
        """Record finished work that the subscriber has reported, or rejects."""
        self._cursor(subscriber).mark_reported(work, self.started_at or self._local_start)

    def discard(self, work_id: str) -> None:
        """Remove pending work that no longer exists."""
        for subscriber in self._subscribers:
            self._cursor(subscriber).discard(work_id)

    def unlisted(self) -> dict[str, datetime]:
        """Return creation times, by id, of pending work in no list, and of work whose row cannot be read."""
        cursors = [self._cursor(subscriber) for subscriber in self._subscribers]
        pending = {
            work_id: created
            for cursor in cursors
            for work_id, created in cursor.pending.items()
            if work_id not in self.listed
        }
        unreadable = sorted(
            work_id
            for work_id in self._unreadable - self.listed.keys() - pending.keys()
            if not all(cursor.is_reported(work_id) for cursor in cursors)
        )
        return pending | dict.fromkeys(unreadable[:PAGE_SIZE], self._local_start - ASSUMED_AGE_OF_UNREADABLE)

    def is_due_now(self, work_id: str) -> bool:
        """Return whether to request an unreadable row now: later, nothing shows that it ended before the baseline."""
        return work_id in self._unreadable and any(
            self._cursor(subscriber).baseline for subscriber in self._subscribers
        )

    def is_failure(self, work_id: str, response: object) -> bool:
        """Return whether a response is an error that further requests may meet, too."""
        if isinstance(response, PlanasonixUnreadableError):
            # Many jobs may be unreadable both in the list and by themselves. They must not stop the scan.
            return work_id not in self._unreadable
        return isinstance(response, PlanasonixError) and not isinstance(response, PlanasonixNotFoundError)

    @property
    def is_failing(self) -> bool:
        """Return whether so many consecutive requests have failed that further ones are pointless."""
        return self._failures >= MAX_CONSECUTIVE_FAILURES

    async def get_each(self, work_ids: Iterable[str]) -> dict[str, Work | PlanasonixError]:
        """Return each item, or its error, by id; items that were not requested because of failures are missing."""
        responses: dict[str, Work | PlanasonixError] = {}

        async def get(work_id: str) -> None:
            if self.is_failing:
                return
            try:
                responses[work_id] = await self._client.send(self.kind.get(work_id), retry=False)
                self._failures = 0
            except PlanasonixError as error:
                self._failures += self.is_failure(work_id, error)
                responses[work_id] = error

        await for_each(work_ids, get)
        return responses

    def advance(self) -> None:
        """Advance all cursors after a complete scan."""
        if self._was_set_back:
            # The next scan must start at the rewound watermarks.
            return
        listed = {work_id: created for work_id, created in self.listed.items() if created}
        for subscriber in self._subscribers:
            cursor = self._cursor(subscriber)
            cursor.advance(self._not_in_future(self.started_at) or cursor.watermark, listed)

    def _not_in_future(self, started_at: datetime | None) -> datetime | None:
        """Limit a date of a response that lies in the future: it may be a proxy's, and jobs are dated by the API."""
        return started_at and min(started_at, max(self._local_start, self._newest or self._local_start))

    def _cursor(self, subscriber: Subscriber) -> Cursor:
        return subscriber.cursors[self.kind.name]

    async def _pages(self, request: Request[Page[Any]]) -> AsyncGenerator[list[Work]]:
        """Yield the pages of a list. Only further pages are retried: in an outage, one request per scan is enough."""
        paginator = Paginator(request)
        has_next, retry = True, False
        while has_next:
            page = await self._client.send(paginator.request, retry=retry)
            if (skew := self._client.skew) is not None:
                # If two responses of one scan differ, the later date hides fewer new jobs, and repeats none.
                self._skew = skew if self._skew is None else max(skew, self._skew)
            self._unreadable |= {row.id for row in page.unreadable if row.id}
            yield page.data
            has_next, retry = paginator.advance(page), True


def _is_newest_first(page: Sequence[Work]) -> bool:
    """Return whether a page is sorted, which the reference does not promise; equal times prove no order."""
    created = [work.created_at for work in page]
    if not all(created) or len(created) < MIN_ROWS_IN_ORDER:
        return False
    return created[0] > created[-1] and created == sorted(created, reverse=True)  # type: ignore[operator, type-var]
