"""Times as callers write them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from planasonix_provider.api.models import as_utc


def _iso_time(value: Any) -> Any:
    """Read a time as ISO 8601 only: pydantic itself would take a bare number for Unix seconds."""
    if isinstance(value, datetime):
        return value
    try:
        return as_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a time as ISO 8601, for example 2025-03-27T14:22:10Z") from None


#: A time as ISO 8601; one without an offset is UTC.
IsoTime = Annotated[datetime, BeforeValidator(_iso_time), AfterValidator(as_utc)]
