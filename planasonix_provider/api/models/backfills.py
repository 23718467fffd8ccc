"""Backfills: the body that starts one, and its state."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from planasonix_provider.api.models.base import Count, Id, Lenient, Moment, Name, Number, Priority, Resource, Text
from planasonix_provider.api.models.envelopes import DataEnvelope, Envelope, Page
from planasonix_provider.api.models.errors import OddError
from planasonix_provider.api.states import BACKFILL_OVER

__all__ = [
    "Backfill",
    "BackfillBody",
    "BackfillEnvelope",
    "BackfillPage",
    "BackfillStartEnvelope",
    "BackfillStarted",
]


class BackfillBody(Resource):
    """The body that starts a backfill. Without ``tables``, it loads all tables."""

    start_at: Moment
    end_at: Moment
    tables: list[str] | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


class Backfill(Resource):
    """A historical load of a window of time, which the API splits into jobs while it runs.

    Lists, and the response to a start, contain only some of its fields. The id, the state and ``job_ids``, which grows
    while the backfill runs, must be readable, because jobs would be missed otherwise. Any other field is ``None`` if it
    is unreadable.
    """

    id: Id
    status: Name
    connection_id: Text = None
    start_at: Lenient[Moment] = None
    end_at: Lenient[Moment] = None
    tables: Lenient[Annotated[list[Name], Field(fail_fast=True)]] = None
    progress_percent: Lenient[Count | Number] = None
    rows_processed: Lenient[Count] = None
    error: OddError = None
    job_ids: list[Id] | None = Field(default=None, fail_fast=True)
    created_at: Lenient[Moment] = None
    updated_at: Lenient[Moment] = None
    metadata: Lenient[dict[str, Any]] = None

    @property
    def is_over(self) -> bool:
        """Whether the backfill has ended. An unknown state is not an end."""
        return self.status in BACKFILL_OVER


class BackfillEnvelope(DataEnvelope[Backfill]):
    """``{"data": {backfill}}``. There may be many thousands of ``job_ids``."""

    max_values = 200_000


class BackfillStarted(Resource):
    """The data of the response to a start."""

    backfill: Backfill


class BackfillStartEnvelope(Envelope[Backfill]):
    """``{"data": {"backfill": {backfill}}}``."""

    data: BackfillStarted

    @property
    def content(self) -> Backfill:
        """The backfill that was started."""
        return self.data.backfill


class BackfillPage(Page[Backfill]):
    """A page of backfills."""
