"""A backfill as a plan, a clock and the jobs that it has made: what it shows at a moment follows from these."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from planasonix_provider.api.models import Backfill, BackfillBody, SyncBody, WorkError
from planasonix_provider.simulator.model.backfill_plans import BackfillPlan
from planasonix_provider.simulator.model.request_bodies import RejectNullFields
from planasonix_provider.simulator.model.simulated_jobs import FAILURE_SHARE, Plan, SimulatedJob
from planasonix_provider.simulator.model.timestamps import IsoTime


class BackfillRequestBody(RejectNullFields, BackfillBody):
    """A body that the API takes for a backfill; all else it refuses."""

    start_at: IsoTime
    end_at: IsoTime
    tables: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("end_at")
    @classmethod
    def _end_after_start(cls, end_at: datetime, others: ValidationInfo) -> datetime:
        start_at = others.data.get("start_at")
        if start_at and end_at <= start_at:
            raise ValueError("must be after start_at")
        return end_at

    @field_validator("tables")
    @classmethod
    def _tables_are_names(cls, tables: list[str] | None) -> list[str] | None:
        names = tables or []
        if not all(name.strip() for name in names):
            raise ValueError("must not hold a blank name")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"must not name a table twice: {', '.join(twice)}")
        return tables


class Progress(NamedTuple):
    """How far a backfill has come.

    :param jobs: how many jobs' work is done, one that is half done counted as half.
    :param rows: how many rows were loaded.
    """

    jobs: float
    rows: int


@dataclass(eq=False)
class SimulatedBackfill:
    """A backfill that was started.

    It shows a moment rightly once it has made all jobs that are due by then.

    :param id: its id.
    :param position: how many backfills were started before it.
    :param connection_id: the connection that it loads from.
    :param body: what it was started with.
    :param created_at: when it was started.
    :param plan: what it is going to do.
    :param jobs: the jobs that it has made.
    :param cancelled_at: when the first cancel of one of its jobs was requested, or ``None``.
    """

    id: str
    position: int
    connection_id: str
    body: BackfillBody
    created_at: datetime
    plan: BackfillPlan
    jobs: list[SimulatedJob] = field(default_factory=list)
    cancelled_at: datetime | None = None
    _made_in_waves: int = 0
    # How much later than planned the next wave begins; below zero, earlier.
    _late: timedelta = timedelta()
    # What the jobs that were made to fail have not done of what they would have, by their numbers.
    _made_to_fail: dict[int, Progress] = field(default_factory=dict)

    def next_job_at(self, ahead: int = 0) -> datetime | None:
        """Tell when it makes its next job.

        :param ahead: how many jobs to skip.
        :return: the time, or ``None`` if it has made all of its jobs.
        """
        number = len(self.jobs) + ahead
        if number >= self.plan.jobs:
            return None
        if self.cancelled_at is None:
            return self._planned_begin(number // self.plan.parallel) + self._late
        late = number - self._made_in_waves + 1
        if late > self.plan.jobs_after_cancel:
            return None
        share = late / self.plan.jobs_after_cancel
        return self.cancelled_at + timedelta(seconds=self.plan.cancelling_seconds * share)

    def due_jobs(self, now: datetime) -> Iterator[datetime]:
        """Tell which jobs it is to make.

        :param now: until which moment.
        :return: when each of them is made, in order.
        """
        ahead = 0
        while (next_at := self.next_job_at(ahead)) is not None and next_at <= now:
            yield next_at
            ahead += 1

    def make_job(self, job_id: str, position: int, created_at: datetime) -> SimulatedJob:
        """Make the next job.

        :param job_id: the job's id.
        :param position: how many jobs of anybody were started before it.
        :param created_at: when it is made.
        :return: the job.
        """
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
            self._made_in_waves = len(self.jobs)
        return job

    def replace_job(self, number: int, job: SimulatedJob) -> None:
        """Take note that a job is different: its end was requested, it was made to fail, or it takes longer.

        :param number: how many jobs it had made before this one.
        :param job: the job as it is from now on.
        """
        before, self.jobs[number] = self.jobs[number], job
        self.cancelled_at = self.cancelled_at or job.cancel_requested_at
        if job.failure:
            jobs = before.progress_at(before.ends_at) - job.progress_at(job.ends_at)
            rows = before.rows_loaded_at(before.ends_at) - job.rows_loaded_at(job.ends_at)
            self._made_to_fail[number] = Progress(jobs, rows)
        if self.cancelled_at is None:
            # The next wave comes when this one is over, whenever that is.
            self._late = self.ends_at - self._planned_begin(math.ceil(len(self.jobs) / self.plan.parallel))

    @property
    def ends_at(self) -> datetime:
        """When the last of the jobs that it has made is over."""
        return max(job.ends_at for job in self._last_wave)

    def status_at(self, now: datetime) -> str:
        """Tell its state.

        :param now: at which moment.
        :return: one of the states that the reference names.
        """
        if not self.jobs:
            return "queued"
        if self.next_job_at() is not None or any(now < job.ends_at for job in self._last_wave):
            return "running"
        if self.cancelled_at is not None:
            return "cancelled"
        return "failed" if self._failed else "completed"

    def model_at(self, now: datetime, *, with_jobs: bool = True) -> Backfill:
        """Show the backfill with all its details.

        :param now: at which moment.
        :param with_jobs: whether to name its jobs, of which there may be thousands.
        :return: the backfill. A field that is ``None`` is one that the API sends as ``null``; others are not set at
            all.
        """
        status = self.status_at(now)
        progress = self._progress_at(now)
        given: dict[str, Any] = {
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
            # Rounded first, for shares of jobs do not add up to the last digit.
            progress_percent=int(round(100 * progress.jobs / self.plan.jobs, 9)),
            rows_processed=progress.rows,
            error=self._error if status == "failed" else None,
            created_at=self.created_at,
            updated_at=max((job.updated_at(now) for job in self._last_wave), default=self.created_at),
            **{name: value for name, value in given.items() if value is not None},
        )

    @property
    def _last_wave(self) -> Sequence[SimulatedJob]:
        """The jobs that may not be over yet: no wave begins before the one before it is over."""
        return self.jobs[self._before_last_wave :]

    @property
    def _before_last_wave(self) -> int:
        return max(0, self._made_in_waves - 1) // self.plan.parallel * self.plan.parallel

    @property
    def _failed(self) -> frozenset[int]:
        """Which jobs have failed by the end, by their numbers."""
        return self.plan.failing_jobs.union(self._made_to_fail)

    @property
    def _error(self) -> WorkError:
        failed = len(self._failed)
        return WorkError(code="jobs_failed", message=f"{failed} of {self.plan.jobs} jobs failed")

    def _progress_at(self, now: datetime) -> Progress:
        done, rows = self._done_before(self._before_last_wave)
        # Thousands may run at a time, but most of them are at the same point of the same plan.
        alike = {(id(job.plan), job.created_at, job.stopped_at, job.slowdown): job for job in self._last_wave}
        counts = Counter((id(job.plan), job.created_at, job.stopped_at, job.slowdown) for job in self._last_wave)
        for fate, count in counts.items():
            done += count * alike[fate].progress_at(now)
            rows += count * alike[fate].rows_loaded_at(now)
        return Progress(done, rows)

    def _done_before(self, number: int) -> Progress:
        """Sum up the jobs before one of them, all of which ended as planned, but for those that were made to fail."""
        jobs = self.plan.jobs
        rows = sum(all_rows // jobs * number + min(number, all_rows % jobs) for all_rows in self._rows.values())
        failed = bisect_left(self._failing, number)
        undone = [lost for other, lost in self._made_to_fail.items() if other < number]
        return Progress(
            number - failed * (1 - FAILURE_SHARE) - sum(lost.jobs for lost in undone),
            rows - self._lost[failed] - sum(lost.rows for lost in undone),
        )

    def _planned_begin(self, wave: int) -> datetime:
        begin = self.created_at + timedelta(seconds=self.plan.queued_seconds)
        return begin + wave * self._job_time

    @cached_property
    def _rows(self) -> dict[str, int]:
        return self.plan.rows(self.body.tables)

    @cached_property
    def _failing(self) -> list[int]:
        return sorted(self.plan.failing_jobs)

    @cached_property
    def _lost(self) -> list[int]:
        """How many rows the first so many of the failing jobs do not load."""
        lost = (
            sum(rows - int(rows * FAILURE_SHARE) for rows in self._rows_of(number).values()) for number in self._failing
        )
        return list(accumulate(lost, initial=0))

    @cached_property
    def _job_time(self) -> timedelta:
        return timedelta(seconds=self._job_plan(0).running_seconds)

    @cached_property
    def _job_body(self) -> SyncBody:
        metadata = self.body.metadata
        return SyncBody() if metadata is None else SyncBody(metadata=metadata)

    @cached_property
    def _job_plans(self) -> dict[tuple[bool, ...], Plan]:
        return {}

    def _job_plan(self, number: int) -> Plan:
        """Plan a job; those with as many rows and the same end share a plan."""
        fails = number in self.plan.failing_jobs
        kind = (fails, *(number < all_rows % self.plan.jobs for all_rows in self._rows.values()))
        if kind not in self._job_plans:
            self._job_plans[kind] = self.plan.job(self._rows_of(number), fails=fails)
        return self._job_plans[kind]

    def _rows_of(self, number: int) -> dict[str, int]:
        jobs = self.plan.jobs
        return {name: all_rows // jobs + (number < all_rows % jobs) for name, all_rows in self._rows.items()}
