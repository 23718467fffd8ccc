"""Wait targets, and the differences between jobs and backfills.

A target polls by a request flow, see :mod:`planasonix_provider.waiting.request_flow`, and does no I/O itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self, TypeAlias

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixUnreadableError
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.api.request import PAGE_SIZE, Request
from planasonix_provider.api.states import ACTIVE_STATES, BACKFILL_STATES, JOB_STATES
from planasonix_provider.waiting.formatting import capitalize, format_bytes, format_duration, pluralize
from planasonix_provider.waiting.request_flow import Steps

Work: TypeAlias = Job | Backfill


@dataclass(frozen=True)
class Snapshot:
    """The result of a poll.

    :param is_over: whether the wait ends.
    :param work: ``None`` while the work is not found yet.
    :param took: the duration in seconds, if the work is over and the API returns it.
    :param moves: a value that changes with every progress; ``None`` if the response does not show progress.
    :param moved_at: the time of the last progress, if the API returns it.
    """

    status: str
    is_over: bool
    description: str
    work: Work | None = None
    progress: tuple[str, ...] = ()
    began: datetime | None = None
    took: float | None = None
    moves: Hashable | None = None
    moved_at: datetime | None = None


class WaitTarget(ABC):
    """The target of a wait."""

    #: Its name in events and in serialised targets, see :mod:`planasonix_provider.waiting.target_registry`.
    kind: ClassVar[str]
    #: The attribute of an exception that has its id.
    id_name: ClassVar[str]
    #: The model of the work that ends the wait.
    work_type: ClassVar[type[Job] | type[Backfill]] = Job

    def __init__(self, id: str) -> None:  # noqa: A002 - the reference's name
        self.id = id

    def serialize(self) -> dict[str, Any]:
        """Return the target in JSON types, for another process."""
        return {"kind": self.kind, "id": self.id}

    @classmethod
    def deserialize(cls, fields: dict[str, Any]) -> Self:
        """Return the target that :meth:`serialize` has made these fields of, without ``kind``."""
        return cls(**fields)

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"{self.kind} {self.id}"

    @property
    @abstractmethod
    def goal(self) -> str:
        """The awaited event in a negative sentence, for messages: ``Job job_1 was not over``."""

    @property
    @abstractmethod
    def request(self) -> Request[Any]:
        """The first request of each poll; waits with the same request share the response."""

    @abstractmethod
    def poll(self, now: datetime, *, detailed: bool) -> Steps[Snapshot]:
        """Return the flow of a poll; its first request is :attr:`request`.

        ``detailed`` allows further requests for figures in the log.
        """


class WorkTarget(WaitTarget):
    """A job or a backfill that is known by its id. Besides its final states, those in ``until`` end the wait."""

    kind: ClassVar[Literal["job", "backfill"]]
    known_states: ClassVar[frozenset[str]]

    def __init__(self, id: str, until: Iterable[str] = ()) -> None:  # noqa: A002 - the reference's name
        super().__init__(id)
        self.until = frozenset(until)

    def serialize(self) -> dict[str, Any]:
        """Return the target in JSON types."""
        return super().serialize() | {"until": sorted(self.until)}

    @property
    def goal(self) -> str:
        """The awaited event in a negative sentence, for messages."""
        return f"{capitalize(self.name)} was not {' or '.join(['over', *sorted(self.until)])}"

    def seen(self, work: Work, now: datetime, *more: str) -> Snapshot:
        """Return the snapshot of a response; ``more`` are further words about the progress."""
        if work.id != self.id:
            raise PlanasonixUnreadableError(f"Asked for {self.name}, got {work.id}.")
        verb = "" if work.status in ("succeeded", "failed", "completed") else "was " if work.is_over else "is "
        remark = "" if work.status in self.known_states else " (a state that this version takes for one that goes on)"
        return Snapshot(
            status=work.status,
            is_over=work.is_over or work.status in self.until,
            description=f"{capitalize(self.name)} {verb}{work.status}{remark}",
            work=work,
            **self.figures(work, now, more),
        )

    @abstractmethod
    def figures(self, work: Any, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Return the fields of :class:`Snapshot` that depend on the kind of work."""


class JobTarget(WorkTarget):
    """A job."""

    kind = "job"
    id_name = "job_id"
    known_states = JOB_STATES

    @property
    def request(self) -> Request[Job]:
        """The request for the job."""
        return routes.get_job(self.id).without("metadata")

    def poll(self, now: datetime, *, detailed: bool) -> Steps[Snapshot]:
        """Return the flow of a poll, which is one request."""
        return self.seen((yield self.request), now)

    def figures(self, work: Job, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Return the numbers of rows and bytes."""
        metrics, progress = work.metrics, list(more)
        if metrics and metrics.rows_loaded is not None:
            progress.append(f"{pluralize(metrics.rows_loaded, 'row')} loaded")
        elif metrics and metrics.rows_extracted is not None:
            progress.append(f"{pluralize(metrics.rows_extracted, 'row')} extracted")
        if metrics and metrics.bytes_read is not None:
            progress.append(f"{format_bytes(metrics.bytes_read)} read")
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


class BackfillTarget(WorkTarget):
    """A backfill."""

    kind = "backfill"
    id_name = "backfill_id"
    work_type = Backfill
    known_states = BACKFILL_STATES
    # The last count: not every poll counts.
    _jobs_done: int | None = None

    @property
    def request(self) -> Request[Backfill]:
        """The request for the backfill."""
        return routes.get_backfill(self.id).without("metadata", "tables")

    def poll(self, now: datetime, *, detailed: bool) -> Steps[Snapshot]:
        """Return the flow of a poll, which may also count the finished jobs."""
        backfill: Backfill = yield self.request
        if not backfill.job_ids or backfill.is_over:
            return self.seen(backfill, now)
        total = len(backfill.job_ids)
        if detailed and (to_do := (yield from self._jobs_to_do(backfill))) is not None:
            self._jobs_done = total - to_do
        jobs = f"{pluralize(total, 'job')} so far"
        return self.seen(backfill, now, jobs if self._jobs_done is None else f"{self._jobs_done:,} of {jobs} done")

    @staticmethod
    def lists_of_active_jobs(backfill: Backfill) -> list[Request[Page[Job]]]:
        """Return requests for the active jobs of a backfill's connection, as backfills may have thousands of others."""
        return [
            routes.list_jobs(
                connection_id=backfill.connection_id or None, status=status, since=backfill.created_at, limit=PAGE_SIZE
            ).without("metadata")
            for status in ACTIVE_STATES
        ]

    def _jobs_to_do(self, backfill: Backfill) -> Steps[int | None]:
        """Return the number of jobs that have not ended."""
        active: set[str] = set()
        try:
            for request in self.lists_of_active_jobs(backfill):
                page: Page[Job] = yield request
                if page.cursor:
                    return None
                active.update(job.id for job in page.data if not job.is_over)
        except PlanasonixError:
            # These are only figures for the log, so the poll has not failed.
            return None
        return len(active.intersection(backfill.job_ids or ()))

    def figures(self, work: Backfill, now: datetime, more: Iterable[str]) -> dict[str, Any]:
        """Return how much of the window is loaded, and an estimate for the rest."""
        progress = []
        if work.progress_percent is not None and not work.is_over:
            progress.append(f"{work.progress_percent:.0f} %")
        if work.rows_processed is not None:
            progress.append(f"{pluralize(work.rows_processed, 'row')} processed")
        progress.extend(more)
        if (left := self._seconds_left(work, now)) and left >= 1:
            progress.append(f"about {format_duration(left)} left")
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
        """Return the estimated seconds left, in proportion to the part that is done."""
        percent = work.progress_percent or 0
        # A percentage close to zero would make the estimate infinite.
        if work.is_over or not 0.001 <= percent < 100 or work.created_at is None:
            return None
        passed = ((work.updated_at or now) - work.created_at).total_seconds()
        return passed * (100 - percent) / percent if passed > 0 else None


def target_of(work: Work) -> WorkTarget:
    """Return the target for a job or backfill."""
    return BackfillTarget(work.id) if isinstance(work, Backfill) else JobTarget(work.id)
