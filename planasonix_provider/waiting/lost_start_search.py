"""Finds the work that a start has made whose answer nobody got: a process died, a connection broke."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from tenacity import AsyncRetrying

from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixUnreadableError,
)
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.api.operations import Paginator
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.attempt import ATTEMPT_KEY, AttemptRecord
from planasonix_provider.waiting.formatting import format_time
from planasonix_provider.waiting.outages import OutagePolicy, OutageTracker, is_outage, outage_retry_options
from planasonix_provider.waiting.shared_client import AsyncSend, for_each
from planasonix_provider.waiting.targets import Work

#: The seconds between the looks before nothing is taken for nothing: a list may show late what is there.
SEARCH_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0)
#: ``Date`` and ``created_at`` have whole seconds. Work without metadata that was created earlier than this before a
#: start is not taken for what the start has made.
TOLERANCE = timedelta(seconds=2)
#: ``created_at`` may come from another clock than ``Date``. Work that was created up to ten minutes before a start is
#: checked for the start's mark, and is listed before the start.
CLOCK_SLACK = timedelta(minutes=10)
#: How long after it was sent a start may take effect.
START_WINDOW = timedelta(hours=1)
#: How many pieces of work are looked at, those created nearest to the start first.
MOST_LOOKED_AT = 100


@dataclass(frozen=True)
class MatchCriteria:
    """What work is found by.

    :param kind: what it is.
    :param connection_id: Planasonix's connection.
    :param since: when its start was sent at the earliest, by the server's clock.
    :param marks: what its metadata has, where the API gives metadata back.
    :param window: of a backfill, where its window begins and ends.
    :param others: work that it is not, by id.
    :param until: when its start was sent at the latest; ``None`` where it was sent once.
    """

    kind: Literal["job", "backfill"]
    connection_id: str
    since: datetime
    marks: Mapping[str, Any]
    window: tuple[datetime, datetime] | None = None
    others: frozenset[str] = frozenset()
    until: datetime | None = None

    @classmethod
    def of(cls, record: AttemptRecord) -> MatchCriteria:
        """Say what the work of a start is found by.

        :param record: what was written down of the start.
        :return: its traces.
        """
        return cls(
            record.kind,
            record.connection_id,
            record.first_sent_at,
            {ATTEMPT_KEY: record.nonce},
            record.window,
            record.existing_ids,
            until=record.sent_at,
        )

    def could_match(self, work: Work) -> bool:
        """Return whether work without metadata may be what was started, by what lists tell of it."""
        return self.may_bear_the_mark(work) and self._created(work) >= self.since - TOLERANCE

    def may_bear_the_mark(self, work: Work) -> bool:
        """Return whether work is worth a request for its metadata."""
        return (
            work.id not in self.others
            and not self.is_too_old(work)
            and self._created(work) <= self._latest + START_WINDOW
            and work.connection_id in (None, self.connection_id)
            and (self._has_the_window(work) if isinstance(work, Backfill) else work.type != "backfill")
        )

    def is_too_old(self, work: Work) -> bool:
        """Return whether work was created before the start, even if two clocks differ by minutes."""
        return self._created(work) < self.since - CLOCK_SLACK

    def distance(self, work: Work) -> timedelta:
        """Return how far from the start work was created, for sorting."""
        created = self._created(work)
        return max(self.since - created, created - self._latest, timedelta(0))

    @property
    def _latest(self) -> datetime:
        return self.until or self.since

    def _created(self, work: Work) -> datetime:
        return work.created_at or self.since

    def _has_the_window(self, backfill: Backfill) -> bool:
        pairs = zip(self.window or (), (backfill.start_at, backfill.end_at), strict=False)
        return all(theirs is None or abs(ours - theirs) <= timedelta(seconds=1) for ours, theirs in pairs)

    def matches(self, work: Work) -> bool | None:
        """Say whether work is what was started.

        :param work: a job or backfill, as a look at it has brought it.
        :return: whether its metadata says so; ``None`` where it has none.
        """
        if not work.metadata:
            return None
        return all(work.metadata.get(name) == value for name, value in self.marks.items())


async def search(send: AsyncSend, traces: MatchCriteria) -> list[Work]:
    """Look once for work that was started.

    :param send: sends a request, and again where that can help.
    :param traces: what it is found by.
    :return: what bears its marks; where nothing does, all that may be it, since the API gives no metadata back.
    :raises PlanasonixError: if the API does not tell.
    """
    get: Callable[[str], Request[Any]] = routes.get_backfill if traces.kind == "backfill" else routes.get_job

    async def look_at(listed: Work) -> Work:
        try:
            # With its metadata, which is where the marks are.
            whole: Work = await send(get(listed.id).without())
        except PlanasonixNotFoundError:
            # What was made this moment is not seen everywhere yet.
            return listed
        return whole

    listed = await _listed(send, traces)
    looked_at = [work for work in await for_each(listed[:MOST_LOOKED_AT], look_at) if work.status]
    judged = [(work, traces.matches(work)) for work in looked_at]
    ours = [work for work, is_ours in judged if is_ours]
    return ours or [work for work, is_ours in judged if is_ours is None and traces.could_match(work)]


def started_on(kind: str, connection_id: str, since: datetime) -> Request[Page[Any]]:
    """Ask for what was started on a connection.

    :param kind: ``job`` or ``backfill``.
    :param connection_id: Planasonix's connection.
    :param since: from when on. Backfills cannot be asked for by time, and come all.
    :return: the request for the first page.
    """
    if kind == "backfill":
        return routes.list_backfills(connection_id=connection_id, limit=PAGE_SIZE)
    return routes.list_jobs(connection_id=connection_id, since=since, limit=PAGE_SIZE)


def unreadable_in(page: Page[Any], kind: str) -> list[Work]:
    """Return the rows of a page that cannot be read and have an id: work without a state, which has to be looked at."""
    model = Backfill if kind == "backfill" else Job
    return [model(id=row.id, status="") for row in page.unreadable if row.id]


async def _listed(send: AsyncSend, traces: MatchCriteria) -> list[Work]:
    """List what may be the work of a start, sorted by how near to the start it was created.

    A list of backfills cannot be limited by time, and the reference does not say how lists are sorted. So the start may
    be on the last of many pages, unless the pages so far show that the newest come first.
    """
    cursors = Paginator(started_on(traces.kind, traces.connection_id, traces.since - CLOCK_SLACK))
    listed: list[Work] = []
    unreadable: list[Work] = []
    while True:
        page = await send(cursors.request)
        listed += page.data
        unreadable += unreadable_in(page, traces.kind)
        if len(unreadable) > MOST_LOOKED_AT or any(row.id is None for row in page.unreadable):
            raise PlanasonixUnreadableError(
                f"{cursors.request}: rows of the list cannot be read, and one of them may be what was started. "
                "Report it to Planasonix."
            )
        if _has_passed(listed, traces) or not cursors.advance(page):
            return sorted(filter(traces.may_bear_the_mark, [*unreadable, *listed]), key=traces.distance)


def _has_passed(listed: Sequence[Work], traces: MatchCriteria) -> bool:
    times = [work.created_at for work in listed if work.created_at]
    return (
        len(times) == len(listed) > 1
        and times[0] > times[-1]
        and traces.is_too_old(listed[-1])
        and times == sorted(times, reverse=True)
    )


async def look_for(
    send: AsyncSend,
    traces: MatchCriteria,
    *,
    warn: Callable[[str], object],
    sleep: Callable[[float], Awaitable[None]],
    pauses: Collection[float],
    deadline: datetime | None = None,
    now: Callable[[], datetime] = utcnow,
    policy: OutagePolicy | None = None,
) -> list[Work]:
    """Look for work until it is found, or until it is as good as sure that no more of it comes.

    :param send: sends a request, and again where that can help.
    :param traces: what it is found by.
    :param warn: writes a line that deserves attention to the task's log.
    :param sleep: waits for a number of seconds.
    :param pauses: the seconds between the looks. What bears no mark is believed only after all of them.
    :param deadline: when to give up while the API cannot be reached, if that is sooner than ``policy`` says.
    :param now: tells the time, in UTC.
    :param policy: how long errors are tolerated.
    :return: as :func:`search`.
    :raises PlanasonixError: if the API refuses to tell, or cannot be reached.
    """
    began, outage = now(), OutageTracker(policy)
    options = outage_retry_options(
        outage,
        warn=lambda error: warn(f"Whether a {traces.kind} was started cannot be found out yet, still trying: {error}"),
        now=now,
    )
    retrying = AsyncRetrying(**options, stop=lambda _: deadline is not None and now() >= deadline, sleep=sleep)
    left = list(pauses)
    while True:
        try:
            found: list[Work] = await retrying(search, send, traces)
        except PlanasonixError as error:
            tried = f" (Tried since {format_time(began)}.)" if is_outage(error) else ""
            error.with_message(
                f"{error.message}{tried} So nobody knows whether a {traces.kind} was started: look at connection "
                f"{traces.connection_id} in Planasonix before you clear the task."
            )
            raise
        outage.succeed()
        if not left or any(map(traces.matches, found)):
            return found
        await sleep(left.pop(0))


async def find_the_one(send: AsyncSend, traces: MatchCriteria, **how: Any) -> Work | None:
    """Look for work until it is found, or until it is as good as sure that there is none.

    :param send: sends a request, and again where that can help.
    :param traces: what it is found by.
    :param how: as :func:`look_for`.
    :return: the work, or ``None``.
    :raises PlanasonixLostTrackError: if there is more than one that may be it.
    :raises PlanasonixError: if the API refuses to tell, or cannot be reached.
    """
    found = await look_for(send, traces, **how)
    if len(found) > 1:
        raise ambiguous_match_error(found, traces)
    return found[0] if found else None


def ambiguous_match_error(found: Sequence[Work], traces: MatchCriteria) -> PlanasonixLostTrackError:
    """Say that nobody can tell which of several pieces of work was started.

    :param found: what may be it.
    :param traces: what it was looked for by.
    :return: the error, to be raised.
    """
    return PlanasonixLostTrackError(
        f"{len(found)} {traces.kind}s of connection {traces.connection_id} were started since "
        f"{format_time(traces.since)}, and which of them is this task's cannot be told: "
        f"{', '.join(work.id for work in found[:10])}. Cancel in "
        "Planasonix what is not wanted, or wait until all are over; then clear the task."
    )
