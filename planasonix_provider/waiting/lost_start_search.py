"""Searches for the work of a start whose response was lost, because a process died or a connection broke."""

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

#: The seconds between the searches before the work is taken for absent: lists may be late.
SEARCH_DELAY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
#: ``Date`` and ``created_at`` have whole seconds. Work without metadata that was created earlier than this before a
#: start is not taken for what the start has made.
TOLERANCE = timedelta(seconds=2)
#: ``created_at`` may come from another clock than ``Date``. Work that was created up to ten minutes before a start is
#: checked for the start's mark, and is listed before the start.
CLOCK_SLACK = timedelta(minutes=10)
#: How long after it was sent a start may take effect.
START_WINDOW = timedelta(hours=1)
#: How many candidates are requested one by one, those created nearest to the start first.
MAX_CANDIDATES = 100


@dataclass(frozen=True)
class MatchCriteria:
    """The criteria for candidates.

    :param since: when the start was first sent, by the server's clock.
    :param keys: metadata of the work; a candidate has it only if the API returns metadata.
    :param window: the start and end of a backfill.
    :param others: ids of work that existed before the start.
    :param until: when the start was last sent; ``None`` if it was sent once.
    """

    kind: Literal["job", "backfill"]
    connection_id: str
    since: datetime
    keys: Mapping[str, Any]
    window: tuple[datetime, datetime] | None = None
    others: frozenset[str] = frozenset()
    until: datetime | None = None

    @classmethod
    def of(cls, record: AttemptRecord) -> MatchCriteria:
        """Return the criteria for the work of a recorded start."""
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
        """Return whether work without metadata may be what was started, by what lists show of it."""
        return self.could_have_key(work) and self._created(work) >= self.since - TOLERANCE

    def could_have_key(self, work: Work) -> bool:
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
        """Return whether the work has the marks; ``None`` if it has no metadata."""
        if not work.metadata:
            return None
        return all(work.metadata.get(name) == value for name, value in self.keys.items())


async def search(send: AsyncSend, criteria: MatchCriteria) -> list[Work]:
    """Search once.

    Return the work with the marks or, if there is none, all candidates without metadata: the API may return none.
    """
    get: Callable[[str], Request[Any]] = routes.get_backfill if criteria.kind == "backfill" else routes.get_job

    async def fetch(listed: Work) -> Work:
        try:
            whole: Work = await send(get(listed.id).without())
        except PlanasonixNotFoundError:
            # New work is not visible everywhere yet.
            return listed
        return whole

    listed = await _candidates(send, criteria)
    works = [work for work in await for_each(listed[:MAX_CANDIDATES], fetch) if work.status]
    matches = [work for work in works if criteria.matches(work)]
    return matches or [work for work in works if criteria.matches(work) is None and criteria.could_match(work)]


def started_on(kind: str, connection_id: str, since: datetime) -> Request[Page[Any]]:
    """Return the request for work of a connection. A list of backfills cannot be limited by time."""
    if kind == "backfill":
        return routes.list_backfills(connection_id=connection_id, limit=PAGE_SIZE)
    return routes.list_jobs(connection_id=connection_id, since=since, limit=PAGE_SIZE)


def unreadable_in(page: Page[Any], kind: str) -> list[Work]:
    """Return the unreadable rows of a page that have an id, as work without a state, to request it by itself."""
    model = Backfill if kind == "backfill" else Job
    return [model(id=row.id, status="") for row in page.unreadable if row.id]


async def _candidates(send: AsyncSend, criteria: MatchCriteria) -> list[Work]:
    """List what may be the work of a start, sorted by how near to the start it was created.

    A list of backfills cannot be limited by time, and the reference does not say how lists are sorted. So the start may
    be on the last of many pages, unless the pages so far show that the newest come first.
    """
    paginator = Paginator(started_on(criteria.kind, criteria.connection_id, criteria.since - CLOCK_SLACK))
    listed: list[Work] = []
    unreadable: list[Work] = []
    while True:
        page = await send(paginator.request)
        listed += page.data
        unreadable += unreadable_in(page, criteria.kind)
        if len(unreadable) > MAX_CANDIDATES or any(row.id is None for row in page.unreadable):
            raise PlanasonixUnreadableError(
                f"{paginator.request}: rows of the list cannot be read, and one of them may be what was started. "
                "Report it to Planasonix."
            )
        if _has_passed(listed, criteria) or not paginator.advance(page):
            return sorted(filter(criteria.could_have_key, [*unreadable, *listed]), key=criteria.distance)


def _has_passed(listed: Sequence[Work], criteria: MatchCriteria) -> bool:
    times = [work.created_at for work in listed if work.created_at]
    return (
        len(times) == len(listed) > 1
        and times[0] > times[-1]
        and criteria.is_too_old(listed[-1])
        and times == sorted(times, reverse=True)
    )


async def search_repeatedly(
    send: AsyncSend,
    criteria: MatchCriteria,
    *,
    warn: Callable[[str], object],
    sleep: Callable[[float], Awaitable[None]],
    pauses: Collection[float],
    deadline: datetime | None = None,
    policy: OutagePolicy | None = None,
) -> list[Work]:
    """Repeat :func:`search` until it finds work with the marks, or after all ``pauses``.

    An outage is tolerated as the policy says, and at most until the deadline. Then its error is raised.
    """
    began, outage = utcnow(), OutageTracker(policy)
    options = outage_retry_options(
        outage,
        warn=lambda error: warn(
            f"Whether a {criteria.kind} was started cannot be found out yet, still trying: {error}"
        ),
    )
    retrying = AsyncRetrying(**options, stop=lambda _: deadline is not None and utcnow() >= deadline, sleep=sleep)
    left = list(pauses)
    while True:
        try:
            found: list[Work] = await retrying(search, send, criteria)
        except PlanasonixError as error:
            tried = f" (Tried since {format_time(began)}.)" if is_outage(error) else ""
            error.set_message(
                f"{error.message}{tried} So it is unknown whether a {criteria.kind} was started: look at connection "
                f"{criteria.connection_id} in Planasonix before you clear the task."
            )
            raise
        outage.succeed()
        if not left or any(map(criteria.matches, found)):
            return found
        await sleep(left.pop(0))


async def find_one(send: AsyncSend, criteria: MatchCriteria, **how: Any) -> Work | None:
    """Return the work that :func:`search_repeatedly` has found, if any; raise an error if it has found several."""
    found = await search_repeatedly(send, criteria, **how)
    if len(found) > 1:
        raise ambiguous_match_error(found, criteria)
    return found[0] if found else None


def ambiguous_match_error(found: Sequence[Work], criteria: MatchCriteria) -> PlanasonixLostTrackError:
    """Return the error for several matches."""
    return PlanasonixLostTrackError(
        f"{len(found)} {criteria.kind}s of connection {criteria.connection_id} were started since "
        f"{format_time(criteria.since)}, and which of them is this task's cannot be told: "
        f"{', '.join(work.id for work in found[:10])}. Cancel in "
        "Planasonix what is not wanted, or wait until all are over; then clear the task."
    )
