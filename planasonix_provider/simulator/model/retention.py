"""What is over, and how much of it is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob

#: What is forgotten as a whole: a sync, which is one job, or a backfill with all of its jobs.
Work: TypeAlias = SimulatedJob | SimulatedBackfill

#: How many jobs that are over are kept, unless a simulator is told otherwise: as many as one backfill may have.
DEFAULT_KEEP = 10_000


class Retention:
    """The work that is over, in the order in which it ended.

    :param keep: how many jobs of it are kept. The work that ended last stays, however many it has.
    :raises ValueError: if that is no positive number.
    """

    def __init__(self, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep: got {keep!r}, allowed is a number from 1.")
        self._keep = keep
        self._works: deque[Work] = deque()
        self._jobs = 0

    def add(self, work: Work) -> None:
        """Add work that has ended.

        :param work: the work.
        """
        self._works.append(work)
        self._jobs += len(jobs_of(work))

    def pop_surplus(self) -> Iterator[Work]:
        """Take out what is to be forgotten.

        :return: the work, the oldest first.
        """
        while self._jobs > self._keep and len(self._works) > 1:
            work = self._works.popleft()
            self._jobs -= len(jobs_of(work))
            yield work


def jobs_of(work: Work) -> list[SimulatedJob]:
    """Tell which jobs a work has.

    :param work: the work.
    :return: the jobs.
    """
    return work.jobs if isinstance(work, SimulatedBackfill) else [work]
