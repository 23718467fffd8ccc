"""The request bodies of syncs and backfills, with stricter validation than the client's models."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from planasonix_provider.api.models import BackfillBody, SyncBody, as_utc
from planasonix_provider.api.models.base import Moment


def _iso_time(value: Any) -> Any:
    """Parse ISO 8601 only: pydantic accepts a bare number as Unix seconds."""
    if isinstance(value, datetime):
        return value
    try:
        return as_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a time as ISO 8601, for example 2025-03-27T14:22:10Z") from None


#: A time as ISO 8601; one without an offset is UTC.
IsoTime = Annotated[Moment, BeforeValidator(_iso_time)]


class StrictBody(BaseModel):
    """A body whose values have the JSON types of the reference. Optional fields may be missing but not null."""

    model_config = ConfigDict(strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null")
        return value


class SyncRequestBody(StrictBody, SyncBody):
    """The body of a sync."""


class BackfillRequestBody(StrictBody, BackfillBody):
    """The body of a backfill."""

    start_at: IsoTime
    end_at: IsoTime
    tables: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("end_at")
    @classmethod
    def _is_after_start(cls, end_at: datetime, info: ValidationInfo) -> datetime:
        start_at = info.data.get("start_at")
        if start_at and end_at <= start_at:
            raise ValueError("must be after start_at")
        return end_at

    @field_validator("tables")
    @classmethod
    def _are_unique_names(cls, tables: list[str] | None) -> list[str] | None:
        names = tables or []
        if not all(name.strip() for name in names):
            raise ValueError("must not contain a blank name")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"must not name a table twice: {', '.join(repeated)}")
        return tables
