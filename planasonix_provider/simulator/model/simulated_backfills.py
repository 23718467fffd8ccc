"""A backfill whose state at any time follows from its plan and from the jobs that it has created."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from planasonix_provider.api.models import Backfill, BackfillBody, SyncBody, WorkError
from planasonix_provider.simulator.model.plans import BackfillPlan, Plan
from planasonix_provider.simulator.model.simulated_jobs import FAILURE_SHARE, SimulatedJob, without_nones


class Progress(NamedTuple):
    """The number of jobs done, a half-done job counted as half, and of rows loaded."""

    jobs: float
    rows: int


@dataclass(eq=False)
class SimulatedBackfill:
    """A backfill that was started. It is correct for a time once all jobs that are due by then were created.

    ``jobs`` are those that it has created. ``cancelled_at`` is when the first cancel of one of them was requested.
    """

    id: str
    position: int
    connection_id: str
    body: BackfillBody
    created_at: datetime
    plan: BackfillPlan
    jobs: list[SimulatedJob] = field(default_factory=list)
    cancelled_at: datetime | None = None
    _created_in_waves: int = 0
    # How much later than planned the next wave starts; negative if earlier.
    _wave_delay: timedelta = timedelta()
    # The progress that jobs lost because they were made to fail, by their number.
    _lost_progress: dict[int, Progress] = field(default_factory=dict)

    def next_job_at(self, skip: int = 0) -> datetime | None:
        """Return when it creates its next job, or with ``skip`` a later one; ``None`` if there is no such job."""
        number = len(self.jobs) + skip
        if number >= self.plan.jobs:
            return None
        if self.cancelled_at is None:
            return self._planned_start(number // self.plan.parallel) + self._wave_delay
        number_after_cancel = number - self._created_in_waves + 1
        if number_after_cancel > self.plan.jobs_after_cancel:
            return None
        share = number_after_cancel / self.plan.jobs_after_cancel
        return self.cancelled_at + timedelta(seconds=self.plan.cancelling_seconds * share)

    def due_jobs(self, now: datetime) -> Iterator[datetime]:
        """Return the creation times of the jobs that are due, in order."""
        skip = 0
        while (next_at := self.next_job_at(skip)) is not None and next_at <= now:
            yield next_at
            skip += 1

    def create_job(self, job_id: str, position: int, created_at: datetime) -> SimulatedJob:
        job = SimulatedJob(
            id=job_id,
            position=position,
            connection_id=self.connection_id,
            body=self._job_body,
            created_at=created_at,
            plan=self._job_plan(len(self.jobs)),
            type="backfill",
        )
        self.jobs.append(job)
        if self.cancelled_at is None:
            self._created_in_waves = len(self.jobs)
        return job

    def replace_job(self, number: int, job: SimulatedJob) -> None:
        """Replace a job by its changed version: cancelled, failed or slower."""
        before, self.jobs[number] = self.jobs[number], job
        self.cancelled_at = self.cancelled_at or job.cancel_requested_at
        if job.failure:
            jobs = before.progress_at(before.ends_at) - job.progress_at(job.ends_at)
            rows = before.rows_loaded_at(before.ends_at) - job.rows_loaded_at(job.ends_at)
            self._lost_progress[number] = Progress(jobs, rows)
        if self.cancelled_at is None:
            # The next wave starts when this one ends.
            self._wave_delay = self.ends_at - self._planned_start(math.ceil(len(self.jobs) / self.plan.parallel))

    @property
    def ends_at(self) -> datetime:
        """When the last job that it has created ends."""
        return max(job.ends_at for job in self._last_wave)

    def status_at(self, now: datetime) -> str:
        if not self.jobs:
            return "queued"
        if self.next_job_at() is not None or any(now < job.ends_at for job in self._last_wave):
            return "running"
        if self.cancelled_at is not None:
            return "cancelled"
        return "failed" if self._failed else "completed"

    def model_at(self, now: datetime, *, with_jobs: bool = True) -> Backfill:
        """Return all fields, or all but the job ids, of which there may be thousands.

        A field that is set to ``None`` is one that the API sends as ``null``.
        """
        status = self.status_at(now)
        progress = self._progress_at(now)
        optional = {
            "tables": self.body.tables,
            "metadata": self.body.metadata,
            "job_ids": [job.id for job in self.jobs] if with_jobs else None,
        }
        return Backfill(
            id=self.id,
            status=status,
            connection_id=self.connection_id,
            start_at=self.body.start_at,
            end_at=self.body.end_at,
            # Rounded first, because the sum of the jobs' shares is not exact.
            progress_percent=int(round(100 * progress.jobs / self.plan.jobs, 9)),
            rows_processed=progress.rows,
            error=self._error if status == "failed" else None,
            created_at=self.created_at,
            updated_at=max((job.updated_at(now) for job in self._last_wave), default=self.created_at),
            **without_nones(optional),
        )

    @property
    def _last_wave(self) -> Sequence[SimulatedJob]:
        """The jobs that may be active: no wave starts before the previous one has ended."""
        return self.jobs[self._before_last_wave :]

    @property
    def _before_last_wave(self) -> int:
        return max(0, self._created_in_waves - 1) // self.plan.parallel * self.plan.parallel

    @property
    def _failed(self) -> frozenset[int]:
        """The numbers of the jobs that have failed in the end."""
        return self.plan.failing_jobs.union(self._lost_progress)

    @property
    def _error(self) -> WorkError:
        return WorkError(code="jobs_failed", message=f"{len(self._failed)} of {self.plan.jobs} jobs failed")

    def _progress_at(self, now: datetime) -> Progress:
        done, rows = self._progress_before(self._before_last_wave)
        # Thousands of jobs may be active, but most of them have the same plan and times, and so the same progress.
        representatives = {_fate(job): job for job in self._last_wave}
        for fate, count in Counter(map(_fate, self._last_wave)).items():
            done += count * representatives[fate].progress_at(now)
            rows += count * representatives[fate].rows_loaded_at(now)
        return Progress(done, rows)

    def _progress_before(self, number: int) -> Progress:
        """Return the progress of the first jobs. All of them ended as planned, except those that were made to fail."""
        jobs = self.plan.jobs
        rows = sum(table_rows // jobs * number + min(number, table_rows % jobs) for table_rows in self._rows.values())
        failed = bisect_left(self._failing, number)
        lost = [progress for other, progress in self._lost_progress.items() if other < number]
        return Progress(
            number - failed * (1 - FAILURE_SHARE) - sum(progress.jobs for progress in lost),
            rows - self._unloaded_rows[failed] - sum(progress.rows for progress in lost),
        )

    def _planned_start(self, wave: int) -> datetime:
        start = self.created_at + timedelta(seconds=self.plan.queued_seconds)
        return start + wave * self._job_duration

    @cached_property
    def _rows(self) -> dict[str, int]:
        return self.plan.rows(self.body.tables)

    @cached_property
    def _failing(self) -> list[int]:
        return sorted(self.plan.failing_jobs)

    @cached_property
    def _unloaded_rows(self) -> list[int]:
        """By number of failing jobs: the rows that the first of them do not load."""
        unloaded = (
            sum(rows - int(rows * FAILURE_SHARE) for rows in self._rows_of(number).values()) for number in self._failing
        )
        return list(accumulate(unloaded, initial=0))

    @cached_property
    def _job_duration(self) -> timedelta:
        return timedelta(seconds=self._job_plan(0).running_seconds)

    @cached_property
    def _job_body(self) -> SyncBody:
        metadata = self.body.metadata
        return SyncBody() if metadata is None else SyncBody(metadata=metadata)

    @cached_property
    def _job_plans(self) -> dict[tuple[bool, ...], Plan]:
        return {}

    def _job_plan(self, number: int) -> Plan:
        """Return the plan of a job; jobs with the same rows and outcome share one."""
        fails = number in self.plan.failing_jobs
        key = (fails, *(number < rows % self.plan.jobs for rows in self._rows.values()))
        if key not in self._job_plans:
            self._job_plans[key] = self.plan.job_plan(self._rows_of(number), fails=fails)
        return self._job_plans[key]

    def _rows_of(self, number: int) -> dict[str, int]:
        jobs = self.plan.jobs
        return {name: rows // jobs + (number < rows % jobs) for name, rows in self._rows.items()}


def _fate(job: SimulatedJob) -> tuple[object, ...]:
    """Return what decides a job's progress."""
    return id(job.plan), job.created_at, job.stopped_at, job.slowdown
