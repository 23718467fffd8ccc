"""What can be waited for: a job, a backfill, a connection's next sync. All that differs between them stands here.

A subject asks by steps, see :mod:`planasonix_provider.waiting.steps`, and does no I/O itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, TypeAlias

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError, PlanasonixUnreadableError
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.api.operation import Cursors
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.waiting.steps import Steps
from planasonix_provider.waiting.words import count, duration, sentence, size

Work: TypeAlias = Job | Backfill

#: For how long a sync may have run before the moment that a :class:`SyncSubject` counts from, to be found there.
LONGEST_SYNC = timedelta(days=1)
#: Of how many syncs that ended too early, the newest first, it is enough to know: older ones are not asked for theirs.
ENOUGH_TOO_EARLY = 5
#: How late a list may show a job.
LISTED_WITHIN = timedelta(minutes=5)


@dataclass(frozen=True)
class Seen:
    """What a look has brought.

    :param status: the state; the log gets a line when it changes.
    :param is_over: whether this ends the wait.
    :param says: the state in words, for the log.
    :param work: the job or backfill that was seen, if there is one.
    :param progress: how far it has come, a few words for each figure.
    :param began: when it began.
    :param took: the seconds that it took, where it is over and the API says so.
    :param moves: what changes whenever it gets on; ``None`` where that cannot be told.
    :param moved_at: when it got on last, as far as the API says so.
    """

    status: str
    is_over: bool
    says: str
    work: Work | None = None
    progress: tuple[str, ...] = ()
    began: datetime | None = None
    took: float | None = None
    moves: Hashable | None = None
    moved_at: datetime | None = None


class Subject(ABC):
    """What a wait is for.

    :param id: its id.
    """

    kind: ClassVar[Literal["job", "backfill", "sync"]]

    def __init__(self, id: str) -> None:  # noqa: A002 - the reference's name
        self.id = id

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"{self.kind} {self.id}"

    @property
    @abstractmethod
    def goal(self) -> str:
        """What has not happened while the wait goes on, for a message: ``Job job_1 was not over``."""

    @property
    @abstractmethod
    def request(self) -> Request[Any]:
        """What each look asks first; waits that ask the same share the answer."""

    @abstractmethod
    def look(self, now: datetime, *, detailed: bool) -> Steps[Seen]:
        """Look at it.

        :param now: the time.
        :param detailed: whether figures for the log are worth a request of their own.
        :return: the steps of the look; the first one is :attr:`request`.
        """


class WorkSubject(Subject):
    """A job or a backfill that is known by its id.

    :param id: its id.
    :param until: further states that end the wait, besides those from which it never moves on.
    """

    known_states: ClassVar[frozenset[str]]

    def __init__(self, id: str, until: Iterable[str] = ()) -> None:  # noqa: A002 - the reference's name
        super().__init__(id)
        self.until = frozenset(until)

    @property
    def goal(self) -> str:
        """What has not happened while the wait goes on."""
        return f"{sentence(self.name)} was not {' or '.join(['over', *sorted(self.until)])}"

    def seen(self, work: Work, now: datetime, *more: str) -> Seen:
        """Make of an answer what the wait needs to know.

        :param work: the answer.
        :param now: the time of the look.
        :param more: further words on its progress.
        :return: what was seen.
        :raises PlanasonixUnreadableError: if the answer is about something else.
        """
        if work.id != self.id:
            raise PlanasonixUnreadableError(f"Asked for {self.name}, got {work.id}.")
        verb = "" if work.status in ("succeeded", "failed", "completed") else "was " if work.is_over else "is "
        remark = "" if work.status in self.known_states else " (a state that this version takes for one that goes on)"
        return Seen(
            status=work.status,
            is_over=work.is_over or work.status in self.until,
            says=f"{sentence(self.name)} {verb}{work.status}{remark}",
            work=work,
            **self.figures(work, now, more),
        )

    @abstractmethod
    def figures(self, work: Any, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Say how far it has come: the fields of :class:`Seen` that depend on the kind of work."""


class JobSubject(WorkSubject):
    """A job."""

    kind = "job"
    known_states = JOB_STATES

    @property
    def request(self) -> Request[Job]:
        """Asks for the job."""
        return routes.get_job(self.id)

    def look(self, now: datetime, *, detailed: bool) -> Steps[Seen]:
        """Look at the job; there are no further figures."""
        return self.seen((yield self.request), now)

    def figures(self, work: Job, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Say how many rows and bytes it has moved."""
        metrics, progress = work.metrics, list(more)
        if metrics and metrics.rows_loaded is not None:
            progress.append(f"{count(metrics.rows_loaded, 'row')} loaded")
        elif metrics and metrics.rows_extracted is not None:
            progress.append(f"{count(metrics.rows_extracted, 'row')} extracted")
        if metrics and metrics.bytes_read is not None:
            progress.append(f"{size(metrics.bytes_read)} read")
        began = work.started_at or work.queued_at or work.created_at
        took = work.duration_seconds
        if took is None and began and work.finished_at:
            took = (work.finished_at - began).total_seconds()
        return {
            "progress": tuple(progress),
            "began": began,
            "took": took if work.is_over else None,
            # Lists leave the metrics out.
            "moves": (work.status, tuple(progress)) if metrics else None,
        }


class BackfillSubject(WorkSubject):
    """A backfill."""

    kind = "backfill"
    known_states = BACKFILL_STATES
    # As it was counted last: not every look counts.
    _jobs_done: int | None = None

    @property
    def request(self) -> Request[Backfill]:
        """Asks for the backfill."""
        return routes.get_backfill(self.id)

    def look(self, now: datetime, *, detailed: bool) -> Steps[Seen]:
        """Look at the backfill, and count the jobs that are done."""
        backfill: Backfill = yield self.request
        if not backfill.job_ids or backfill.is_over:
            return self.seen(backfill, now)
        total = len(backfill.job_ids)
        if detailed and (to_do := (yield from self._jobs_to_do(backfill))) is not None:
            self._jobs_done = total - to_do
        jobs = f"{count(total, 'job')} so far"
        return self.seen(backfill, now, jobs if self._jobs_done is None else f"{self._jobs_done:,} of {jobs} done")

    @staticmethod
    def lists_of_active_jobs(backfill: Backfill) -> list[Request[Page[Job]]]:
        """Make the requests that tell which of a backfill's jobs have not ended: there may be thousands of others.

        :param backfill: the backfill.
        :return: the lists, of all jobs of its connection. In this order, or a job that starts between the two would be
            in neither.
        """
        return [
            routes.list_jobs(
                connection_id=backfill.connection_id or None, status=status, since=backfill.created_at, limit=PAGE_SIZE
            )
            for status in ("queued", "running")
        ]

    def _jobs_to_do(self, backfill: Backfill) -> Steps[int | None]:
        """Count the jobs that are still to end."""
        active: set[str] = set()
        try:
            for request in self.lists_of_active_jobs(backfill):
                page: Page[Job] = yield request
                if page.cursor:
                    return None
                active.update(job.id for job in page.data if not job.is_over)
        except PlanasonixError:
            # Figures for the log: no reason to take the look for one that failed.
            return None
        return len(active.intersection(backfill.job_ids or ()))

    def figures(self, work: Backfill, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Say how much of the window is loaded, and when the rest of it will be."""
        progress = []
        if work.progress_percent is not None and not work.is_over:
            progress.append(f"{work.progress_percent:.0f} %")
        if work.rows_processed is not None:
            progress.append(f"{count(work.rows_processed, 'row')} processed")
        progress.extend(more)
        if (left := self._seconds_left(work, now)) and left >= 1:
            progress.append(f"about {duration(left)} left")
        return {
            "progress": tuple(progress),
            "began": work.created_at,
            "took": (work.updated_at - work.created_at).total_seconds()
            if work.is_over and work.updated_at and work.created_at
            else None,
            "moves": (work.status, work.progress_percent, work.rows_processed, len(work.job_ids or ())),
            "moved_at": work.updated_at,
        }

    @staticmethod
    def _seconds_left(work: Backfill, now: datetime) -> float | None:
        """Estimate when it will be over: the rest takes as long in proportion as the part that is done."""
        percent = work.progress_percent or 0
        if work.is_over or not 0 < percent < 100 or work.created_at is None:
            return None
        passed = ((work.updated_at or now) - work.created_at).total_seconds()
        return passed * (100 - percent) / percent if passed > 0 else None


class SyncSubject(Subject):
    """The first sync of a connection that has succeeded since a moment, whoever started it.

    :param id: the connection.
    :param since: the moment.
    :param by: whether a sync counts that was ``created``, or one that has ``finished`` since.
    :param on_failure: whether a sync that fails ends the wait (``fail``) or not (``wait``).
    """

    kind = "sync"

    def __init__(self, id: str, since: datetime, by: str = "created", on_failure: str = "fail") -> None:  # noqa: A002
        super().__init__(id)
        self.since = since
        self.by = by
        self.on_failure = on_failure
        self._has_looked_before = False
        self._undecided: list[Job] = []
        self._finished_since: list[Job] = []
        self._ended_before: set[str] = set()
        self._newest_words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"a sync of connection {self.id}"

    @property
    def goal(self) -> str:
        """What has not happened while the wait goes on."""
        return f"No sync of connection {self.id} that was {self.by} since {self.since:%Y-%m-%d %H:%M:%S} UTC succeeded"

    @property
    def request(self) -> Request[Page[Job]]:
        """Asks for the newest sync that was created since the moment and has succeeded."""
        return self._list("succeeded", since=self.since, limit=PAGE_SIZE)

    def look(self, now: datetime, *, detailed: bool) -> Steps[Seen]:
        """Look for a sync that has succeeded, then for one that has not."""
        states = ("succeeded", "failed", "cancelled") if self.on_failure == "fail" else ("succeeded",)
        for status in states:
            page: Page[Job] = yield self._list(status, since=self.since, limit=PAGE_SIZE)
            for listed in page.data:
                if self._is_ours(listed) and listed.status == status and self._is_since(listed.created_at):
                    job = yield from self._whole(listed)
                    if job and job.status == status:
                        return self._over(job)
            if self.by == "finished" and status == "succeeded":
                yield from self._look_before(now)
            if job := next((job for job in self._finished_since if job.status == status), None):
                return self._over(job)
        if detailed and (newest := (yield from self._newest())):
            self._newest_words = (f"the newest, {newest.id}, is {newest.status}",)
        return Seen("awaited", False, f"{self.goal} yet", progress=self._newest_words)

    def _over(self, job: Job) -> Seen:
        says = f"Job {job.id} {'was ' if job.status == 'cancelled' else ''}{job.status}"
        return Seen(job.status, True, says, job, began=job.started_at or job.created_at, took=job.duration_seconds)

    @staticmethod
    def _whole(listed: Job) -> Steps[Job | None]:
        """Look at a job by itself: a list names only some of its fields, and may be ahead of it, or behind."""
        try:
            job: Job = yield routes.get_job(listed.id)
        except PlanasonixNotFoundError:
            return None
        return job if job.is_over else None

    def _look_before(self, now: datetime) -> Steps[None]:
        """Look at syncs that were created before the moment and may end after it, which no list can be asked for."""
        if not self._has_looked_before:
            cursors = Cursors(self._list(None, since=self.since - LONGEST_SYNC, until=self.since))
            jobs: list[Job] = []
            while True:
                page: Page[Job] = yield cursors.request
                jobs.extend(job for job in page.data if self._is_ours(job))
                if not cursors.step(page):
                    break
            jobs.sort(key=lambda job: job.created_at or self.since, reverse=True)
            self._undecided = jobs
        yield from self._decide()
        # A job of that moment may come into the list a little later.
        self._has_looked_before = now > self.since + LISTED_WITHIN

    def _decide(self) -> Steps[None]:
        """Find out which of these syncs have ended since the moment; most end in the order of their start."""
        left: list[Job] = []
        for listed in self._undecided:
            job = listed
            if job.finished_at is None and job.id not in self._ended_before:
                if job.is_over and len(self._ended_before) >= ENOUGH_TOO_EARLY:
                    continue
                job = (yield from self._whole(listed)) or listed
            if job.finished_at and self._is_since(job.finished_at):
                self._finished_since.append(job)
            elif job.finished_at:
                self._ended_before.add(job.id)
            elif job.id not in self._ended_before:
                left.append(listed)
        self._undecided = left

    def _newest(self) -> Steps[Job | None]:
        try:
            page: Page[Job] = yield self._list(None, since=self.since, limit=1)
        except PlanasonixError:
            # A word for the log: no reason to take the look for one that failed.
            return None
        return next((job for job in page.data if self._is_ours(job) and self._is_since(job.created_at)), None)

    def _is_since(self, moment: datetime | None) -> bool:
        return moment is None or moment >= self.since

    def _is_ours(self, job: Job) -> bool:
        """What a list shows is checked, for not every server knows every filter."""
        return job.connection_id in (None, self.id) and job.type in (None, "connection_sync")

    def _list(self, status: str | None, **bounds: Any) -> Request[Page[Job]]:
        return routes.list_jobs(connection_id=self.id, type="connection_sync", status=status, **bounds)


def subject_of(work: Work) -> WorkSubject:
    """Say what to wait for.

    :param work: a job or backfill.
    :return: the same as the subject of a wait.
    """
    return BackfillSubject(work.id) if isinstance(work, Backfill) else JobSubject(work.id)
