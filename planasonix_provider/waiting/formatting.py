"""Numbers as a person reads them in a log."""

from __future__ import annotations

from datetime import UTC, datetime


def format_duration(seconds: float) -> str:
    """Write a stretch of time in its two largest units.

    :param seconds: how long it is; less than nothing, as clocks that disagree give it, is nothing.
    :return: for example ``45 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``.
    """
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
    """Write a time.

    :param when: the time, with an offset.
    :return: for example ``2025-03-27 14:22:10 UTC``.
    """
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_bytes(amount: int) -> str:
    """Write a number of bytes.

    :param amount: how many bytes.
    :return: for example ``512 bytes`` or ``67.1 MB``; units are powers of a thousand.
    """
    if amount < 1_000:
        return f"{amount} bytes"
    scaled = float(amount)
    for unit in ("kB", "MB", "GB", "TB"):
        scaled /= 1_000
        if scaled < 999.95:
            return f"{scaled:.1f} {unit}"
    return f"{scaled / 1_000:,.1f} PB"


def pluralize(amount: int, thing: str) -> str:
    """Write how many there are of something.

    :param amount: how many.
    :param thing: what one of them is called, with a regular plural.
    :return: for example ``1 table`` or ``44,802 rows``.
    """
    return f"{amount:,} {thing}" + ("" if amount == 1 else "s")


def capitalize(words: str) -> str:
    """Let words begin a sentence.

    :param words: for example ``job job_01AB was not over``.
    :return: the same with a capital first letter; the rest stays, for there may be ids in it.
    """
    return words[:1].upper() + words[1:]
