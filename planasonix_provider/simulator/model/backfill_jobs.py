"""Creates the jobs of all backfills in the order in which they are due."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from planasonix_provider.api.states import BACKFILL_OVER
from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.job_index import JobIndex
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob


class BackfillJobs:
    """The jobs that backfills create, and which backfill each belongs to."""

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
