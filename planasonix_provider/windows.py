"""Splits a period into windows, for one mapped backfill task each.

DAG files import this module, so importing it must stay light. The same arguments give the same windows at every parse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, pairwise
from typing import Any

from planasonix_provider.validators import YEARS, format_utc, invalid_parameter

#: Airflow maps a task over at most 1,024 items of another task's output, unless ``[core] max_map_length`` differs.
MAX_WINDOWS = 1_000

_DAY = timedelta(days=1)
_LENGTHS = {"hour": timedelta(hours=1), "day": _DAY, "week": timedelta(weeks=1)}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def split(start: str | date, end: str | date, *, every: str | timedelta) -> list[dict[str, str]]:
    """Split a period into windows that cover it exactly, without gaps and overlaps.

    A window includes its ``start_at`` and excludes its ``end_at``. The windows follow the calendar, so moving ``start``
    or ``end`` does not change the windows between them, and the first and the last window may be shorter.

    The calendar is that of the zone of ``start``. When daylight-saving time begins or ends, a day has 23 or 25 hours,
    and an hour that the clock shows twice is two windows. A day whose midnight is skipped begins at the change; a day
    with two midnights begins at the first.

    :param start: the start of the first window: a ``datetime``, a ``date`` or an ISO 8601 text. A date means its
        midnight. A time without a zone is in UTC.
    :param end: the end of the last window; like ``start``. Its zone may differ; without one, it is in UTC.
    :param every: the length of a window: ``hour``, ``day``, ``week`` (from Monday), ``month``, ``quarter``, ``year``;
        or a ``timedelta`` of elapsed time, counted from ``start``.
    :return: the windows, in order, for ``expand_kwargs``: each with ``start_at`` and ``end_at`` in UTC, for example
        ``2024-01-01T00:00:00Z``. At least one, and at most :data:`MAX_WINDOWS`.
    :raises ValueError: if ``start`` or ``end`` is no time, or not in the years 1000 to 9000; if ``end`` is not after
        ``start``; if ``every`` is invalid or gives too many windows.
    """
    local = _parse("start", start)
    first, last = local.astimezone(UTC), _parse("end", end).astimezone(UTC)
    if last <= first:
        raise invalid_parameter("end", end, f"a time after start, {format_utc(first)}")
    cuts: set[datetime] = set()
    for moment in _boundaries(local, last, every):
        if first < moment < last:
            cuts.add(moment)
        if len(cuts) == MAX_WINDOWS:
            span = f"from {format_utc(first)} to {format_utc(last)}"
            raise invalid_parameter("every", every, f"a larger one, for at most {MAX_WINDOWS:,} windows {span}")
    return [
        {"start_at": format_utc(start_at), "end_at": format_utc(end_at)}
        for start_at, end_at in pairwise([first, *sorted(cuts), last])
    ]


def _boundaries(start: datetime, end: datetime, every: Any) -> Iterator[datetime]:
    """Yield, in UTC, all boundaries between two times. Some may be duplicates, unsorted or outside of the period."""
    if isinstance(every, timedelta) and every > timedelta(0):
        first = start.astimezone(UTC)
        return (first + number * every for number in range(1, -((first - end) // every)))
    if every in (*_LENGTHS, *_MONTHS):
        return _calendar_boundaries(start, end, every)
    raise invalid_parameter("every", every, f"{', '.join([*_LENGTHS, *_MONTHS])}, or a timedelta above 0")


def _calendar_boundaries(start: datetime, end: datetime, every: str) -> Iterator[datetime]:
    # Add a day at both ends: a clock can change by up to a day, when a zone moves across the date line.
    for local in _wall_clock_boundaries(start - _DAY, every):
        moment = local.astimezone(UTC)
        if moment >= end + _DAY:
            return
        yield moment
        if every == "hour":
            # This is later only if the clock shows the hour twice. If the clock skips it, fold=1 gives a time before
            # the change, which is no boundary.
            yield max(moment, local.replace(fold=1).astimezone(UTC))


def _wall_clock_boundaries(start: datetime, every: str) -> Iterator[datetime]:
    """Yield boundaries in the wall-clock time of the zone of ``start``, from before ``start`` on, without end."""
    # Within one zone, Python's datetime arithmetic uses wall-clock time, not elapsed time.
    if every in _MONTHS:
        step = _MONTHS[every]
        for month in count((start.year * 12 + start.month - 1) // step * step, step):
            yield datetime(month // 12, month % 12 + 1, 1, tzinfo=start.tzinfo)
    else:
        # datetime.min is the midnight of a Monday.
        length = _LENGTHS[every]
        local = start - (start - datetime.min.replace(tzinfo=start.tzinfo)) % length
        while True:
            yield local
            local += length


def _parse(name: str, value: Any) -> datetime:
    moment = None
    if isinstance(value, datetime):
        # Convert subclasses: the arithmetic of a pendulum.DateTime differs.
        moment = datetime.combine(value, value.timetz())
    elif isinstance(value, date):
        moment = datetime.combine(value, time())
    elif isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
    if moment is None or not YEARS[0] <= moment.year <= YEARS[1]:
        allowed = f"a datetime, a date or an ISO 8601 text, in the years {YEARS[0]} to {YEARS[1]}"
        raise invalid_parameter(name, value, allowed)
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)
