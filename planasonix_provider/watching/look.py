"""One look at the lists of the jobs, or of the backfills, for all who want to be told of what has ended."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Page
from planasonix_provider.api.operation import Cursors
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.channel import Channel, for_each
from planasonix_provider.waiting.subjects import Work
from planasonix_provider.waiting.words import moment
from planasonix_provider.watching.ledger import Ledger
from planasonix_provider.watching.roster import Listener
from planasonix_provider.watching.wanted import BACKFILL

log = logging.getLogger(__name__)

#: The states of what has not ended, by which lists are asked for it; in the order in which things go through them, for
#: what moves on between two lists is to be in one at least.
ACTIVE = ("queued", "running")
#: So many looks that fail, with none between that does not, are enough for one time.
MOST_FAILURES = 5
#: Fewer things than this may be in some order by chance.
FEWEST_IN_ORDER = 20
#: How far this machine's clock may be off, where the API's answers have no date.
WORST_CLOCK = timedelta(days=1)


@dataclass(frozen=True)
class Kind:
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


JOBS = Kind(
    "job",
    routes.get_job,
    lambda connection_id, status: routes.list_jobs(connection_id=connection_id, status=status),
    lambda connection_id, since: routes.list_jobs(connection_id=connection_id, since=since),
)
BACKFILLS = Kind(
    BACKFILL,
    routes.get_backfill,
    lambda connection_id, status: routes.list_backfills(connection_id=connection_id, status=status),
    lambda connection_id, since: routes.list_backfills(connection_id=connection_id),
)


class Look:
    """One look at the lists of one kind.

    :param channel: asks the API.
    :param kind: what it is for.
    :param listeners: for whom it is; there is one at least.
    :param now: tells the time of this machine, in UTC.
    """

    def __init__(
        self, channel: Channel, kind: Kind, listeners: Sequence[Listener], now: Callable[[], datetime]
    ) -> None:
        self._channel = channel
        self.kind = kind
        self._listeners = listeners
        self._now = now
        self._began = now()
        connections = {listener.wanted.connection_id for listener in listeners}
        self._connection_id = connections.pop() if len(connections) == 1 else None
        #: When what the lists have shown was created, by its id.
        self.known: dict[str, datetime | None] = {}
        self._newest: datetime | None = None
        #: Whether somebody begins with this look, and what it begins with is known by now.
        self.has_newcomers = False
        self._failures = 0
        #: Why something alone could not be had.
        self.failure: PlanasonixError | None = None

    @property
    def horizon(self) -> datetime | None:
        """When the look began, by the API's clock, as far as its answers tell."""
        skew = self._channel.skew
        return self._newest if skew is None else self._began + skew

    async def pages(self) -> AsyncGenerator[list[Work]]:
        """Look through the lists.

        :return: what they show, page by page.
        """
        if new := [listener for listener in self._listeners if self._lacks_active(listener)]:
            active: dict[str, Work] = {}
            for status in ACTIVE:
                async for page in self._pages(self.kind.active(self._connection_id, status)):
                    active |= {work.id: work for work in page if not work.is_over}
            self._let_begin(new, list(active.values()))
            self.has_newcomers = True
        since = min(self._ledger(listener).since for listener in self._listeners)
        async for page in self._pages(self.kind.recent(self._connection_id, since)):
            self.known |= {work.id: work.created_at for work in page}
            self._newest = max([created for work in page if (created := work.created_at)], default=self._newest)
            yield page
            if _is_newest_first(page) and page[-1].created_at and page[-1].created_at < since:
                # All that follows is older.
                return

    def _let_begin(self, listeners: Iterable[Listener], active: list[Work]) -> None:
        skew = self._channel.skew
        # Its dates have whole seconds. Without one, all that has ended by now is past, whenever that is.
        begins = self._began + (WORST_CLOCK if skew is None else timedelta(seconds=skew.total_seconds() // 1))
        since = self._began - WORST_CLOCK if skew is None else min(begins, self._began)
        for listener in listeners:
            wanted = [work for work in active if listener.wanted.may_be(work)]
            if ledger := listener.ledgers.get(self.kind.name):
                for work in wanted:
                    ledger.expect(work, begins)
                ledger.lacks_active = False
            else:
                listener.ledgers[self.kind.name] = ledger = Ledger.new(begins, since, wanted)
                ledger.reach_back(since)

    def _lacks_active(self, listener: Listener) -> bool:
        ledger = listener.ledgers.get(self.kind.name)
        return ledger is None or ledger.lacks_active

    def check_the_clock(self) -> None:
        """Begin earlier, where the API's clock was set back by more than lists are late."""
        horizon = self.horizon
        if self._channel.skew is None or horizon is None:
            return
        for listener in self._listeners:
            if (ledger := self._ledger(listener)).since > horizon:
                log.info(
                    "The clock of Planasonix was set back, to %s. What has ended since is looked for again.",
                    moment(horizon),
                )
                ledger.reach_back(horizon)

    def take_in(self, work: Work) -> list[Listener]:
        """Take down what was seen.

        :param work: what was seen.
        :return: whom it concerns that it has ended, if it has; what nobody wants to be told of is done with.
        """
        hearers = []
        for listener in self._listeners:
            ledger = self._ledger(listener)
            if not listener.wanted.may_be(work):
                # The list it was in may have shown less of it.
                ledger.forget(work.id)
            elif not ledger.is_news(work):
                if work.created_at is None:
                    # Nothing but its mark tells that it is none, and that is to stay for as long as a list shows it.
                    self.told(listener, work)
            elif not work.is_over:
                self.expect(listener, work)
            elif ledger.is_past(work) or not listener.wanted.has_event(work):
                self.told(listener, work)
            else:
                hearers.append(listener)
        return hearers

    def expect(self, listener: Listener, work: Work) -> None:
        """Take down what a listener is to be told of later.

        :param listener: who.
        :param work: what has not ended yet, as far as anybody knows.
        """
        self._ledger(listener).expect(work, self.horizon or self._began)

    def told(self, listener: Listener, work: Work) -> None:
        """Take down what a listener is told of, or does not want.

        :param listener: who.
        :param work: what has ended.
        """
        self._ledger(listener).tell(work, self.horizon or self._began)

    def forget(self, work_id: str) -> None:
        """Let nobody expect something any more.

        :param work_id: its id.
        """
        for listener in self._listeners:
            self._ledger(listener).forget(work_id)

    def left(self) -> dict[str, datetime]:
        """Say what somebody expects, and no list has shown.

        :return: when it was created, by its id.
        """
        return {
            work_id: created
            for listener in self._listeners
            for work_id, created in self._ledger(listener).open.items()
            if work_id not in self.known
        }

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
                answers[work_id] = await self._channel.ask(self.kind.get(work_id))
                self._failures = 0
            except PlanasonixError as error:
                self._failures += not isinstance(error, PlanasonixNotFoundError)
                answers[work_id] = error

        await for_each(work_ids, get)
        return answers

    def close(self) -> None:
        """Let all ledgers move on: the lists were looked through to their end."""
        listed = {work_id: created for work_id, created in self.known.items() if created}
        for listener in self._listeners:
            ledger = self._ledger(listener)
            ledger.close(self._not_ahead(self.horizon) or ledger.since, listed)

    def _not_ahead(self, horizon: datetime | None) -> datetime | None:
        """Trust no date of an answer that lies in the future: it may be a proxy's, and jobs are dated by the API."""
        return horizon and min(horizon, max(self._began, self._newest or self._began))

    def _ledger(self, listener: Listener) -> Ledger:
        return listener.ledgers[self.kind.name]

    async def _pages(self, request: Request[Page[Any]]) -> AsyncGenerator[list[Work]]:
        """Ask for a list. In an outage one request tells; what has begun is worth more."""
        cursors = Cursors(request)
        page = await self._channel.ask(cursors.request)
        yield page.data
        while cursors.step(page):
            page = await self._channel.send(cursors.request)
            yield page.data


def _is_newest_first(page: Sequence[Work]) -> bool:
    """Say whether a list is in this order, which the reference does not promise; two of one moment do not tell."""
    created = [work.created_at for work in page]
    if not all(created) or len(created) < FEWEST_IN_ORDER:
        return False
    return created[0] > created[-1] and created == sorted(created, reverse=True)  # type: ignore[operator, type-var]
