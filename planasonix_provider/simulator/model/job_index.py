"""The jobs, indexed by state, so that a list of the running jobs does not read those that have ended."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, TypeVar

from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob

#: The key of a sorted list: a position, or a time and a position.
T = TypeVar("T", int, tuple[datetime, int])


class JobChanges(NamedTuple):
    """The jobs that started, in this order, and those that ended, in any order."""

    started: list[SimulatedJob]
    ended: list[SimulatedJob]


class JobIndex(Collection[SimulatedJob]):
    """All jobs. A job's state follows from its plan and the clock, so call :meth:`advance` before reading."""

    def __init__(self) -> None:
        super().__init__("job")
        self._in_state: defaultdict[str, list[int]] = defaultdict(list)
        self._due: list[tuple[datetime, int]] = []
        # The time for which each job was indexed. Its entries in _in_state and _due follow from it.
        self._indexed_for: dict[int, datetime] = {}
        self._changes = JobChanges([], [])

    def add(self, item: SimulatedJob) -> None:
        """Add a job that was just created."""
        super().add(item)
        self._index(item, item.created_at)
        self._changes.started.append(item)

    def replace(self, job: SimulatedJob, now: datetime) -> None:
        """Replace the active job with the same id."""
        self._unindex(self.get(job.id))
        self._put(job)
        self._index(job, now)

    def remove(self, item: SimulatedJob) -> None:
        self._unindex(item)
        super().remove(item)

    def advance(self, now: datetime) -> JobChanges:
        """Index all jobs by their state at ``now``, and return what changed since the last call."""
        while self._due and self._due[0][0] <= now:
            job = self._by_position[self._due[0][1]]
            self._unindex(job)
            self._index(job, now)
        changes, self._changes = self._changes, JobChanges([], [])
        return changes

    @property
    def next_change_at(self) -> datetime | None:
        """When the next job changes its state; ``None`` if all have ended."""
        return self._due[0][0] if self._due else None

    def has_ended(self, job: SimulatedJob) -> bool:
        """Whether a job has ended. It stays so even if the clock is set back."""
        return job.next_change_after(self._indexed_for[job.position]) is None

    def in_state(self, status: str, before: int | None = None) -> Iterator[SimulatedJob]:
        """Return the jobs in a state, newest first; with ``before`` only those below this position."""
        return self._newest_first(self._in_state.get(status, ()), before)

    def counts(self) -> dict[str, int]:
        return {status: len(positions) for status, positions in self._in_state.items()}

    def _index(self, job: SimulatedJob, now: datetime) -> None:
        self._indexed_for[job.position] = now
        insort(self._in_state[job.status_at(now)], job.position)
        due = job.next_change_after(now)
        if due is None:
            self._changes.ended.append(job)
        else:
            insort(self._due, (due, job.position))

    def _unindex(self, job: SimulatedJob) -> None:
        indexed_for = self._indexed_for.pop(job.position)
        _remove(self._in_state[job.status_at(indexed_for)], job.position)
        due = job.next_change_after(indexed_for)
        if due is not None:
            _remove(self._due, (due, job.position))


def _remove(ordered: list[T], key: T) -> None:
    del ordered[bisect_left(ordered, key)]
