"""A job as a plan and a clock: what it shows at a moment follows from these, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from planasonix_provider.api.models import (
    Job,
    JobResults,
    JobWarning,
    Metrics,
    SyncBody,
    TableResult,
    WorkError,
)

#: How many seconds a year has.
MAX_SECONDS = 31_536_000
#: A stretch of time in seconds, at most a year.
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
#: A number of rows.
Rows = Annotated[int, Field(ge=0, le=10**15)]

#: How many bytes how many rows have: those of the reference's example.
BYTES, ROWS = 67_108_864, 45_210
#: How far a job comes that is planned to fail.
FAILURE_SHARE = 0.5
#: What a job says that was made to fail, unless another message was given.
DEFAULT_FAILURE_MESSAGE = "The job failed, as it was told to."


class Plan(BaseModel):
    """What a job is going to do.

    :param outcome: how it ends if nobody cancels it, ``succeeded`` (default) or ``failed``.
    :param code: the error code of a job that fails; default ``sync_failed``.
    :param message: the error message of a job that fails; default: that it was planned to.
    :param queued_seconds: for how many seconds it waits before it runs; default 2.
    :param running_seconds: for how many seconds it runs; default 20.
    :param cancelling_seconds: how many seconds it takes to end once a cancel is requested; default 1.
    :param tables: how many rows it loads into each table, by default some into ``public.orders``; a job that does not
        succeed loads a part of them.
    :param warnings: what its results warn of, each with a ``code`` and a ``message``; default nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Literal["succeeded", "failed"] = "succeeded"
    code: str = "sync_failed"
    message: str = "The sync failed, as it was planned to."
    queued_seconds: Seconds = 2.0
    running_seconds: Seconds = 20.0
    cancelling_seconds: Seconds = 1.0
    tables: dict[str, Rows] = {"public.orders": 44802}
    warnings: tuple[JobWarning, ...] = ()

    def faster(self, speed: float) -> Plan:
        """Do the same in less time.

        :param speed: by which factor.
        :return: the faster plan; the same one at the same speed, for thousands of jobs share it then.
        """
        if speed == 1:
            return self
        names = ("queued_seconds", "running_seconds", "cancelling_seconds")
        return self.model_copy(update={name: getattr(self, name) / speed for name in names})


class PlanChanges(TypedDict, total=False):
    """The fields of a :class:`Plan`, each of which may be left out."""

    outcome: Literal["succeeded", "failed"]
    code: str
    message: str
    queued_seconds: float
    running_seconds: float
    cancelling_seconds: float
    tables: Mapping[str, int]
    warnings: Sequence[Mapping[str, str]]


class Failure(NamedTuple):
    """The end of a job that was made to fail.

    :param at: when.
    :param error: what it failed of.
    """

    at: datetime
    error: WorkError


class Slowdown(NamedTuple):
    """What lets a job take longer than planned: it goes on with what is left to do, but slower.

    :param at: from when on.
    :param share: how much of the work was done by then, from 0 to 1.
    :param seconds: how much longer the job runs than planned.
    """

    at: datetime
    share: float
    seconds: float


@dataclass(frozen=True)
class SimulatedJob:
    """A job that was started.

    :param id: its id.
    :param position: how many jobs were started before it.
    :param connection_id: the connection that it loads from.
    :param body: what it was started with.
    :param created_at: when it was started.
    :param plan: what it is going to do.
    :param cancel_requested_at: when a cancel was requested, or ``None``.
    :param type: its type.
    :param failure: how it was made to fail, or ``None``.
    :param delay: what lets it take longer than planned, or ``None``.
    """

    id: str
    position: int
    connection_id: str
    body: SyncBody
    created_at: datetime
    plan: Plan
    cancel_requested_at: datetime | None = None
    type: str = "connection_sync"
    failure: Failure | None = None
    slowdown: Slowdown | None = None

    def with_failure(self, code: str | None, message: str | None, now: datetime) -> SimulatedJob:
        """Make it fail, if it is neither over nor asked to end.

        :param code: the error code; ``None`` is that of its plan.
        :param message: the error message; ``None`` is :data:`MADE_TO_FAIL`.
        :param now: at which moment.
        :return: the job as it is from then on.
        """
        error = WorkError(
            code=self.plan.code if code is None else code,
            message=DEFAULT_FAILURE_MESSAGE if message is None else message,
        )
        return replace(self, failure=Failure(now, error))

    def with_slowdown(self, seconds: float, now: datetime) -> SimulatedJob:
        """Let it take longer, if it is neither over nor asked to end.

        :param seconds: how much longer it runs.
        :param now: from when on; if it does not run yet, from its start on.
        :return: the job as it is from then on.
        :raises ValueError: if that is not above 0, or is more than a year with what it was given before.
        """
        longer = seconds + (self.slowdown.seconds if self.slowdown else 0)
        if not (seconds > 0 and longer <= MAX_SECONDS):
            raise ValueError(
                f"seconds: got {seconds!r}, allowed is a number above 0, in all {MAX_SECONDS} (a year) at most."
            )
        return replace(self, slowdown=Slowdown(max(now, self.starts_at), self._share_at(now), longer))

    @cached_property
    def starts_at(self) -> datetime:
        """When it begins to run, unless it is cancelled before."""
        return self.created_at + timedelta(seconds=self.plan.queued_seconds)

    @cached_property
    def ends_at(self) -> datetime:
        """When it is over."""
        if self.failure is not None:
            return self.failure.at
        if self.cancel_requested_at is not None:
            return self.cancel_requested_at + timedelta(seconds=self.plan.cancelling_seconds)
        return self._done_at

    @cached_property
    def error(self) -> WorkError:
        """What it fails of, if it fails."""
        return self.failure.error if self.failure else WorkError(code=self.plan.code, message=self.plan.message)

    @property
    def outcome(self) -> str:
        """How it ends if nobody cancels it."""
        return "failed" if self.failure else self.plan.outcome

    @property
    def stopped_at(self) -> datetime | None:
        """When somebody let it work no more, before all was done; ``None`` if nobody did."""
        return self.failure.at if self.failure else self.cancel_requested_at

    def status_at(self, now: datetime) -> str:
        """Tell its state.

        :param now: at which moment.
        :return: one of the states that the reference names.
        """
        is_over = now >= self.ends_at
        if self.cancel_requested_at is not None:
            return "cancelled" if is_over else "cancelling"
        if is_over:
            return self.outcome
        return "running" if now >= self.starts_at else "queued"

    def next_change_after(self, now: datetime) -> datetime | None:
        """Tell when its state changes next, unless it is cancelled before.

        :param now: at which moment this is asked.
        :return: the time, or ``None`` if it is over.
        """
        if now >= self.ends_at:
            return None
        is_queued = self.stopped_at is None and now < self.starts_at
        return self.starts_at if is_queued else self.ends_at

    def started_at(self, now: datetime) -> datetime | None:
        """Tell when it began to run.

        :param now: at which moment this is asked.
        :return: the time, or ``None`` if it did not run yet, or was ended before it could.
        """
        return self.starts_at if min(now, self.stopped_at or now) >= self.starts_at else None

    def progress_at(self, now: datetime) -> float:
        """Tell how much of its work is done.

        :param now: at which moment.
        :return: a share from 0 to 1.
        """
        share = self._share_at(min(now, self.stopped_at or now))
        return share * FAILURE_SHARE if self.plan.outcome == "failed" else share

    def rows_loaded_at(self, now: datetime) -> int:
        """Tell how many rows it has loaded into all tables.

        :param now: at which moment.
        :return: the number.
        """
        return sum(self._loaded_at(now).values())

    def updated_at(self, now: datetime) -> datetime:
        """Tell when it last changed. A running job changes all the time, a waiting or cancelling one does not.

        :param now: at which moment.
        :return: the time.
        """
        if now >= self.ends_at:
            return self.ends_at
        return self.cancel_requested_at or (now if now >= self.starts_at else self.created_at)

    def summary_at(self, now: datetime) -> Job:
        """Show what lists show of the job, which changes with its state only.

        :param now: at which moment.
        :return: the job. A field that is ``None`` is not set at all.
        """
        status = self.status_at(now)
        if status not in self._listed:
            given = {"pipeline_id": self.body.pipeline_id, "started_at": self.started_at(now)}
            self._listed[status] = Job(
                id=self.id,
                type=self.type,
                status=status,
                connection_id=self.connection_id,
                created_at=self.created_at,
                **_without_nones(given),
            )
        return self._listed[status]

    def model_at(self, now: datetime) -> Job:
        """Show the job with all its details.

        :param now: at which moment.
        :return: the job. A field that is ``None`` is one that the API sends as ``null``; others are not set at all.
        """
        status = self.status_at(now)
        started_at = self.started_at(now)
        finished_at = self.ends_at if now >= self.ends_at else None
        duration = (finished_at - started_at).total_seconds() if finished_at and started_at else None
        given: dict[str, Any] = {
            "pipeline_id": self.body.pipeline_id,
            "metadata": self.body.metadata,
            "started_at": started_at,
            "cancel_requested_at": self.cancel_requested_at,
        }
        return Job(
            id=self.id,
            type=self.type,
            status=status,
            connection_id=self.connection_id,
            created_at=self.created_at,
            queued_at=self.created_at,
            finished_at=finished_at,
            duration_seconds=duration,
            metrics=self._metrics_at(now),
            error=self.error if status == "failed" else None,
            **_without_nones(given),
        )

    def results_at(self, now: datetime) -> JobResults:
        """Show what the job loaded.

        :param now: at which moment.
        :return: the results; a stub without tables while the job is not over.
        """
        is_over = now >= self.ends_at
        return JobResults(
            job_id=self.id,
            status=self.status_at(now),
            tables=[self._table(name, rows) for name, rows in self._loaded_at(now).items()] if is_over else [],
            warnings=list(self.plan.warnings) if is_over else [],
        )

    @cached_property
    def _listed(self) -> dict[str, Job]:
        """What lists show, by state: a page of a hundred would take twice as long to make each of them anew."""
        return {}

    @cached_property
    def _done_at(self) -> datetime:
        """When it is over, unless somebody ends it before."""
        longer = self.slowdown.seconds if self.slowdown else 0
        return self.starts_at + timedelta(seconds=self.plan.running_seconds) + timedelta(seconds=longer)

    def _share_at(self, moment: datetime) -> float:
        """Tell which share of the time that it runs has gone by, as if it were going to succeed."""
        if moment < self.starts_at:
            return 0.0
        if moment >= self._done_at:
            return 1.0
        delay = self.slowdown
        if delay and moment >= delay.at:
            return delay.share + (1 - delay.share) * ((moment - delay.at) / (self._done_at - delay.at))
        share = (moment - self.starts_at).total_seconds() / self.plan.running_seconds
        return min(share, delay.share) if delay else share

    def _loaded_at(self, now: datetime) -> dict[str, int]:
        progress = self.progress_at(now)
        return {name: int(rows * progress) for name, rows in self.plan.tables.items()}

    def _metrics_at(self, now: datetime) -> Metrics:
        # Extracting runs ahead of loading, so that a reader who takes one for the other notices.
        extracted = int(sum(self.plan.tables.values()) * min(1.0, self.progress_at(now) * 1.1))
        loaded = self.rows_loaded_at(now)
        return Metrics(rows_extracted=extracted, rows_loaded=loaded, bytes_read=extracted * BYTES // ROWS)

    def _table(self, name: str, rows: int) -> TableResult:
        checksum = sha256(f"{self.id}/{name}/{rows}".encode()).hexdigest()
        return TableResult(name=name, rows_loaded=rows, checksum=f"sha256:{checksum}")


def _without_nones(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
