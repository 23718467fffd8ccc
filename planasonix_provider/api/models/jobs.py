"""Jobs: what a sync is started with, how far it has come, and what it has loaded."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from planasonix_provider.api.models.base import Id, Moment, Priority, Resource
from planasonix_provider.api.models.envelopes import DataReply, Page, Reply
from planasonix_provider.api.models.errors import OddError
from planasonix_provider.api.states import JOB_OVER


class SyncBody(Resource):
    """The body that starts a sync."""

    pipeline_id: str | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


class Metrics(Resource):
    """How far a job has come."""

    rows_extracted: int | None = None
    rows_loaded: int | None = None
    bytes_read: int | None = None


class Job(Resource):
    """One run of Planasonix work; lists and the answer to a cancel name only some of its fields."""

    id: Id
    status: str
    type: str | None = None
    connection_id: str | None = None
    pipeline_id: str | None = None
    created_at: Moment | None = None
    queued_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    duration_seconds: float | None = None
    cancel_requested_at: Moment | None = None
    metrics: Metrics | None = None
    error: OddError = None
    metadata: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended. A state that nobody knows is not an end."""
        return self.status in JOB_OVER


class TableResult(Resource):
    """What a job loaded into one table."""

    name: str
    rows_loaded: int | None = None
    checksum: str | None = None


class JobWarning(Resource):
    """Something that a job did and its owner should know of."""

    code: str | None = None
    message: str | None = None


class JobResults(Resource):
    """The summary of a job; a stub while the job runs, on some deployments."""

    job_id: str
    status: str
    tables: list[TableResult] = Field(default_factory=list, fail_fast=True)
    warnings: list[JobWarning] = Field(default_factory=list, fail_fast=True)


class JobReply(DataReply[Job]):
    """``{"data": {job}}``."""


class JobResultsReply(DataReply[JobResults]):
    """``{"data": {results}}``."""


class SyncStarted(Resource):
    """What a start wraps its job in."""

    job: Job


class SyncReply(Reply[Job]):
    """``{"data": {"job": {job}}}``."""

    data: SyncStarted

    @property
    def value(self) -> Job:
        """The job that was started."""
        return self.data.job


class JobPage(Page[Job]):
    """A page of jobs."""
