"""Reads what the headers of an answer say about time and about the rate limit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from planasonix_provider.api.models import as_utc

#: How long a window of the rate limit is where the headers do not tell, in seconds: the documented limit is per minute.
WINDOW_SECONDS = 60.0


def server_time(headers: Mapping[str, str]) -> datetime:
    """Tell the time that the server has: a clock that is wrong here then does no harm.

    :param headers: the answer's headers, looked up by lower-case name.
    :return: the time of the answer's ``Date``, or of this machine's clock where there is none.
    """
    return _http_date(headers.get("date", "")) or datetime.now(UTC)


def clock_skew(headers: Mapping[str, str]) -> timedelta | None:
    """Tell by how much the server's clock is ahead of this machine's.

    :param headers: the answer's headers, looked up by lower-case name.
    :return: the difference, to a second or so; ``None`` where there is no ``Date``.
    """
    told = _http_date(headers.get("date", ""))
    return told - datetime.now(UTC) if told else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``.

    :param headers: the answer's headers, looked up by lower-case name.
    :return: the seconds to wait; ``None`` where the header is missing or makes no sense.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value, re.ASCII):
        return float(value)
    until = _http_date(value)
    return max(0.0, (until - server_time(headers)).total_seconds()) if until else None


@dataclass(frozen=True)
class RateLimit:
    """What a key may still ask for.

    :param limit: how many requests a window allows.
    :param remaining: how many of them are left.
    :param seconds: in how many seconds the window ends.
    """

    limit: int
    remaining: int
    seconds: float


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read ``X-RateLimit-Limit``, ``X-RateLimit-Remaining`` and ``X-RateLimit-Reset``.

    :param headers: the answer's headers, looked up by lower-case name.
    :return: the allowance; ``None`` where the deployment does not tell it.
    """
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
