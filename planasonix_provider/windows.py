"""Splits a period into windows, for one mapped backfill task each, or into partitions with Airflow's partition keys.

DAG files import this module, so importing it must stay light. The same arguments give the same windows at every parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import count, pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from planasonix_provider.validators import YEARS, Check, format_utc, invalid_parameter, one_of

#: Airflow maps a task over at most 1,024 items of another task's output, unless ``[core] max_map_length`` differs.
MAX_WINDOWS = 1_000

_DAY = timedelta(days=1)
_LENGTHS = {"hour": timedelta(hours=1), "day": _DAY, "week": timedelta(weeks=1)}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
#: The units of the calendar, shortest first.
UNITS = (*_LENGTHS, *_MONTHS)
#: The default format of partition keys. ``CronPartitionTimetable`` writes it, and Airflow's temporal mappers read it.
KEY_FORMAT = "%Y-%m-%dT%H:%M:%S"
#: The keys that Airflow's temporal mappers write, for each unit.
_MAPPED_KEYS = {
    "hour": r"(\d{4})-(\d\d)-(\d\d)T(\d\d)",
    "day": r"(\d{4})-(\d\d)-(\d\d)",
    "week": r"(\d{4})-(\d\d)-(\d\d) \(W\d\d\)",
    "month": r"(\d{4})-(\d\d)",
    "quarter": r"(\d{4})-Q([1-4])",
    "year": r"(\d{4})",
}
#: Airflow's maximum length of a key.
_MAX_KEY_LENGTH = 250
_DISTINCT_KEYS = f"a format whose keys differ, with at most {_MAX_KEY_LENGTH} printable characters each"
#: The length of the period for which a format is checked: more than one month for hours, and more than one year for
#: other units, so that a format without the month or the year repeats a key. Less than a century, because of ``%y``.
_COMPARED_DAYS = {"hour": 40, "day": 800}
_COMPARED_DAYS_OF_LONG_UNITS = 6_000


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


def partitions(
    start: str | date,
    end: str | date,
    *,
    every: str,
    timezone: str = "UTC",
    key_format: str | None = None,
    partial: str = "error",
) -> list[dict[str, str]]:
    """Split a period into partitions, each with its key for Airflow's asset partitions.

    The calendar is that of ``timezone``. When daylight-saving time begins or ends, a day has 23 or 25 hours. An hour
    that the clock shows twice is one partition of two hours, because it has only one key.

    :param start: the start of the period: a ``datetime``, a ``date`` or an ISO 8601 text; in ``timezone`` if it has no
        zone of its own.
    :param end: the end of the period, not included; like ``start``.
    :param every: the length of a partition: ``hour``, ``day``, ``week`` (from Monday), ``month``, ``quarter`` or
        ``year``.
    :param timezone: the name of the zone of the calendar and of the keys; default ``UTC``.
    :param key_format: the format of the keys as for ``strftime``, with ``{quarter}`` for the number of the quarter;
        default ``%Y-%m-%dT%H:%M:%S``, the local time at which the partition starts.
    :param partial: what to do with a partition that the period covers only in part: ``error`` (default) or ``include``.
    :return: the partitions, in order: each with ``partition_key``, and with ``start_at`` and ``end_at`` in UTC, as for
        :func:`split`. At least one, and at most :data:`MAX_WINDOWS`.
    :raises ValueError: if a parameter is invalid, if there are too many partitions, or if the period starts or ends
        inside of a partition and ``partial`` is ``error``.
    """
    one_of(*UNITS)("every", every)
    one_of("error", "include")("partial", partial)
    zone = time_zone("timezone", timezone)
    key_format = partition_key_format("key_format", key_format) or KEY_FORMAT
    first, last = _parse("start", start, zone).astimezone(UTC), _parse("end", end, zone).astimezone(UTC)
    if last <= first:
        raise invalid_parameter("end", end, f"a time after start, {format_utc(first)}")
    found: dict[str, dict[str, str]] = {}
    for period in _periods(first.astimezone(zone), every):
        if period.end <= first:
            continue
        if period.start >= last:
            break
        if partial == "error" and not first <= period.start < period.end <= last:
            name, moment = ("start", first) if period.start < first else ("end", last)
            edges = f"{format_utc(period.start)} and {format_utc(period.end)}"
            raise invalid_parameter(
                name, format_utc(moment), f"the start of a {every} in {zone.key}; the nearest are {edges}"
            )
        if len(found) == MAX_WINDOWS:
            span = f"from {format_utc(first)} to {format_utc(last)}"
            raise invalid_parameter("every", every, f"a larger one, for at most {MAX_WINDOWS:,} partitions {span}")
        key = _format_key(period.start.astimezone(zone), key_format)
        if key in found or not key.strip() or not key.isprintable() or len(key) > _MAX_KEY_LENGTH:
            raise invalid_parameter("key_format", key_format, _DISTINCT_KEYS)
        window = {"start_at": format_utc(max(first, period.start)), "end_at": format_utc(min(last, period.end))}
        found[key] = {"partition_key": key, **window}
    return list(found.values())


def partition_key(moment: str | date, *, every: str, timezone: str = "UTC", key_format: str | None = None) -> str:
    """Return the key of the partition that contains a time.

    :param moment: a ``datetime``, a ``date`` or an ISO 8601 text; in ``timezone`` if it has no zone of its own.
    :param every: the length of the partition, as for :func:`partitions`.
    :param timezone: as for :func:`partitions`.
    :param key_format: as for :func:`partitions`.
    :return: the key, such as ``2024-03-10T00:00:00``.
    :raises ValueError: if a parameter is invalid.
    """
    start = _parse("moment", moment, time_zone("timezone", timezone))
    end = start.astimezone(UTC) + timedelta.resolution
    [partition] = partitions(start, end, every=every, timezone=timezone, key_format=key_format, partial="include")
    return partition["partition_key"]


def of_partition(
    partition_key: str, *, every: str, timezone: str = "UTC", key_format: str | None = None
) -> dict[str, str]:
    """Return the window of a partition: for a backfill in a DAG run that has a partition key.

    In templates, this function is ``macros.planasonix.of_partition``.

    :param partition_key: the key, such as ``2024-03-10T00:00:00``, which ``CronPartitionTimetable`` writes. It may also
        have a form in which Airflow's temporal mappers write keys: ``2024-03-10T15``, ``2024-03-10``,
        ``2024-03-11 (W11)``, ``2024-03``, ``2024-Q1`` or ``2024``.
    :param every: the length of the window, as for :func:`partitions`. It must not be shorter than what the key names.
        The window is the hour, day, week, … that contains the time of the key.
    :param timezone: the name of the zone of the calendar, and of a key without an offset; default ``UTC``.
    :param key_format: the format of the key as for ``strptime``, with ``{quarter}`` for the number of the quarter;
        default: all forms above.
    :return: ``start_at`` and ``end_at``, in UTC, as for :func:`split`.
    :raises ValueError: if a parameter is invalid, or if the key names more than the window contains.
    """
    one_of(*UNITS)("every", every)
    zone = time_zone("timezone", timezone)
    moment = _parse_key(partition_key, every, partition_key_format("key_format", key_format))
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    period = next(period for period in _periods(moment.astimezone(zone), every) if period.end > moment)
    return {"start_at": format_utc(period.start), "end_at": format_utc(period.end)}


def time_zone(name: str, value: Any) -> ZoneInfo:
    """Return the zone with this name."""
    with suppress(Exception):  # ZoneInfo raises errors of several types for names that are no zones
        return ZoneInfo(value)
    raise invalid_parameter(name, value, "the name of a time zone, such as UTC or Europe/Berlin")


def partition_key_format(name: str, value: Any) -> str | None:
    """Return a format for partition keys, or ``None``."""
    if value is not None and (not isinstance(value, str) or "%" not in value or not value.isprintable()):
        raise invalid_parameter(name, value, f"a format for strftime, such as {KEY_FORMAT} or %Y-%m-%d")
    return value


def distinct_key_format(every: str, timezone: str) -> Check:
    """Return a validator for formats that give each partition its own key. It also accepts ``None``."""

    def check(name: str, value: Any) -> str | None:
        key_format = partition_key_format(name, value)
        if key_format and not _has_distinct_keys(key_format, every, timezone):
            raise invalid_parameter(name, value, f"{_DISTINCT_KEYS}, for partitions of one {every}")
        return key_format

    return check


@lru_cache  # A webhook receiver is read again and again; the check takes some milliseconds.
def _has_distinct_keys(key_format: str, every: str, timezone: str) -> bool:
    start = date(2024, 1, 1)
    end = start + timedelta(days=_COMPARED_DAYS.get(every, _COMPARED_DAYS_OF_LONG_UNITS))
    try:
        return bool(partitions(start, end, every=every, timezone=timezone, key_format=key_format, partial="include"))
    except ValueError:
        return False


class _Period(NamedTuple):
    """An hour, day, week, … of a zone's calendar, in UTC."""

    start: datetime
    end: datetime


def _periods(local: datetime, every: str) -> Iterator[_Period]:
    """Yield the periods of a calendar, from before a local time on, without end."""
    for first, last in pairwise(_wall_clock_boundaries(local - _DAY, every)):
        start, end = first.astimezone(UTC), last.astimezone(UTC)
        # A period that the clock skips is empty.
        if start < end:
            yield _Period(start, end)


def _format_key(local: datetime, key_format: str) -> str:
    # C libraries differ in whether they fill up a year below 1000, which is not allowed here.
    return local.strftime(key_format).replace("{quarter}", str((local.month + 2) // 3))


def _parse_key(key: Any, every: str, key_format: str | None) -> datetime:
    """Return the time that a partition key names; without a zone, unless the key has an offset."""
    moment, unit = None, every
    # A format with an unknown directive raises ValueError, too.
    with suppress(TypeError, ValueError):
        moment, unit = (_parse_formatted_key(key, key_format), every) if key_format else _parse_known_key(key)
    if moment is None or not YEARS[0] <= moment.year <= YEARS[1]:
        hint = "" if key else ". A DAG run has a partition key only if the timetable of its DAG is partitioned"
        allowed = (
            f"a key in the format {key_format}" if key_format else "a key such as 2024-03-10T00:00:00 or 2024-03-10"
        )
        raise invalid_parameter("partition_key", key, allowed + hint)
    if UNITS.index(unit) > UNITS.index(every):
        raise invalid_parameter("every", every, f"{unit} or longer, because the key {key!r} names a {unit}")
    return moment


def _parse_formatted_key(key: str, key_format: str) -> datetime | None:
    for quarter in range(1, 5):
        with suppress(ValueError):
            moment = datetime.strptime(key, key_format.replace("{quarter}", str(quarter)))  # noqa: DTZ007 - local time
            return moment.replace(month=3 * quarter - 2) if "{quarter}" in key_format else moment
    return None


def _parse_known_key(key: str) -> tuple[datetime, str]:
    for unit, pattern in _MAPPED_KEYS.items():
        if match := re.fullmatch(pattern, key):
            year, *rest = map(int, match.groups())
            month = 3 * rest[0] - 2 if unit == "quarter" else rest[0] if rest else 1
            day, hour = [*(rest[1:] or [1]), 0][:2]
            return datetime(year, month, day, hour), unit  # noqa: DTZ001 - local time
    if "T" not in key:
        raise ValueError
    return datetime.fromisoformat(key), UNITS[0]


def _boundaries(start: datetime, end: datetime, every: Any) -> Iterator[datetime]:
    """Yield, in UTC, all boundaries between two times. Some may be duplicates, unsorted or outside of the period."""
    if isinstance(every, timedelta) and every > timedelta(0):
        first = start.astimezone(UTC)
        return (first + number * every for number in range(1, -((first - end) // every)))
    if every in UNITS:
        return _calendar_boundaries(start, end, every)
    raise invalid_parameter("every", every, f"{', '.join(UNITS)}, or a timedelta above 0")


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


def _parse(name: str, value: Any, zone: tzinfo = UTC) -> datetime:
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
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=zone)
