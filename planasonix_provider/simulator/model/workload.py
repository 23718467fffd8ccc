"""All syncs and backfills of a workspace with their jobs, and how many of those that have ended are kept."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from planasonix_provider.api.states import BACKFILL_OVER
from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.job_index import JobIndex
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob

#: A sync, which is one job, or a backfill with all of its jobs. Its jobs are removed together.
Work: TypeAlias = SimulatedJob | SimulatedBackfill

#: How many ended jobs are kept by default: as many as one backfill may have.
DEFAULT_KEEP = 10_000


class StateChange(NamedTuple):
    """A new state of a job or backfill, such as ``job.succeeded``."""

    type: str
    at: datetime
    id: str


@dataclass(frozen=True)
class StateChanges:
    """The jobs that started, the jobs that ended, and the backfills that ended."""

    started: Sequence[SimulatedJob]
    ended: Sequence[SimulatedJob]
    backfills: Sequence[SimulatedBackfill]

    def __iter__(self) -> Iterator[StateChange]:
        for job in self.started:
            yield StateChange("job.queued", job.created_at, job.id)
        for job in self.ended:
            yield StateChange(f"job.{job.status_at(job.ends_at)}", job.ends_at, job.id)
        for backfill in self.backfills:
            yield StateChange(f"backfill.{backfill.status_at(backfill.ends_at)}", backfill.ends_at, backfill.id)

    def to_json(self, backfill_of: Callable[[SimulatedJob], str | None]) -> list[dict[str, Any]]:
        """Return the changes for the journal; those of a backfill's job contain its ``backfill_id``."""
        backfill_ids = {
            job.id: backfill_id for job in (*self.started, *self.ended) if (backfill_id := backfill_of(job))
        }
        return [
            {
                "type": change.type,
                "at": change.at.isoformat(),
                "id": change.id,
                **({"backfill_id": backfill_ids[change.id]} if change.id in backfill_ids else {}),
            }
            for change in self
        ]


class BackfillJobs:
    """Creates the jobs of all backfills in the order in which they are due, and knows the backfill of each."""

    def __init__(self, jobs: JobIndex, ids: Ids) -> None:
        self._jobs = jobs
        self._ids = ids
        # The backfills that will create more jobs.
        self._incomplete: list[SimulatedBackfill] = []
        # By job id: the backfill, and the job's number in it.
        self._backfills: dict[str, tuple[SimulatedBackfill, int]] = {}

    def add(self, backfill: SimulatedBackfill) -> None:
        """Add a backfill, which has no jobs yet."""
        self._incomplete.append(backfill)

    def create_due_jobs(self, now: datetime) -> None:
        """Create the jobs that are due, the earliest first."""
        due = [(at, backfill) for backfill in self._incomplete for at in backfill.due_jobs(now)]
        if not due:
            return
        for at, backfill in sorted(due, key=lambda pair: pair[0]):
            job = backfill.create_job(self._ids("job"), self._jobs.next_position, at)
            self._jobs.add(job)
            self._backfills[job.id] = (backfill, len(backfill.jobs) - 1)
        self._incomplete = [backfill for backfill in self._incomplete if backfill.next_job_at() is not None]

    @property
    def next_at(self) -> datetime | None:
        """When the next job is created."""
        return min(filter(None, (backfill.next_job_at() for backfill in self._incomplete)), default=None)

    def replace(self, job: SimulatedJob) -> None:
        """Pass a changed job to its backfill; a sync has none."""
        if job.id in self._backfills:
            backfill, number = self._backfills[job.id]
            backfill.replace_job(number, job)

    def ended_backfills(self, ended: Iterable[SimulatedJob], now: datetime) -> list[SimulatedBackfill]:
        """Return the backfills of these jobs that have ended with them."""
        backfills = dict.fromkeys(self._backfills[job.id][0] for job in ended if job.id in self._backfills)
        return [backfill for backfill in backfills if backfill.status_at(now) in BACKFILL_OVER]

    def backfill_of(self, job: SimulatedJob) -> str | None:
        """Return the id of a job's backfill; ``None`` for a sync."""
        return self._backfills[job.id][0].id if job.id in self._backfills else None

    def remove(self, backfill: SimulatedBackfill) -> None:
        """Remove a backfill that has ended."""
        for job in backfill.jobs:
            del self._backfills[job.id]


class Workload:
    """The syncs and backfills of a workspace, until they are removed.

    :param keep: how many ended jobs are kept.
    """

    def __init__(self, ids: Ids, keep: int) -> None:
        self.jobs = JobIndex()
        self.backfills = Collection[SimulatedBackfill]("backfill")
        self._backfill_jobs = BackfillJobs(self.jobs, ids)
        self._retention = Retention(keep)
        # The ids of each connection's active syncs, in the order of their starts.
        self._active: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def start_sync(self, job: SimulatedJob) -> None:
        """Add the job of a sync."""
        self.jobs.add(job)
        self._active[job.connection_id][job.id] = None

    def start_backfill(self, backfill: SimulatedBackfill) -> None:
        """Add a backfill, and create the jobs that it has at once."""
        self.backfills.add(backfill)
        self._backfill_jobs.add(backfill)
        self._backfill_jobs.create_due_jobs(backfill.created_at)

    def change(
        self, job: SimulatedJob, change: Callable[[SimulatedJob], SimulatedJob], now: datetime
    ) -> SimulatedJob | None:
        """Change a job, and return the changed one; ``None`` if the job has ended or was cancelled before."""
        if job.cancel_requested_at is not None or self.jobs.has_ended(job):
            return None
        changed = change(job)
        self.jobs.replace(changed, now)
        self._backfill_jobs.replace(changed)
        return changed

    def active_sync_of(self, connection_id: str) -> str | None:
        """Return the id of the connection's newest active sync."""
        return next(reversed(self._active[connection_id]), None)

    def backfill_of(self, job: SimulatedJob) -> str | None:
        """Return the id of a job's backfill; ``None`` for a sync."""
        return self._backfill_jobs.backfill_of(job)

    def by_start_time(self) -> list[Work]:
        """Return the syncs and backfills, without the jobs of backfills, in the order of their starts."""
        syncs = [job for job in self.jobs.newest_first() if job.type == "connection_sync"]
        return sorted([*reversed(syncs), *self.backfills.newest_first()], key=lambda work: work.created_at)

    @property
    def next_change_at(self) -> datetime | None:
        """When a state changes next by itself; ``None`` if all work has ended."""
        return min(filter(None, (self.jobs.next_change_at, self._backfill_jobs.next_at)), default=None)

    def advance(self, now: datetime) -> StateChanges | None:
        """Apply all changes that are due, and return them; ``None`` if there are none."""
        self._backfill_jobs.create_due_jobs(now)
        started, ended = self.jobs.advance(now)
        if not (started or ended):
            return None
        return StateChanges(started, ended, self._backfill_jobs.ended_backfills(ended, now))

    def retire(self, changes: StateChanges) -> list[str]:
        """Pass ended work to the retention, and remove what exceeds it. Return the ids of the removed work."""
        syncs = [job for job in changes.ended if job.type == "connection_sync"]
        for job in syncs:
            del self._active[job.connection_id][job.id]
        ended: list[Work] = [*syncs, *changes.backfills]
        for work in sorted(ended, key=lambda work: work.ends_at):
            self._retention.add(work)
        removed = list(self._retention.pop_surplus())
        for work in removed:
            self._remove(work)
        return [work.id for work in removed]

    def _remove(self, work: Work) -> None:
        for job in _jobs_of(work):
            self.jobs.remove(job)
        if isinstance(work, SimulatedBackfill):
            self._backfill_jobs.remove(work)
            self.backfills.remove(work)


class Retention:
    """The work that has ended, in this order. The newest is kept even if it has more than ``keep`` jobs."""

    def __init__(self, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep: got {keep!r}, allowed is a number from 1.")
        self._keep = keep
        self._ended: deque[Work] = deque()
        self._jobs = 0

    def add(self, work: Work) -> None:
        """Add work that has ended."""
        self._ended.append(work)
        self._jobs += len(_jobs_of(work))

    def pop_surplus(self) -> Iterator[Work]:
        """Remove and return the oldest work beyond the limit."""
        while self._jobs > self._keep and len(self._ended) > 1:
            work = self._ended.popleft()
            self._jobs -= len(_jobs_of(work))
            yield work


def _jobs_of(work: Work) -> list[SimulatedJob]:
    return work.jobs if isinstance(work, SimulatedBackfill) else [work]
