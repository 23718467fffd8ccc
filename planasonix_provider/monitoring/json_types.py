"""Values in JSON types."""

from __future__ import annotations

from datetime import datetime

from planasonix_provider.api.models.base import as_utc
from planasonix_provider.validators import format_utc


def json_time(moment: datetime | None) -> str | None:
    """Return a time as ISO 8601 text with Z."""
    return format_utc(as_utc(moment)) if moment else None
