"""How backfills come to their jobs: each is made when its time has come, in between those that others start."""

from __future__ import annotations

from datetime import datetime

from planasonix_provider.simulator.backfills import PlannedBackfill
from planasonix_provider.simulator.jobs import PlannedJob
from planasonix_provider.simulator.shelf import Shelf
from planasonix_provider.simulator.sources import Ids


class Shards:
    """The jobs that backfills make.

    :param jobs: where they are put.
    :param ids: makes their ids.
    """

    def __init__(self, jobs: Shelf[PlannedJob], ids: Ids) -> None:
        self._jobs = jobs
        self._ids = ids
        self._makers: list[PlannedBackfill] = []
        self._shards: dict[str, tuple[PlannedBackfill, int]] = {}

    def expect(self, backfill: PlannedBackfill) -> None:
        """Expect the jobs of a backfill.

        :param backfill: the backfill, which has none yet.
        """
        self._makers.append(backfill)

    def make(self, now: datetime) -> None:
        """Make the jobs that are due, the earliest first.

        :param now: until which moment.
        """
        due = [(at, maker) for maker in self._makers for at in maker.due(now)]
        if not due:
            return
        for at, maker in sorted(due, key=lambda one: one[0]):
            job = maker.make_job(self._ids("job"), len(self._jobs), at)
            self._jobs.add(job)
            self._shards[job.id] = (maker, len(maker.jobs) - 1)
        self._makers = [maker for maker in self._makers if maker.next_at() is not None]

    def cancel(self, job: PlannedJob) -> None:
        """Tell the backfill of a job that the job's end was requested.

        :param job: the job as it is from now on; one of no backfill is left alone.
        """
        if job.id in self._shards:
            backfill, number = self._shards[job.id]
            backfill.replace_job(number, job)
