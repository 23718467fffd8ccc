"""Backfills: what one is started with, and how far it has come."""

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
    """The body that starts a backfill; without ``tables`` it is one of all tables."""

    start_at: Moment
    end_at: Moment
    tables: list[str] | None = None
    priority: Priority | None = None
    metadata: dict[str, Any] | None = None


class Backfill(Resource):
    """A historical load over a window of time, which the API shards into jobs as it goes on.

    Lists and the answer to a start name only some of its fields; ``job_ids`` grows while it runs. Its id, its state and
    its ``job_ids`` have to be readable, or jobs would be missed; any other field is ``None`` if it cannot be read.
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
        """Whether the backfill has ended. A state that nobody knows is not an end."""
        return self.status in BACKFILL_OVER


class BackfillEnvelope(DataEnvelope[Backfill]):
    """``{"data": {backfill}}``. There may be many thousands of ``job_ids``."""

    max_values = 200_000


class BackfillStarted(Resource):
    """What a start wraps its backfill in."""

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
