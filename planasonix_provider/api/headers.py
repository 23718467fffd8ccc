"""Reads the response headers about time and the rate limit. All headers are looked up by their lower-case names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from planasonix_provider.api.models import as_utc

#: The window of the rate limit if the headers do not name its end: the documented limit is per minute.
WINDOW_SECONDS = 60.0


def server_time(headers: Mapping[str, str]) -> datetime:
    """Return the time of the ``Date`` header, so that a wrong local clock does no harm; else the local time."""
    return _http_date(headers.get("date", "")) or datetime.now(UTC)


def clock_skew(headers: Mapping[str, str]) -> timedelta | None:
    """Return by how much the server's clock is ahead, to about a second; ``None`` without a ``Date`` header."""
    date = _http_date(headers.get("date", ""))
    return date - datetime.now(UTC) if date else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``; ``None`` if the header is missing or invalid."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value, re.ASCII):
        return float(value)
    until = _http_date(value)
    return max(0.0, (until - server_time(headers)).total_seconds()) if until else None


@dataclass(frozen=True)
class RateLimit:
    """The rate limit of an API key: ``remaining`` of ``limit`` requests for the next ``seconds``."""

    limit: int
    remaining: int
    seconds: float


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the values of the ``X-RateLimit-…`` headers; ``None`` if the deployment does not send them."""
    limit, remaining, reset = (_number(headers, name) for name in ("limit", "remaining", "reset"))
    if not limit or remaining is None:
        return None
    seconds = reset - server_time(headers).timestamp() if reset else WINDOW_SECONDS
    return RateLimit(limit, min(remaining, limit), seconds if 0 <= seconds <= 60 * WINDOW_SECONDS else WINDOW_SECONDS)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(f"x-ratelimit-{name}", "").strip()
    return int(value) if re.fullmatch(r"\d{1,12}", value, re.ASCII) else None


def _http_date(value: str) -> datetime | None:
    try:
        return as_utc(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None
