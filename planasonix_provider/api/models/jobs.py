"""Jobs: the body that starts a sync, the state of a job, and its results."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from planasonix_provider.api.models.base import Count, Id, Lenient, Moment, Name, Number, Priority, Resource, Text
from planasonix_provider.api.models.envelopes import DataEnvelope, Envelope, Page
from planasonix_provider.api.models.errors import OddError
from planasonix_provider.api.states import JOB_OVER

__all__ = [
    "Job",
    "JobEnvelope",
    "JobPage",
    "JobResults",
    "JobResultsEnvelope",
    "JobWarning",
    "Metrics",
    "SyncBody",
    "SyncEnvelope",
    "SyncStarted",
    "TableResult",
]


class SyncBody(Resource):
    """The body that starts a sync."""

    pipeline_id: str | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


class Metrics(Resource):
    """The progress of a job."""

    rows_extracted: Lenient[Count] = None
    rows_loaded: Lenient[Count] = None
    bytes_read: Lenient[Count] = None


class Job(Resource):
    """A job. Lists, and the response to a cancel, contain only some of its fields.

    Only the id and the state are required. Any other field is ``None`` if it is unreadable.
    """

    id: Id
    status: Name
    type: Text = None
    connection_id: Text = None
    pipeline_id: Text = None
    created_at: Lenient[Moment] = None
    queued_at: Lenient[Moment] = None
    started_at: Lenient[Moment] = None
    finished_at: Lenient[Moment] = None
    duration_seconds: Lenient[Number] = None
    cancel_requested_at: Lenient[Moment] = None
    metrics: Lenient[Metrics] = None
    error: OddError = None
    metadata: Lenient[dict[str, Any]] = None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended. An unknown state is not an end."""
        return self.status in JOB_OVER


class TableResult(Resource):
    """The rows that a job loaded into one table."""

    name: Name
    rows_loaded: Lenient[Count] = None
    checksum: Text = None


class JobWarning(Resource):
    """A warning about a job."""

    code: Text = None
    message: Text = None


def _warnings(value: Any) -> Any:
    """Return the warnings that can be read; a bare text becomes a message."""
    items = value if isinstance(value, list) else []
    items = [{"message": item} if isinstance(item, str) else item for item in items]
    return [item for item in items if isinstance(item, (dict, JobWarning))]


class JobResults(Resource):
    """The results of a job. Some deployments send a stub while the job runs.

    A table that is unreadable fails the response; otherwise the task would report too little.
    """

    job_id: Name
    status: Name
    tables: list[TableResult] = Field(default_factory=list, fail_fast=True)
    warnings: Annotated[list[JobWarning], BeforeValidator(_warnings)] = Field(default_factory=list)


class JobEnvelope(DataEnvelope[Job]):
    """``{"data": {job}}``."""


class JobResultsEnvelope(DataEnvelope[JobResults]):
    """``{"data": {results}}``."""

    max_bytes = 16_000_000
    max_values = 500_000


class SyncStarted(Resource):
    """The data of the response to a start."""

    job: Job


class SyncEnvelope(Envelope[Job]):
    """``{"data": {"job": {job}}}``."""

    data: SyncStarted

    @property
    def content(self) -> Job:
        """The job that was started."""
        return self.data.job


class JobPage(Page[Job]):
    """A page of jobs."""
