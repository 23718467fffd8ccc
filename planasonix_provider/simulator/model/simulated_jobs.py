"""A job whose state at any time follows from its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from planasonix_provider.api.models import Job, JobResults, Metrics, SyncBody, TableResult, WorkError
from planasonix_provider.simulator.model.plans import MAX_SECONDS, Plan

#: The ratio of bytes to rows, from the example of the API reference.
BYTES, ROWS = 67_108_864, 45_210
#: How much of its work a job does that is planned to fail.
FAILURE_SHARE = 0.5
DEFAULT_FAILURE_MESSAGE = "The job was made to fail."


class Failure(NamedTuple):
    """When and why a job failed that was made to fail."""

    at: datetime
    error: WorkError


class Slowdown(NamedTuple):
    """From ``at`` on, when ``share`` (0 to 1) of the work was done, the rest is slower: ``seconds`` in all."""

    at: datetime
    share: float
    seconds: float


@dataclass(frozen=True)
class SimulatedJob:
    """A job that was started. Its position is the number of jobs that were created before it."""

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
        """Return this active job as failed; without a code, with that of its plan."""
        error = WorkError(
            code=self.plan.code if code is None else code,
            message=DEFAULT_FAILURE_MESSAGE if message is None else message,
        )
        return replace(self, failure=Failure(now, error))

    def with_slowdown(self, seconds: float, now: datetime) -> SimulatedJob:
        """Return this active job with a longer run: slower from now on, or from its start if it is queued."""
        total = seconds + (self.slowdown.seconds if self.slowdown else 0)
        if not (seconds > 0 and total <= MAX_SECONDS):
            raise ValueError(
                f"seconds: got {seconds!r}, allowed is a number above 0, in all {MAX_SECONDS} (a year) at most."
            )
        return replace(self, slowdown=Slowdown(max(now, self.starts_at), self._share_at(now), total))

    @cached_property
    def starts_at(self) -> datetime:
        """When it starts to run, unless it is stopped before."""
        return self.created_at + timedelta(seconds=self.plan.queued_seconds)

    @cached_property
    def ends_at(self) -> datetime:
        if self.failure is not None:
            return self.failure.at
        if self.cancel_requested_at is not None:
            return self.cancel_requested_at + timedelta(seconds=self.plan.cancelling_seconds)
        return self._completes_at

    @cached_property
    def error(self) -> WorkError:
        """Its error, if it fails."""
        return self.failure.error if self.failure else WorkError(code=self.plan.code, message=self.plan.message)

    @property
    def outcome(self) -> str:
        """Its final state, unless it is cancelled."""
        return "failed" if self.failure else self.plan.outcome

    @property
    def stopped_at(self) -> datetime | None:
        """When a failure or a cancel stopped its work early."""
        return self.failure.at if self.failure else self.cancel_requested_at

    def status_at(self, now: datetime) -> str:
        has_ended = now >= self.ends_at
        if self.cancel_requested_at is not None:
            return "cancelled" if has_ended else "cancelling"
        if has_ended:
            return self.outcome
        return "running" if now >= self.starts_at else "queued"

    def next_change_after(self, now: datetime) -> datetime | None:
        """Return when its state changes next by itself; ``None`` if it has ended."""
        if now >= self.ends_at:
            return None
        is_queued = self.stopped_at is None and now < self.starts_at
        return self.starts_at if is_queued else self.ends_at

    def started_at(self, now: datetime) -> datetime | None:
        """Return when it started to run; ``None`` if it has not, or was stopped before."""
        return self.starts_at if min(now, self.stopped_at or now) >= self.starts_at else None

    def progress_at(self, now: datetime) -> float:
        """Return how much of its work is done, from 0 to 1."""
        share = self._share_at(min(now, self.stopped_at or now))
        return share * FAILURE_SHARE if self.plan.outcome == "failed" else share

    def rows_loaded_at(self, now: datetime) -> int:
        return sum(self._loaded_at(now).values())

    def updated_at(self, now: datetime) -> datetime:
        """Return when it last changed. A running job changes all the time, a queued or cancelling one does not."""
        if now >= self.ends_at:
            return self.ends_at
        return self.cancel_requested_at or (now if now >= self.starts_at else self.created_at)

    def summary_at(self, now: datetime) -> Job:
        """Return the fields that lists contain. They change only with the state; no field is set to ``None``."""
        status = self.status_at(now)
        if status not in self._summaries:
            optional = {"pipeline_id": self.body.pipeline_id, "started_at": self.started_at(now)}
            self._summaries[status] = Job(
                id=self.id,
                type=self.type,
                status=status,
                connection_id=self.connection_id,
                created_at=self.created_at,
                **without_nones(optional),
            )
        return self._summaries[status]

    def model_at(self, now: datetime) -> Job:
        """Return all fields. A field that is set to ``None`` is one that the API sends as ``null``."""
        status = self.status_at(now)
        started_at = self.started_at(now)
        finished_at = self.ends_at if now >= self.ends_at else None
        duration = (finished_at - started_at).total_seconds() if finished_at and started_at else None
        optional = {
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
            **without_nones(optional),
        )

    def results_at(self, now: datetime) -> JobResults:
        """Return the results; without tables and warnings while the job is active."""
        has_ended = now >= self.ends_at
        return JobResults(
            job_id=self.id,
            status=self.status_at(now),
            tables=[self._table(name, rows) for name, rows in self._loaded_at(now).items()] if has_ended else [],
            warnings=list(self.plan.warnings) if has_ended else [],
        )

    @cached_property
    def _summaries(self) -> dict[str, Job]:
        """A cache by state: without it, a page of a hundred jobs takes twice as long."""
        return {}

    @cached_property
    def _completes_at(self) -> datetime:
        """When it ends unless it is stopped."""
        extra = self.slowdown.seconds if self.slowdown else 0
        return self.starts_at + timedelta(seconds=self.plan.running_seconds) + timedelta(seconds=extra)

    def _share_at(self, time: datetime) -> float:
        """Return the share of its running time that has passed, as if it were going to succeed."""
        if time < self.starts_at:
            return 0.0
        if time >= self._completes_at:
            return 1.0
        slowdown = self.slowdown
        if slowdown and time >= slowdown.at:
            rest = (time - slowdown.at) / (self._completes_at - slowdown.at)
            return slowdown.share + (1 - slowdown.share) * rest
        share = (time - self.starts_at).total_seconds() / self.plan.running_seconds
        return min(share, slowdown.share) if slowdown else share

    def _loaded_at(self, now: datetime) -> dict[str, int]:
        progress = self.progress_at(now)
        return {name: int(rows * progress) for name, rows in self.plan.tables.items()}

    def _metrics_at(self, now: datetime) -> Metrics:
        # More rows are extracted than loaded, so that a client that confuses the two notices.
        extracted = int(sum(self.plan.tables.values()) * min(1.0, self.progress_at(now) * 1.1))
        loaded = self.rows_loaded_at(now)
        return Metrics(rows_extracted=extracted, rows_loaded=loaded, bytes_read=extracted * BYTES // ROWS)

    def _table(self, name: str, rows: int) -> TableResult:
        checksum = sha256(f"{self.id}/{name}/{rows}".encode()).hexdigest()
        return TableResult(name=name, rows_loaded=rows, checksum=f"sha256:{checksum}")


def without_nones(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
