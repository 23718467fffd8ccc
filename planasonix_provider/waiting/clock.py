"""Tells the time."""

from __future__ import annotations

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Tell the time.

    :return: now, in UTC.
    """
    return datetime.now(UTC)
