"""What holds for the body of every request, and for that of a sync."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator

from planasonix_provider.api.models import SyncBody


class RejectNullFields(BaseModel):
    """A body whose fields may be left out, where the API says so, but are never null: the reference shows none."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null")
        return value


class SyncRequestBody(RejectNullFields, SyncBody):
    """A body that the API takes for a sync."""
