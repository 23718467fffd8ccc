"""Formats numbers and times for logs."""

from __future__ import annotations

from datetime import UTC, datetime


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, as ``45 s``, ``3 min 5 s`` or ``3 d 4 h``; at least ``0 s``."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"


def format_time(when: datetime) -> str:
    """Return a time as ``2025-03-27 14:22:10 UTC``."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_bytes(amount: int) -> str:
    """Return a number of bytes as ``512 bytes`` or ``67.1 MB``; units are powers of 1,000."""
    if amount < 1_000:
        return f"{amount} bytes"
    scaled = float(amount)
    for unit in ("kB", "MB", "GB", "TB"):
        scaled /= 1_000
        if scaled < 999.95:
            return f"{scaled:.1f} {unit}"
    return f"{scaled / 1_000:,.1f} PB"


def pluralize(amount: int, thing: str) -> str:
    """Return an amount as ``1 table`` or ``44,802 rows``; ``thing`` has a regular plural."""
    return f"{amount:,} {thing}" + ("" if amount == 1 else "s")


def capitalize(words: str) -> str:
    """Return words with a capital first letter. The rest stays, because it may contain ids."""
    return words[:1].upper() + words[1:]
