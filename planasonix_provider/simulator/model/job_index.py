"""The jobs, filed by their states: a list of the running ones costs nothing for all those that are over."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, TypeVar

from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob

#: What lists are ordered by: a position, or a time and a position.
T = TypeVar("T", int, tuple[datetime, int])


class JobChanges(NamedTuple):
    """What happened to the jobs.

    :param started: those that were started, in this order.
    :param ended: those that ended, in any order.
    """

    started: list[SimulatedJob]
    ended: list[SimulatedJob]


class JobIndex(Collection[SimulatedJob]):
    """All jobs. Their states follow from plan and clock, so :meth:`advance` is to be called before a look at them."""

    def __init__(self) -> None:
        super().__init__("job")
        self._in_state: defaultdict[str, list[int]] = defaultdict(list)
        self._due: list[tuple[datetime, int]] = []
        # Where a job is filed, and when it is due, follows from the moment for which it was filed.
        self._filed_for: dict[int, datetime] = {}
        self._changes = JobChanges([], [])

    def add(self, thing: SimulatedJob) -> None:
        """Put a job behind all others.

        :param thing: the job.
        """
        super().add(thing)
        self._file(thing, thing.created_at)
        self._changes.started.append(thing)

    def replace(self, job: SimulatedJob, now: datetime) -> None:
        """Put a job in the place of the one with the same id, which is not over.

        :param job: the job.
        :param now: from when on it is different.
        """
        self._unfile(self.get(job.id))
        self._put(job)
        self._file(job, now)

    def remove(self, thing: SimulatedJob) -> None:
        """Take a job away.

        :param thing: the job.
        """
        self._unfile(thing)
        super().remove(thing)

    def advance(self, now: datetime) -> JobChanges:
        """File all jobs by the states that they are in.

        :param now: at which moment.
        :return: what happened since the last time.
        """
        while self._due and self._due[0][0] <= now:
            job = self._by_position[self._due[0][1]]
            self._unfile(job)
            self._file(job, now)
        changes, self._changes = self._changes, JobChanges([], [])
        return changes

    @property
    def next_change_at(self) -> datetime | None:
        """When the next of the jobs changes its state; ``None`` if all are over."""
        return self._due[0][0] if self._due else None

    def is_over(self, job: SimulatedJob) -> bool:
        """Tell whether a job has ended. One that has stays so, even if the clock is set back.

        :param job: the job.
        :return: whether it is over.
        """
        return job.next_change_after(self._filed_for[job.position]) is None

    def in_state(self, status: str, before: int | None = None) -> Iterator[SimulatedJob]:
        """Give the jobs in a state one by one.

        :param status: the state.
        :param before: only those that came before this position; ``None`` is all.
        :return: the jobs, newest first.
        """
        return self._newest_first(self._in_state.get(status, ()), before)

    def counts(self) -> dict[str, int]:
        """Count the jobs.

        :return: how many there are in each state that a job has been in.
        """
        return {status: len(positions) for status, positions in self._in_state.items()}

    def _file(self, job: SimulatedJob, now: datetime) -> None:
        self._filed_for[job.position] = now
        insort(self._in_state[job.status_at(now)], job.position)
        due = job.next_change_after(now)
        if due is None:
            self._changes.ended.append(job)
        else:
            insort(self._due, (due, job.position))

    def _unfile(self, job: SimulatedJob) -> None:
        filed_for = self._filed_for.pop(job.position)
        _take(self._in_state[job.status_at(filed_for)], job.position)
        due = job.next_change_after(filed_for)
        if due is not None:
            _take(self._due, (due, job.position))


def _take(ordered: list[T], one: T) -> None:
    del ordered[bisect_left(ordered, one)]
