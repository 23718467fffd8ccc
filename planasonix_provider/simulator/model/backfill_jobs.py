"""How backfills come to their jobs: each is made when its time has come, in between those that others start."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from planasonix_provider.api.states import BACKFILL_OVER
from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.job_index import JobIndex
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob


class BackfillJobs:
    """The jobs that backfills make.

    :param jobs: where they are put.
    :param ids: makes their ids.
    """

    def __init__(self, jobs: JobIndex, ids: Ids) -> None:
        self._jobs = jobs
        self._ids = ids
        self._makers: list[SimulatedBackfill] = []
        self._shards: dict[str, tuple[SimulatedBackfill, int]] = {}

    def add(self, backfill: SimulatedBackfill) -> None:
        """Expect the jobs of a backfill.

        :param backfill: the backfill, which has none yet.
        """
        self._makers.append(backfill)

    def make_due_jobs(self, now: datetime) -> None:
        """Make the jobs that are due, the earliest first.

        :param now: until which moment.
        """
        due = [(at, maker) for maker in self._makers for at in maker.due_jobs(now)]
        if not due:
            return
        for at, maker in sorted(due, key=lambda one: one[0]):
            job = maker.make_job(self._ids("job"), self._jobs.next_position, at)
            self._jobs.add(job)
            self._shards[job.id] = (maker, len(maker.jobs) - 1)
        self._makers = [maker for maker in self._makers if maker.next_job_at() is not None]

    @property
    def next_at(self) -> datetime | None:
        """When the next job is made; ``None`` if there is none to come."""
        return min(filter(None, (maker.next_job_at() for maker in self._makers)), default=None)

    def replace(self, job: SimulatedJob) -> None:
        """Tell the backfill of a job that the job is different from now on.

        :param job: the job as it is from now on; one of no backfill is left alone.
        """
        if job.id in self._shards:
            backfill, number = self._shards[job.id]
            backfill.replace_job(number, job)

    def finished(self, ended: Iterable[SimulatedJob], now: datetime) -> list[SimulatedBackfill]:
        """Tell which backfills are over now that some jobs are.

        :param ended: the jobs.
        :param now: at which moment.
        :return: the backfills of these jobs that are over.
        """
        backfills = dict.fromkeys(self._shards[job.id][0] for job in ended if job.id in self._shards)
        return [backfill for backfill in backfills if backfill.status_at(now) in BACKFILL_OVER]

    def backfill_of(self, job: SimulatedJob) -> str | None:
        """Tell which backfill has made a job.

        :param job: the job.
        :return: the backfill's id, or ``None`` if it is a sync.
        """
        return self._shards[job.id][0].id if job.id in self._shards else None

    def forget(self, backfill: SimulatedBackfill) -> None:
        """Forget which jobs are those of a backfill.

        :param backfill: the backfill, which is over.
        """
        for job in backfill.jobs:
            del self._shards[job.id]
