"""All that was started in a world, and what becomes of it: syncs, and backfills with the jobs that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from planasonix_provider.simulator.model.backfill_jobs import BackfillJobs
from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.collection import Collection
from planasonix_provider.simulator.model.job_index import JobIndex
from planasonix_provider.simulator.model.retention import Retention, Work, jobs_of
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob
from planasonix_provider.simulator.webhooks.webhook_events import StateChanges


class Workload:
    """The work of a world, as far as it is not forgotten.

    :param ids: makes the ids of the jobs that backfills make.
    :param keep: how many jobs that are over are kept.
    :raises ValueError: if ``keep`` is no positive number.
    """

    def __init__(self, ids: Ids, keep: int) -> None:
        self.jobs = JobIndex()
        self.backfills = Collection[SimulatedBackfill]("backfill")
        self._backfill_jobs = BackfillJobs(self.jobs, ids)
        self._retention = Retention(keep)
        # The ids of each connection's active syncs, in the order of their starts.
        self._active: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def start_sync(self, job: SimulatedJob) -> None:
        """Start a sync.

        :param job: its job.
        """
        self.jobs.add(job)
        self._active[job.connection_id][job.id] = None

    def start_backfill(self, backfill: SimulatedBackfill) -> None:
        """Start a backfill.

        :param backfill: the backfill; it makes its jobs as time goes on, the first ones at once.
        """
        self.backfills.add(backfill)
        self._backfill_jobs.add(backfill)
        self._backfill_jobs.make_due_jobs(backfill.created_at)

    def cancel(self, job: SimulatedJob, now: datetime) -> SimulatedJob | None:
        """Request a job's end.

        :param job: the job.
        :param now: at which moment.
        :return: the job as it is from now on; ``None`` if it is over, or its end was requested before.
        """
        return self._change(job, lambda: replace(job, cancel_requested_at=now), now)

    def fail(self, job: SimulatedJob, code: str | None, message: str | None, now: datetime) -> SimulatedJob | None:
        """Make a job fail.

        :param job: the job.
        :param code: the error code, as :meth:`.SimulatedJob.failed` takes it.
        :param message: the error message, as :meth:`.SimulatedJob.failed` takes it.
        :param now: at which moment.
        :return: the job as it is from now on; ``None`` if it is over, or its end was requested before.
        """
        return self._change(job, lambda: job.with_failure(code, message, now), now)

    def slow(self, job: SimulatedJob, seconds: float, now: datetime) -> SimulatedJob | None:
        """Let a job take longer.

        :param job: the job.
        :param seconds: how much longer it runs.
        :param now: from when on.
        :return: the job as it is from now on; ``None`` if it is over, or its end was requested before.
        :raises ValueError: if ``seconds`` is not allowed.
        """
        return self._change(job, lambda: job.with_slowdown(seconds, now), now)

    def active_sync_of(self, connection_id: str) -> str | None:
        """Tell which sync of a connection is active.

        :param connection_id: the connection.
        :return: the id of the one that started last, or ``None``.
        """
        return next(reversed(self._active[connection_id]), None)

    def backfill_of(self, job: SimulatedJob) -> str | None:
        """Tell which backfill has made a job.

        :param job: the job.
        :return: the backfill's id, or ``None`` if it is a sync.
        """
        return self._backfill_jobs.backfill_of(job)

    def by_start_time(self) -> list[Work]:
        """Tell what was started: syncs and backfills, and not the jobs that those have made.

        :return: the work.
        """
        syncs = [job for job in self.jobs.newest_first() if job.type == "connection_sync"]
        return sorted([*reversed(syncs), *self.backfills.newest_first()], key=lambda work: work.created_at)

    @property
    def next_change_at(self) -> datetime | None:
        """When something changes next by itself; ``None`` if all is over."""
        return min(filter(None, (self.jobs.next_change_at, self._backfill_jobs.next_at)), default=None)

    def advance(self, now: datetime) -> StateChanges | None:
        """Let happen what is due.

        :param now: until which moment.
        :return: what has happened, or ``None`` for nothing.
        """
        self._backfill_jobs.make_due_jobs(now)
        started, ended = self.jobs.advance(now)
        return StateChanges(started, ended, self._backfill_jobs.finished(ended, now)) if started or ended else None

    def retire(self, news: StateChanges) -> list[str]:
        """Put what is over to the past, and forget the oldest of that.

        :param news: what has happened, once everybody has been told.
        :return: the ids of the syncs and backfills that are forgotten.
        """
        syncs = [job for job in news.ended if job.type == "connection_sync"]
        for job in syncs:
            del self._active[job.connection_id][job.id]
        works: list[Work] = [*syncs, *news.backfills]
        for work in sorted(works, key=lambda work: work.ends_at):
            self._retention.add(work)
        surplus = list(self._retention.pop_surplus())
        for work in surplus:
            self._forget(work)
        return [work.id for work in surplus]

    def _change(self, job: SimulatedJob, change: Callable[[], SimulatedJob], now: datetime) -> SimulatedJob | None:
        """Put another job in the place of one whose end is not settled."""
        if job.cancel_requested_at is not None or self.jobs.is_over(job):
            return None
        changed = change()
        self.jobs.replace(changed, now)
        self._backfill_jobs.replace(changed)
        return changed

    def _forget(self, work: Work) -> None:
        for job in jobs_of(work):
            self.jobs.remove(job)
        if isinstance(work, SimulatedBackfill):
            self._backfill_jobs.forget(work)
            self.backfills.remove(work)
