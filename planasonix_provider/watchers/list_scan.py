"""One look at the lists of the jobs, or of the backfills, for all who want to be told of what has ended."""

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
from planasonix_provider.waiting.formatting import format_time
from planasonix_provider.waiting.shared_client import SharedClient, for_each
from planasonix_provider.waiting.targets import Work
from planasonix_provider.watchers.cursor import Cursor
from planasonix_provider.watchers.event_filter import BACKFILL
from planasonix_provider.watchers.subscribers import Subscriber

log = logging.getLogger(__name__)

#: The states of what has not ended, by which lists are asked for it; in the order in which things go through them, for
#: what moves on between two lists is to be in one at least.
ACTIVE_STATES = ("queued", "running")
#: How often the lists of what has not ended are read, at most, while they change.
MAX_PASSES = 10
#: The page size shrinks by this in each pass: an item that falls between two pages of one pass does not in the next.
SHORTER_PAGES = 7
#: So many looks that fail, with none between that does not, are enough for one time.
MOST_FAILURES = 5
#: Fewer things than this may be in some order by chance.
FEWEST_IN_ORDER = 20
#: In how many looks in a row the API's clock must be behind until it counts as set back: the date of one answer may be
#: wrong.
LOOKS_UNTIL_SET_BACK = 3
#: How old a row that cannot be read is taken to be, so that it is looked at by itself every few minutes.
AGE_OF_UNREADABLE = timedelta(hours=8)
#: How far this machine's clock may be off, where the API's answers have no date.
WORST_CLOCK = timedelta(days=1)


@dataclass(frozen=True)
class ResourceKind:
    """Jobs, or backfills: how they are asked for.

    :param name: ``job`` or ``backfill``.
    :param get: asks for one.
    :param active: asks for those of a connection that are in a state.
    :param recent: asks for those of a connection that were created since, or for all.
    """

    name: str
    get: Callable[[str], Request[Any]]
    active: Callable[[str | None, str], Request[Page[Any]]]
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
    """Detects that the API's clock was set back; one for each list that is looked through again and again."""

    def __init__(self) -> None:
        self._last_look: datetime | None = None
        self._behind: list[datetime] = []

    def set_back_to(self, began: datetime, horizon: datetime, since: datetime) -> datetime | None:
        """Compare the API's clock with the times that the list was read for before.

        :param began: when the look began, by this machine's clock.
        :param horizon: when the look began, by the API's clock.
        :param since: the latest creation time from which a watcher reads the list.
        :return: the earliest time that the clock may have been set back to, once it is certain.
        """
        # It may have been set back right after the look before this one.
        between = began - (self._last_look or began)
        self._last_look = began
        if since <= horizon:
            self._behind = []
            return None
        self._behind.append(horizon - between)
        if len(self._behind) < LOOKS_UNTIL_SET_BACK:
            return None
        earliest, self._behind = min(self._behind), []
        return earliest


class ListScan:
    """One look at the lists of one kind.

    :param channel: asks the API.
    :param kind: what it is for.
    :param listeners: for whom it is; there is one at least.
    :param now: tells the time of this machine, in UTC.
    :param clock: remembers the API's clock from look to look.
    """

    def __init__(
        self,
        channel: SharedClient,
        kind: ResourceKind,
        listeners: Sequence[Subscriber],
        now: Callable[[], datetime],
        clock: ApiClock,
    ) -> None:
        self._channel = channel
        self.kind = kind
        self._listeners = listeners
        self._now = now
        self._began = now()
        self._clock = clock
        self._skew: timedelta | None = None
        self._was_set_back = False
        connections = {listener.wanted.connection_id for listener in listeners}
        self._connection_id = connections.pop() if len(connections) == 1 else None
        #: When what the lists have shown was created, by its id.
        self.known: dict[str, datetime | None] = {}
        self._newest: datetime | None = None
        #: Whether somebody begins with this look, and what it begins with is known by now.
        self.has_newcomers = False
        self._failures = 0
        self._unreadable: set[str] = set()
        #: Why something alone could not be had.
        self.failure: PlanasonixError | None = None

    @property
    def horizon(self) -> datetime | None:
        """When the look began, by the API's clock, as far as its answers tell."""
        return self._newest if self._skew is None else self._began + self._skew

    async def pages(self) -> AsyncGenerator[list[Work]]:
        """Look through the lists.

        :return: what they show, page by page.
        """
        if new := [listener for listener in self._listeners if self._lacks_active(listener)]:
            self._let_begin(new, list((await self._read_active()).values()))
            self.has_newcomers = True
        since = min(self._ledger(listener).watermark for listener in self._listeners)
        async for page in self._pages(self.kind.recent(self._connection_id, since)):
            self.known |= {work.id: work.created_at for work in page}
            self._newest = max([created for work in page if (created := work.created_at)], default=self._newest)
            yield page
            if _is_newest_first(page) and page[-1].created_at and page[-1].created_at < since:
                # All that follows is older.
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
                count, query = 0, {**request.query, "limit": PAGE_SIZE - SHORTER_PAGES * number}
                async for page in self._pages(replace(request, query=query)):
                    count += 1
                    found = {work.id: work for work in page if not work.is_over and work.id not in active}
                    # Jobs that were created since are reported anyway.
                    has_found |= any(not work.created_at or work.created_at < self._begins for work in found.values())
                    active |= found
                has_several_pages |= count > 1
            if not has_several_pages or (number and not has_found):
                return active
        log.warning(
            "The lists of what is %s in Planasonix have changed so fast that a new watcher has read them %d times. If "
            "a %s that ran by then is missing, its end is not told.",
            " or ".join(ACTIVE_STATES),
            MAX_PASSES,
            self.kind.name,
        )
        return active

    @property
    def _begins(self) -> datetime:
        """From when on a new watcher is told of all that is created, by the API's clock."""
        skew = self._skew
        # Its dates have whole seconds. Without one, all that has ended by now is past, whenever that is.
        return self._began + (WORST_CLOCK if skew is None else timedelta(seconds=skew.total_seconds() // 1))

    def _let_begin(self, listeners: Iterable[Subscriber], active: list[Work]) -> None:
        skew, begins = self._skew, self._begins
        since = self._began - WORST_CLOCK if skew is None else min(begins, self._began)
        for listener in listeners:
            wanted = [work for work in active if listener.wanted.could_match(work)]
            if ledger := listener.ledgers.get(self.kind.name):
                for work in wanted:
                    ledger.add_pending(work, begins)
                ledger.needs_active = False
            else:
                listener.ledgers[self.kind.name] = ledger = Cursor.new(begins, since, wanted)
                ledger.rewind(since)

    def _lacks_active(self, listener: Subscriber) -> bool:
        ledger = listener.ledgers.get(self.kind.name)
        return ledger is None or ledger.needs_active

    def check_the_clock(self) -> None:
        """Begin earlier if the API's clock was set back by more than lists are late."""
        horizon = self.horizon
        if self._skew is None or horizon is None:
            return
        ledgers = [self._ledger(listener) for listener in self._listeners]
        set_back_to = self._clock.set_back_to(self._began, horizon, max(ledger.watermark for ledger in ledgers))
        if set_back_to is not None:
            log.info(
                "The clock of Planasonix was set back, to %s. The watchers read again what has ended since.",
                format_time(set_back_to),
            )
            self._was_set_back = True
            for ledger in ledgers:
                ledger.rewind(set_back_to)

    def classify(self, work: Work) -> list[Subscriber]:
        """Take down what was seen.

        :param work: what was seen.
        :return: whom it concerns that it has ended, if it has; what nobody wants to be told of is done with.
        """
        hearers = []
        for listener in self._listeners:
            ledger = self._ledger(listener)
            if not listener.wanted.could_match(work):
                # The list it was in may have shown less of it.
                ledger.forget(work.id)
            elif not ledger.is_news(work):
                if work.created_at is None:
                    # Nothing but its mark tells that it is none, and that is to stay for as long as a list shows it.
                    self.mark_reported(listener, work)
            elif not work.is_over:
                self.add_pending(listener, work)
            elif ledger.is_past(work) or not listener.wanted.has_event(work):
                self.mark_reported(listener, work)
            else:
                hearers.append(listener)
        return hearers

    def add_pending(self, listener: Subscriber, work: Work) -> None:
        """Take down what a listener is to be told of later.

        :param listener: who.
        :param work: what has not ended yet, as far as anybody knows.
        """
        self._ledger(listener).add_pending(work, self.horizon or self._began)

    def mark_reported(self, listener: Subscriber, work: Work) -> None:
        """Take down what a listener is told of, or does not want.

        :param listener: who.
        :param work: what has ended.
        """
        self._ledger(listener).mark_reported(work, self.horizon or self._began)

    def forget(self, work_id: str) -> None:
        """Let nobody expect something any more.

        :param work_id: its id.
        """
        for listener in self._listeners:
            self._ledger(listener).forget(work_id)

    def unlisted(self) -> dict[str, datetime]:
        """Return expected work that no list has shown, and work whose row in a list cannot be read.

        :return: when it was created, by its id.
        """
        ledgers = [self._ledger(listener) for listener in self._listeners]
        expected = {
            work_id: created
            for ledger in ledgers
            for work_id, created in ledger.pending.items()
            if work_id not in self.known
        }
        unreadable = sorted(
            work_id
            for work_id in self._unreadable - self.known.keys() - expected.keys()
            if not all(ledger.has_told(work_id) for ledger in ledgers)
        )
        return expected | dict.fromkeys(unreadable[:PAGE_SIZE], self._began - AGE_OF_UNREADABLE)

    def is_urgent(self, work_id: str) -> bool:
        """Return whether to ask for a row now: once a new watcher has begun, nothing shows that the row is past."""
        return work_id in self._unreadable and any(self._ledger(listener).baseline for listener in self._listeners)

    def is_failure(self, work_id: str, answer: object) -> bool:
        """Return whether an answer is an error that further requests may meet, too."""
        if isinstance(answer, PlanasonixUnreadableError):
            # Many jobs may be unreadable both in the list and by themselves. They must not stop the other looks.
            return work_id not in self._unreadable
        return isinstance(answer, PlanasonixError) and not isinstance(answer, PlanasonixNotFoundError)

    @property
    def seems_in_vain(self) -> bool:
        """Whether so many looks have failed, one after the other, that none can be expected to succeed."""
        return self._failures >= MOST_FAILURES

    async def get_each(self, work_ids: Iterable[str]) -> dict[str, Work | PlanasonixError]:
        """Look at each of some things, once; no further where it seems that none can be had.

        :param work_ids: their ids.
        :return: what they are, or why that is not known; those that were not looked at are left out.
        """
        answers: dict[str, Work | PlanasonixError] = {}

        async def get(work_id: str) -> None:
            if self.seems_in_vain:
                return
            try:
                answers[work_id] = await self._channel.send(self.kind.get(work_id), retry=False)
                self._failures = 0
            except PlanasonixError as error:
                self._failures += self.is_failure(work_id, error)
                answers[work_id] = error

        await for_each(work_ids, get)
        return answers

    def advance(self) -> None:
        """Let all ledgers move on: the lists were looked through to their end."""
        if self._was_set_back:
            # But not from as far back as the next look begins.
            return
        listed = {work_id: created for work_id, created in self.known.items() if created}
        for listener in self._listeners:
            ledger = self._ledger(listener)
            ledger.advance(self._not_ahead(self.horizon) or ledger.watermark, listed)

    def _not_ahead(self, horizon: datetime | None) -> datetime | None:
        """Trust no date of an answer that lies in the future: it may be a proxy's, and jobs are dated by the API."""
        return horizon and min(horizon, max(self._began, self._newest or self._began))

    def _ledger(self, listener: Subscriber) -> Cursor:
        return listener.ledgers[self.kind.name]

    async def _pages(self, request: Request[Page[Any]]) -> AsyncGenerator[list[Work]]:
        """Ask for a list. In an outage one request tells; what has begun is worth more."""
        cursors = Paginator(request)
        page = await self._channel.send(cursors.request, retry=False)
        self._note_the_clock()
        yield self._rows(page)
        while cursors.advance(page):
            page = await self._channel.send(cursors.request)
            self._note_the_clock()
            yield self._rows(page)

    def _rows(self, page: Page[Any]) -> list[Work]:
        self._unreadable |= {row.id for row in page.unreadable if row.id}
        return page.data

    def _note_the_clock(self) -> None:
        # If two responses of one scan differ, the later date hides fewer new jobs, and repeats none.
        if (skew := self._channel.skew) is not None:
            self._skew = skew if self._skew is None else max(skew, self._skew)


def _is_newest_first(page: Sequence[Work]) -> bool:
    """Say whether a list is in this order, which the reference does not promise; two of one moment do not tell."""
    created = [work.created_at for work in page]
    if not all(created) or len(created) < FEWEST_IN_ORDER:
        return False
    return created[0] > created[-1] and created == sorted(created, reverse=True)  # type: ignore[operator, type-var]
