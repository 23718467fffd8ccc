"""Cuts a stretch of time into windows to backfill, one mapped task each.

Light on purpose: a DAG file imports this. It needs no clock: the same arguments give the same windows at every parse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, pairwise
from typing import Any

from planasonix_provider.validators import YEARS, invalid_parameter

#: Airflow maps a task over at most 1,024 items of another one's output, unless ``[core] max_map_length`` differs.
MAX_WINDOWS = 1_000

_DAY = timedelta(days=1)
_LENGTHS = {"hour": timedelta(hours=1), "day": _DAY, "week": timedelta(weeks=1)}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def split(start: str | date, end: str | date, *, every: str | timedelta) -> list[dict[str, str]]:
    """Cut a stretch of time into windows that touch, do not overlap, and cover it exactly.

    A window has what happened at its ``start_at``, and not what happened at its ``end_at``. Moving ``start`` or ``end``
    leaves windows of the calendar between them as they are, so the first and the last may be shorter than the others.

    The calendar is that of the zone of ``start``. On a change to or from daylight-saving time a day has 23 or 25 hours,
    and an hour that the clock shows twice is two windows. A day whose midnight is skipped begins at the change, a day
    that has two midnights at the first.

    :param start: where the first window begins: a ``datetime``, or a ``date`` or ISO 8601 text; a date is its midnight.
        Without a zone it is in UTC.
    :param end: where the last window ends; like ``start``, and not necessarily in the same zone: without one, in UTC.
    :param every: the part of the calendar that a window is: ``hour``, ``day``, ``week`` (from Monday), ``month``,
        ``quarter`` or ``year``; or a ``timedelta``, counted from ``start`` in time that really passes.
    :return: the windows, in order, for ``expand_kwargs``: each with ``start_at`` and ``end_at``, in UTC, for example
        ``2024-01-01T00:00:00Z``. At least one, and at most :data:`MAX_WINDOWS`.
    :raises ValueError: if ``start`` or ``end`` is no time, or not in the years 1000 to 9000; if ``end`` is not after
        ``start``; if ``every`` is none of the above, or makes too many windows.
    """
    local = _parse("start", start)
    first, last = local.astimezone(UTC), _parse("end", end).astimezone(UTC)
    if last <= first:
        raise invalid_parameter("end", end, f"a time after start, {_text(first)}")
    cuts: set[datetime] = set()
    for moment in _boundaries(local, last, every):
        if first < moment < last:
            cuts.add(moment)
        if len(cuts) == MAX_WINDOWS:
            span = f"from {_text(first)} to {_text(last)}"
            raise invalid_parameter("every", every, f"a larger one, for at most {MAX_WINDOWS:,} windows {span}")
    return [
        {"start_at": _text(start_at), "end_at": _text(end_at)}
        for start_at, end_at in pairwise([first, *sorted(cuts), last])
    ]


def _boundaries(start: datetime, end: datetime, every: Any) -> Iterator[datetime]:
    """Give, in UTC, at least all boundaries between two times, maybe some twice, or not in order, or from outside."""
    if isinstance(every, timedelta) and every > timedelta(0):
        first = start.astimezone(UTC)
        return (first + number * every for number in range(1, -((first - end) // every)))
    if every in (*_LENGTHS, *_MONTHS):
        return _calendar_boundaries(start, end, every)
    raise invalid_parameter("every", every, f"{', '.join([*_LENGTHS, *_MONTHS])}, or a timedelta above 0")


def _calendar_boundaries(start: datetime, end: datetime, every: str) -> Iterator[datetime]:
    # A clock may be set back, or forward, by up to a day (the date line has moved): so a day more on either side.
    for mark in _wall_clock_boundaries(start - _DAY, every):
        moment = mark.astimezone(UTC)
        if moment >= end + _DAY:
            return
        yield moment
        if every == "hour":
            # Later only if the clock shows this hour twice. If it skips it, this is before the change, and no boundary.
            yield max(moment, mark.replace(fold=1).astimezone(UTC))


def _wall_clock_boundaries(start: datetime, every: str) -> Iterator[datetime]:
    """Give what the clock of the zone of ``start`` shows at boundaries, from before ``start`` on, without end."""
    # Within one zone, Python reckons with what the clock shows, not with the time that passes: just what is needed.
    if every in _MONTHS:
        step = _MONTHS[every]
        for month in count((start.year * 12 + start.month - 1) // step * step, step):
            yield datetime(month // 12, month % 12 + 1, 1, tzinfo=start.tzinfo)
    else:
        # The first datetime is the midnight of a Monday.
        length = _LENGTHS[every]
        mark = start - (start - datetime.min.replace(tzinfo=start.tzinfo)) % length
        while True:
            yield mark
            mark += length


def _parse(name: str, value: Any) -> datetime:
    moment = None
    if isinstance(value, datetime):
        # Made plain: a datetime of pendulum, for one, has an arithmetic of its own.
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


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
