"""Finds out what has ended, for all who watch over one Airflow connection: one look at the lists for all of them.

The lists are bounded by when things were created and say nothing of when they ended; they are in no order that the
reference names, and may show late what was created. So each watcher has a
:class:`~planasonix_provider.watchers.cursor.Ledger`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.formatting import capitalize, format_duration
from planasonix_provider.waiting.outages import is_outage
from planasonix_provider.waiting.shared_client import SharedClient
from planasonix_provider.waiting.targets import Work
from planasonix_provider.waiting.wait_state import pause_after
from planasonix_provider.watchers.event_filter import BACKFILL, event_of, event_payload, started_by_an_asset
from planasonix_provider.watchers.list_scan import BACKFILLS, JOBS, ApiClock, ListScan
from planasonix_provider.watchers.subscribers import Subscriber, SubscriberRegistry

log = logging.getLogger(__name__)

#: The warning about an API that has shown no metadata, on which a filter depends.
NO_METADATA = (
    "Planasonix has shown no metadata so far, so the filter metadata lets nothing through, and ignore_own cannot tell "
    "which jobs operators have started. To start no endless loop, ignore_own passes over each job that was created "
    "after this watcher's first event, until Planasonix shows the metadata of any job. If it never does, remove "
    "ignore_own, and keep the DAG from its own jobs with pipeline_id or types."
)
#: The warning about each end that is passed over for that reason.
PASSED_OVER = (
    "%s has ended (%s), and starts no DAG: Planasonix shows no metadata, so ignore_own cannot tell whether an operator "
    "has started it."
)
#: What is said once of a DAG that syncs, and that an asset has started.
MAY_BE_A_LOOP = (
    "A sync of the DAG {dag_id} has ended, in a run that an asset has started. If it is the asset that this watcher "
    "feeds, the DAG starts itself again and again: ignore_own={dag_id!r} ends that."
)
#: How many seconds there are between two looks at the least, however many begin to watch one by one.
LOOK_EVERY = 1.0
#: The same where the Airflow connection is missing or refused, which a person has to mend.
LOOK_AGAIN_AFTER = 60.0
#: How often trouble that lasts is told, in seconds.
TELL_EVERY = 600.0
#: For how many seconds the backfills are left alone while nothing in the list of jobs tells of one.
BACKFILLS_EVERY = 300.0
#: What is looked at by itself is looked at again after such a part of its age, and so many seconds at the most.
PATIENCE, LONGEST_PATIENCE = 0.01, 300.0
#: For how many seconds an answer of 404 to a look at what was there is no reason to give it up.
GONE_AFTER = 3600.0


@dataclass(eq=False)
class CompletionBatch:
    """What is told at one go.

    :param of: what is told, by who is told it: the payload of an event for each end.
    :param is_checkpoint: whether it is time to keep cursors: all that was told before has been passed on by then, and
        nothing more was taken down.
    :param is_the_end: whether a look has ended with it.
    """

    by_subscriber: dict[Subscriber, list[dict[str, Any]]] = field(default_factory=dict)
    is_checkpoint: bool = False
    is_the_end: bool = False
    #: Set by who passes it on, once all who listen have it, and need not be told again.
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)


class CompletionStream:
    """Looks for all on a roster.

    :param channel: asks the API.
    :param roster: who listens.
    :param job_url: gives the address of a job's page.
    :param now: tells the time of this machine, in UTC.
    """

    def __init__(
        self,
        channel: SharedClient,
        roster: SubscriberRegistry,
        job_url: Callable[[str], str],
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._channel = channel
        self._roster = roster
        self._job_url = job_url
        self._now = now
        self._trouble = _OutageLog()
        self._shows_metadata = False
        # When what is looked at by itself is due, by kind and id, and since when it is not found.
        self._due: dict[str, dict[str, float]] = {}
        self._gone: dict[str, float] = {}
        self._clocks = {kind.name: ApiClock() for kind in (JOBS, BACKFILLS)}
        self._shards: set[tuple[str, str]] = set()
        self._backfills_due = 0.0

    async def news(self) -> AsyncGenerator[CompletionBatch]:
        """Look again and again, for as long as somebody listens.

        :return: the news. The next come once these were passed on; it never ends, and raises nothing.
        """
        while True:
            await self._roster.wait_for_subscriber()
            began = _seconds()
            error: Exception | None = None
            listeners = list(self._roster.listeners)
            looking = self._look(listeners)
            try:
                async for news in looking:
                    for one in (news, CompletionBatch(is_checkpoint=True)):
                        yield one
                        await one.acknowledged.wait()
            except PlanasonixError as trouble:
                error = trouble
                self._trouble.tell(trouble)
            except Exception as bug:
                error = bug
                log.exception("A look at what has ended in Planasonix broke, and is tried again. Please report this.")
            else:
                self._trouble.is_over()
            finally:
                await looking.aclose()
            yield (end := CompletionBatch(is_checkpoint=True, is_the_end=True))
            await end.acknowledged.wait()
            await self._pause(listeners, began, error)

    async def _pause(self, listeners: Sequence[Subscriber], began: float, error: Exception | None) -> None:
        interval = min(listener.interval for listener in listeners)
        if error and not (isinstance(error, PlanasonixError) and is_outage(error)):
            interval = max(interval, LOOK_AGAIN_AFTER)
        left = max(pause_after(error, interval) - (_seconds() - began), self._channel.retry_after_remaining, 0.0)
        shortest = min(left, max(0.0, LOOK_EVERY - (_seconds() - began)))
        await asyncio.sleep(shortest)
        # Whoever is new need not wait for the others' interval, but for what the API or a person has to mend.
        if error:
            await asyncio.sleep(left - shortest)
        else:
            await self._roster.wait_for_new_subscriber(left - shortest)

    async def _look(self, listeners: Sequence[Subscriber]) -> AsyncGenerator[CompletionBatch]:
        failure = None
        for kind in (JOBS, BACKFILLS):
            watching = [listener for listener in listeners if kind.name in listener.wanted.kinds]
            if not watching or (kind is BACKFILLS and not self._may_have_ended(watching)):
                continue
            look = ListScan(self._channel, kind, watching, self._now, self._clocks[kind.name])
            try:
                async for news in self._look_through(look):
                    yield news
            except PlanasonixError as error:
                # An outage is everybody's; a refusal may be of this list alone.
                if is_outage(error):
                    raise
                failure = failure or error
            failure = failure or look.failure
        if failure:
            raise failure

    async def _look_through(self, look: ListScan) -> AsyncGenerator[CompletionBatch]:
        async for page in look.pages():
            if look.has_newcomers:
                look.has_newcomers = False
                # Time to keep what they begin with: from now on, nothing that ends is past, whatever dies.
                yield CompletionBatch()
            self._mind_the_shards(page)
            async for news in self._tell(look, page):
                yield news
        look.check_the_clock()
        async for news in self._look_at_each(look):
            yield news
        look.advance()
        if look.kind is BACKFILLS:
            self._backfills_due = _seconds() + BACKFILLS_EVERY

    # --- Backfills, which no list can be asked for by when they were created ---

    def _mind_the_shards(self, page: Iterable[Work]) -> None:
        """Look at the backfills where a job of one is new, or has moved on."""
        shards = {(job.id, job.status) for job in page if getattr(job, "type", None) == BACKFILL}
        if shards - self._shards:
            self._backfills_due = 0.0
        self._shards |= shards
        if len(self._shards) > 50 * PAGE_SIZE:
            self._shards = shards

    def _may_have_ended(self, watching: Sequence[Subscriber]) -> bool:
        ledgers = [listener.ledgers.get(BACKFILL) for listener in watching]
        # For who does not watch jobs as well, no list of them tells.
        has_a_hint = all("job" in listener.wanted.kinds for listener in watching)
        return (
            not has_a_hint
            or _seconds() >= self._backfills_due
            or any(not ledger or ledger.pending for ledger in ledgers)
        )

    # --- What has ended ---

    async def _look_at_each(self, look: ListScan) -> AsyncGenerator[CompletionBatch]:
        """Look at what has not ended yet, and is in no list that was asked for: it was created long ago."""
        left, now = look.unlisted(), _seconds()
        before = self._due.get(look.kind.name, {})
        dues = self._due[look.kind.name] = {work_id: before.get(work_id, 0.0) for work_id in left}
        due = [work_id for work_id, at in dues.items() if at <= now or look.is_urgent(work_id)]
        for begin in range(0, len(due), PAGE_SIZE):
            answers = await look.get_each(due[begin : begin + PAGE_SIZE])
            for work_id, answer in answers.items():
                age = max(0.0, (look.horizon - left[work_id]).total_seconds()) if look.horizon else 0.0
                dues[work_id] = now + min(PATIENCE * age, LONGEST_PATIENCE)
                if isinstance(answer, PlanasonixNotFoundError):
                    self._miss(look, work_id, answer)
                else:
                    self._gone.pop(work_id, None)
            found = [answer for answer in answers.values() if not isinstance(answer, PlanasonixError)]
            async for news in self._tell(look, found, wholes={work.id: work for work in found}):
                yield news
            self._mind_the_failures(look, answers)

    def _miss(self, look: ListScan, work_id: str, error: PlanasonixError) -> None:
        since = self._gone.setdefault(work_id, _seconds())
        if _seconds() - since >= GONE_AFTER:
            del self._gone[work_id]
            look.forget(work_id)
            name = capitalize(f"{look.kind.name} {work_id}")
            log.warning(
                "%s has not been there for %s: its end is not told. %s", name, format_duration(GONE_AFTER), error
            )

    async def _tell(
        self, look: ListScan, page: Iterable[Work], wholes: dict[str, Work] | None = None
    ) -> AsyncGenerator[CompletionBatch]:
        """Take in what was seen, and tell what has ended to whom it concerns."""
        ended: dict[str, tuple[Work, list[Subscriber]]] = {}
        for work in page:
            if (hearers := look.classify(work)) and work.is_over:
                ended[work.id] = (work, hearers)
        if not ended:
            return
        known: dict[str, Any] = wholes or await look.get_each(ended)
        self._shows_metadata |= any(getattr(work, "metadata", None) for work in known.values())
        news = CompletionBatch()
        for work_id, (listed, hearers) in ended.items():
            answer = known.get(work_id)
            # What is gone by now was there when the list was made.
            whole = listed if isinstance(answer, PlanasonixNotFoundError) else answer
            for listener in hearers:
                if whole is None or isinstance(whole, PlanasonixError) or not whole.is_over:
                    # Another part of the API lags behind, or does not answer: the next look asks again.
                    look.add_pending(listener, listed)
                    continue
                look.mark_reported(listener, whole)
                if self._takes(look, listener, whole):
                    listener.is_ahead = True
                    news.by_subscriber.setdefault(listener, []).append(event_payload(whole, self._job_url))
        if news.by_subscriber:
            yield news
        self._mind_the_failures(look, known)

    def _mind_the_failures(self, look: ListScan, answers: Mapping[str, Any]) -> None:
        """End the look where nothing can be had; what alone cannot be had keeps nobody from the rest."""
        failures = [answer for work_id, answer in answers.items() if look.is_failure(work_id, answer)]
        if look.seems_in_vain and failures:
            raise failures[0]
        look.failure = look.failure or next(iter(failures), None)

    def _takes(self, look: ListScan, listener: Subscriber, work: Work) -> bool:
        self._shows_metadata |= listener.has_seen_metadata
        listener.has_seen_metadata = self._shows_metadata
        if listener.wanted.needs_metadata and not self._shows_metadata:
            listener.warn_once(NO_METADATA)
        if not listener.wanted.matches(work):
            return False
        if listener.wanted.ignore_own and not self._shows_metadata and self._may_be_own(look, listener, work):
            listener.warn(PASSED_OVER % (capitalize(f"{look.kind.name} {work.id}"), event_of(work)))
            return False
        if dag_id := started_by_an_asset(work):
            listener.warn_once(MAY_BE_A_LOOP.format(dag_id=dag_id))
        return True

    def _may_be_own(self, look: ListScan, listener: Subscriber, work: Work) -> bool:
        """Return whether a DAG may have started the work in response to the listener, for all that times show."""
        if listener.responses_since is None:
            listener.responses_since = look.horizon or self._now()
        return work.created_at is None or work.created_at > listener.responses_since


class _OutageLog:
    """Tells that Planasonix cannot be asked, at a calm pace, and that it answers again."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = 0.0

    def tell(self, error: PlanasonixError) -> None:
        """Take note of an error.

        :param error: what a look has ended with.
        """
        now = _seconds()
        if self._since is None:
            self._since = self._told = now
            log.warning(
                "What has ended in Planasonix cannot be asked for yet, still trying; nothing is lost. %s", error
            )
        elif now - self._told >= TELL_EVERY:
            self._told = now
            passed = format_duration(now - self._since)
            log.warning("What has ended in Planasonix cannot be asked for, for %s now, still trying. %s", passed, error)

    def is_over(self) -> None:
        """Take note that there is none."""
        if self._since is not None:
            log.info("Planasonix answers again, after %s.", format_duration(_seconds() - self._since))
        self._since = None


def _seconds() -> float:
    return asyncio.get_running_loop().time()
