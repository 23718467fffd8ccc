from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from itertools import pairwise
from time import tzset
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planasonix_provider import windows

NAMES = ("hour", "day", "week", "month", "quarter", "year")
INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def edges(*arguments: Any, every: Any) -> list[str]:
    """Return the start of each window, and the end of the last one."""
    made = windows.split(*arguments, every=every)
    assert all(left["end_at"] == right["start_at"] for left, right in pairwise(made))
    return [made[0]["start_at"], *(window["end_at"] for window in made)]


def midnights(*days: str) -> list[str]:
    return [f"{day}T00:00:00Z" for day in days]


def at(zone: str, text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def error_message(*arguments: Any, every: Any) -> str:
    with pytest.raises(ValueError, match=r"^(start|end|every): got .*, allowed is .*\.$") as refused:
        windows.split(*arguments, every=every)
    return str(refused.value)


def test_a_window_is_a_json_object_of_two_times_in_utc() -> None:
    made = windows.split(at("Asia/Tokyo", "2024-01-01"), "2024-02-15", every="month")
    assert json.loads(json.dumps(made)) == [
        {"start_at": "2023-12-31T15:00:00Z", "end_at": "2024-01-31T15:00:00Z"},
        {"start_at": "2024-01-31T15:00:00Z", "end_at": "2024-02-15T00:00:00Z"},
    ]


@pytest.mark.parametrize(
    ("every", "days"),
    [
        ("day", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ("week", ["2024-02-15", "2024-02-19", "2024-02-26", "2024-03-01"]),
        ("month", ["2023-12-15", "2024-01-01", "2024-02-01", "2024-02-29"]),
        ("quarter", ["2023-11-15", "2024-01-01", "2024-04-01", "2024-07-01", "2024-10-01", "2024-10-02"]),
        ("year", ["2022-05-05", "2023-01-01", "2024-01-01", "2024-03-03"]),
        ("week", ["2024-02-19", "2024-02-26"]),
        ("year", ["2024-02-19", "2024-02-26"]),
        (timedelta(days=7), ["2024-02-15", "2024-02-22", "2024-02-29", "2024-03-01"]),
        (timedelta(days=7), ["2024-02-15", "2024-02-22", "2024-02-29"]),
        (timedelta.max, ["2024-02-15", "2024-02-22"]),
        (pendulum.duration(days=2), ["2024-01-01", "2024-01-03", "2024-01-05", "2024-01-06"]),
        (
            pendulum.datetime(2024, 1, 3) - pendulum.datetime(2024, 1, 1),
            ["2024-01-01", "2024-01-03", "2024-01-05", "2024-01-06"],
        ),
    ],
    ids=str,
)
def test_windows_follow_the_calendar_or_a_timedelta(every: str | timedelta, days: list[str]) -> None:
    assert edges(days[0], days[-1], every=every) == midnights(*days)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("hour", ["2024-01-01T22:30:00", "2024-01-01T23:00:00", "2024-01-02T00:00:00", "2024-01-02T00:00:00.500000"]),
        (timedelta(seconds=1), ["2024-01-01T00:00:00.250000", "2024-01-01T00:00:01.250000", "2024-01-01T00:00:02"]),
    ],
    ids=["on the hour", "from the start"],
)
def test_an_hour_begins_on_the_hour_and_a_timedelta_at_the_start(every: Any, expected: list[str]) -> None:
    assert edges(expected[0], expected[-1], every=every) == [f"{edge}Z" for edge in expected]


@pytest.mark.parametrize(
    "start",
    [
        "2024-01-01",
        "20240101",
        "2024-W01-1",
        "2024-01-01T00:00",
        "2024-01-01T00:00:00Z",
        "2024-01-01T02:00:00+02:00",
        date(2024, 1, 1),
        datetime.fromisoformat("2024-01-01"),
        datetime(2024, 1, 1, tzinfo=UTC),
        at("America/New_York", "2023-12-31T19:00"),
        pendulum.datetime(2024, 1, 1),
        pendulum.naive(2024, 1, 1),
        pendulum.date(2024, 1, 1),
        pendulum.datetime(2024, 1, 1, 1, tz="Europe/Berlin"),
        pendulum.parse("2024-01-01T02:00:00+02:00"),
    ],
    ids=repr,
)
def test_a_time_is_a_datetime_a_date_or_a_text_and_in_utc_by_default(start: Any) -> None:
    assert edges(start, "2024-01-01T00:20", every="hour") == ["2024-01-01T00:00:00Z", "2024-01-01T00:20:00Z"]
    assert edges("2023-12-31T23:40", start, every="hour") == ["2023-12-31T23:40:00Z", "2024-01-01T00:00:00Z"]


class NoOffset(tzinfo):
    """A zone without an offset: its datetimes are naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        tzset()
        yield
    tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize(
    "start",
    ["2024-01-01", date(2024, 1, 1), datetime.fromisoformat("2024-01-01"), datetime(2024, 1, 1, tzinfo=NoOffset())],
    ids=["text", "date", "datetime", "no offset"],
)
def test_the_zone_of_the_machine_does_not_matter(start: Any) -> None:
    assert edges(start, "2024-01-02", every="day") == midnights("2024-01-01", "2024-01-02")


@pytest.mark.parametrize(
    ("start", "inner"),
    [
        (at("Asia/Kolkata", "2024-01-31T12:00"), "2024-01-31T18:30:00Z"),
        (pendulum.datetime(2024, 1, 31, 12, tz="Asia/Kolkata"), "2024-01-31T18:30:00Z"),
        ("2024-01-31T12:00+05:30", "2024-01-31T18:30:00Z"),
        (datetime(2024, 1, 31, 12, tzinfo=timezone(timedelta(hours=-9))), "2024-02-01T09:00:00Z"),
        (at("America/Los_Angeles", "2024-01-31T12:00"), "2024-02-01T08:00:00Z"),
        ("2024-01-31T12:00", "2024-02-01T00:00:00Z"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("every", ["day", "month"])
def test_the_calendar_is_that_of_the_zone_of_the_start(start: Any, inner: str, every: str) -> None:
    assert edges(start, at("Asia/Tokyo", "2024-02-01T21:00"), every=every)[1:] == [inner, "2024-02-01T12:00:00Z"]


@pytest.mark.parametrize(
    ("zone", "days", "hours"),
    [
        pytest.param("Europe/Berlin", ["2024-03-30", "2024-03-31", "2024-04-01"], [24, 23, 24], id="spring"),
        pytest.param("Europe/Berlin", ["2024-10-26", "2024-10-27", "2024-10-28"], [24, 25, 24], id="autumn"),
        pytest.param("America/Sao_Paulo", ["2018-11-03", "2018-11-04", "2018-11-05"], [24, 23, 24], id="no midnight"),
        pytest.param("America/Sao_Paulo", ["2018-02-16", "2018-02-17", "2018-02-18"], [24, 25, 24], id="back to 23:00"),
        pytest.param("America/Havana", ["2024-11-02", "2024-11-03", "2024-11-04"], [24, 25, 24], id="two midnights"),
        pytest.param("Australia/Lord_Howe", ["2024-04-06", "2024-04-07", "2024-04-08"], [24, 24.5, 24], id="30 min"),
        pytest.param("Pacific/Apia", ["2011-12-28", "2011-12-29", "2011-12-31"], [24, 24, 24], id="no such day"),
        pytest.param("Asia/Kathmandu", ["2024-03-30", "2024-03-31", "2024-04-01"], [24, 24, 24], id="5:45"),
    ],
)
def test_a_day_has_the_hours_that_its_clock_shows(zone: str, days: list[str], hours: list[float]) -> None:
    start = at(zone, days[0])
    end = start.astimezone(UTC) + timedelta(hours=sum(hours))
    moments = [utc(edge) for edge in edges(start, end, every="day")]
    assert [(right - left) / HOUR for left, right in pairwise(moments)] == hours
    assert [moment.astimezone(start.tzinfo).date().isoformat() for moment in moments[:-1]] == days


#: For each case: the zone, the local start and end (with their fold), and the inner edges in UTC.
HOURS: dict[str, tuple[str, tuple[str, int], tuple[str, int], list[str]]] = {
    "skipped": ("America/New_York", ("2024-03-10T00:30", 0), ("2024-03-10T04:00", 0), ["06:00", "07:00"]),
    "twice": ("America/New_York", ("2024-11-03T00:30", 0), ("2024-11-03T02:30", 0), ["05:00", "06:00", "07:00"]),
    "from the second": ("America/New_York", ("2024-11-03T01:30", 1), ("2024-11-03T02:30", 0), ["07:00"]),
    "to an earlier local time": ("America/New_York", ("2024-11-03T01:30", 0), ("2024-11-03T01:10", 1), ["06:00"]),
    "back 2 h": ("Antarctica/Troll", ("2024-10-27T02:30", 0), ("2024-10-27T03:30", 0), ["01:00", "02:00", "03:00"]),
    "back 2 h, to an earlier local time": (
        "Antarctica/Troll",
        ("2024-10-26T23:30", 0),
        ("2024-10-27T01:10", 1),
        ["22:00", "23:00", "00:00", "01:00"],
    ),
    "back 0.5 h": (
        "Australia/Lord_Howe",
        ("2024-04-07T00:30", 0),
        ("2024-04-07T03:30", 0),
        ["14:00", "15:30", "16:30"],
    ),
    "forward 0.5 h": (
        "Australia/Lord_Howe",
        ("2024-10-06T00:30", 0),
        ("2024-10-06T04:30", 0),
        ["14:30", "15:30", "16:00", "17:00"],
    ),
    "forward 1.5 h": ("America/Montevideo", ("1974-01-12T23:30", 0), ("1974-01-13T02:15", 0), ["03:00", "03:30"]),
    "5:45": ("Asia/Kathmandu", ("2024-04-07T00:30", 0), ("2024-04-07T02:30", 0), ["19:15", "20:15"]),
}


@pytest.mark.parametrize(("zone", "start", "end", "inner"), HOURS.values(), ids=HOURS)
@pytest.mark.parametrize("of_pendulum", [False, True], ids=["datetime", "pendulum"])
def test_hours_are_right_when_the_clock_changes(
    zone: str, start: tuple[str, int], end: tuple[str, int], inner: list[str], of_pendulum: bool
) -> None:
    times = [at(zone, *start), at(zone, *end)]
    if of_pendulum:
        times = [pendulum.instance(moment.astimezone(UTC)).in_timezone(zone) for moment in times]
    assert [edge[11:16] for edge in edges(*times, every="hour")[1:-1]] == inner


def test_a_timedelta_is_elapsed_time() -> None:
    start, end = at("Europe/Berlin", "2024-03-30T12:00"), at("Europe/Berlin", "2024-04-01T12:00")
    assert edges(start, end, every=timedelta(days=1)) == [
        "2024-03-30T11:00:00Z",
        "2024-03-31T11:00:00Z",
        "2024-04-01T10:00:00Z",
    ]


def test_the_end_is_compared_in_utc() -> None:
    # Within one zone, Python compares wall-clock times.
    start, end = at("Europe/Berlin", "2024-10-27T02:30"), at("Europe/Berlin", "2024-10-27T02:10", fold=1)
    assert edges(start, end, every="day") == ["2024-10-27T00:30:00Z", "2024-10-27T01:10:00Z"]
    assert error_message(end, start, every="day").startswith("end: got ")


@pytest.mark.parametrize(
    ("start", "end", "start_in_utc"),
    [
        ("2024-01-02", "2024-01-01", "2024-01-02T00:00:00Z"),
        ("2024-01-01", "2024-01-01", "2024-01-01T00:00:00Z"),
        ("2024-01-01", date(2024, 1, 1), "2024-01-01T00:00:00Z"),
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00-01:00", "2024-01-01T01:00Z", "2024-01-01T01:00:00Z"),
        ("2024-01-01T09:00+10:00", "2023-12-31", "2023-12-31T23:00:00Z"),
        (at("Asia/Tokyo", "2024-01-01T12:00"), "2024-01-01T03:00", "2024-01-01T03:00:00Z"),
    ],
    ids=str,
)
@pytest.mark.parametrize("every", ["day", timedelta(days=1)], ids=str)
def test_an_end_that_is_not_after_the_start_is_refused(start: Any, end: Any, start_in_utc: str, every: Any) -> None:
    assert error_message(start, end, every=every) == (
        f"end: got {end!r}, allowed is a time after start, {start_in_utc}."
    )


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "yesterday", "{{ ds }}", "2024", "2024-13-01", "2023-02-29", "2024-01-01 to 2024-02-01", "x" * 9),
        *(None, True, 0, 20240101, 1704067200.0, b"2024-01-01", ["2024-01-01"], time(12), timedelta(days=1)),
        *("0001-01-01", "0999-12-31", "9001-01-01", "9999-12-31T23:59:59.999999", date.min, date.max),
        *(datetime.min.replace(tzinfo=timezone(HOUR)), datetime.max.replace(tzinfo=timezone(-HOUR))),
        *(pendulum.DateTime.min, pendulum.DateTime.max, datetime.fromisoformat("0001-01-01")),
    ],
    ids=repr,
)
def test_an_invalid_time_is_refused(value: Any) -> None:
    allowed = "allowed is a datetime, a date or an ISO 8601 text, in the years 1000 to 9000."
    assert error_message(value, "2024-01-01", every="day") == f"start: got {value!r}, {allowed}"
    assert error_message("2024-01-01", value, every="day") == f"end: got {value!r}, {allowed}"


@pytest.mark.parametrize(
    "value",
    [
        *("", "days", "Day", " day", "minute", "second", "decade", "@daily", "1 day", "P1D", "0 0 * * *", b"day"),
        *(None, True, False, 0, 1, -1, 3600, 1.5, ["day"], {"day": 1}, ("day", "week"), date(2024, 1, 1)),
        *(timedelta(0), timedelta(days=-1), -INSTANT),
    ],
    ids=repr,
)
def test_an_invalid_length_is_refused(value: Any) -> None:
    assert error_message("2024-01-01", "2024-02-01", every=value) == (
        f"every: got {value!r}, allowed is hour, day, week, month, quarter, year, or a timedelta above 0."
    )


def test_a_long_value_is_truncated() -> None:
    assert len(error_message("x" * 10_000, "2024-01-01", every="day")) < 320


@pytest.mark.parametrize(
    ("start", "most", "every"),
    [
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC) + 1000 * HOUR, "hour"),
        ("2024-01-01T00:59:59", datetime(2024, 1, 1, tzinfo=UTC) + 1000 * HOUR, "hour"),
        (at("America/New_York", "2024-10-20"), utc("2024-10-20T04:00Z") + 1000 * HOUR, "hour"),
        ("2024-01-01T12:00", utc("2026-09-27T00:00Z"), "day"),
        ("1000-01-01", utc("1999-12-31T23:59:59.999999Z"), "year"),
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC) + 1000 * INSTANT, INSTANT),
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC) + 1999 * INSTANT, 2 * INSTANT),
    ],
    ids=str,
)
def test_there_are_at_most_a_thousand_windows(start: Any, most: datetime, every: str | timedelta) -> None:
    assert windows.MAX_WINDOWS == 1000
    assert len(windows.split(start, most, every=every)) == 1000
    message = ", allowed is a larger one, for at most 1,000 windows from "
    assert message in error_message(start, most + 2 * INSTANT, every=every)


@pytest.mark.parametrize("every", [*NAMES, INSTANT, HOUR], ids=str)
def test_far_too_many_windows_are_refused_before_they_are_made(every: str | timedelta) -> None:
    assert error_message("1000-01-01", "9000-12-31", every=every) == (
        f"every: got {every!r}, allowed is a larger one, for at most 1,000 windows from 1000-01-01T00:00:00Z"
        " to 9000-12-31T00:00:00Z."
    )


@pytest.mark.parametrize("offset", ["+23:59", "+00:00", "-23:59"])
@pytest.mark.parametrize("every", [*NAMES, HOUR, timedelta.max], ids=str)
def test_windows_are_right_in_the_first_and_the_last_year(offset: str, every: str | timedelta) -> None:
    made = 3 if every in ("hour", HOUR) else 1
    assert len(windows.split(f"1000-01-01T00:00{offset}", f"1000-01-01T03:00{offset}", every=every)) == made
    assert len(windows.split(f"9000-12-31T21:00{offset}", f"9000-12-31T23:59{offset}", every=every)) == made


def test_importing_the_module_is_light() -> None:
    heavy = "{'airflow', 'pendulum', 'pydantic', 'httpx', 'asyncio'}"
    code = f"import sys, planasonix_provider.windows; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Dates around which a clock changes.
CHANGES = [
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("America/Havana", "2024-11-03"),
    ("Atlantic/Azores", "2024-10-27"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("Africa/Cairo", "2024-04-26"),
    ("Africa/Casablanca", "2024-03-10"),
    ("Asia/Beirut", "2024-03-31"),
    ("Asia/Pyongyang", "2018-05-05"),
    ("Australia/Lord_Howe", "2024-04-07"),
    ("Australia/Lord_Howe", "2024-10-06"),
    ("Antarctica/Troll", "2024-10-27"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Chatham", "2024-09-29"),
]
# Before 2011, some clocks went back over midnight into the previous day, so that days were not in order.
SINCE, UNTIL = datetime.fromisoformat("2011-01-01"), datetime.fromisoformat("2060-01-01")
LENGTHS = {"hour": 1, "day": 24, "week": 7 * 24, "month": 30 * 24, "quarter": 91 * 24, "year": 365 * 24}

fixed_offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zones = st.none() | fixed_offsets | st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
folds = st.sampled_from([0, 1])
anywhere = st.builds(
    lambda start, zone, fold: start.replace(tzinfo=zone, fold=fold), st.datetimes(SINCE, UNTIL), zones, folds
)
at_changes = st.builds(
    lambda change, minutes, fold: (at(*change) + timedelta(minutes=minutes)).replace(fold=fold),
    st.sampled_from(CHANGES),
    st.integers(-2 * 1440, 2 * 1440),
    folds,
)
starts = at_changes | anywhere
lengths = st.builds(lambda whole, part: whole + part, st.integers(0, 50), st.floats(0.001, 1))


def aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def unit_of(moment: datetime, every: str) -> tuple[int, ...]:
    """Return the hour, day, week, month, quarter or year of a time."""
    week = moment.isocalendar()
    return {
        "hour": (moment.toordinal(), moment.hour),
        "day": (moment.toordinal(),),
        "week": (week.year, week.week),
        "month": (moment.year, moment.month),
        "quarter": (moment.year, (moment.month - 1) // 3),
        "year": (moment.year,),
    }[every]


def check_coverage(start: datetime, end: datetime, made: list[dict[str, str]]) -> list[datetime]:
    """Check that windows cover a period exactly; return their edges."""
    assert 1 <= len(made) <= windows.MAX_WINDOWS
    assert all(left["end_at"] == right["start_at"] for left, right in pairwise(made))
    moments = [utc(made[0]["start_at"]), *(utc(window["end_at"]) for window in made)]
    assert all(left < right for left, right in pairwise(moments))
    assert (moments[0], moments[-1]) == (start.astimezone(UTC), end.astimezone(UTC))
    return moments


@settings(max_examples=500, deadline=None)
@given(start=starts, length=lengths, every=st.sampled_from(NAMES), end_zone=zones)
def test_windows_cover_a_period_as_the_calendar_does(
    start: datetime, length: float, every: str, end_zone: tzinfo | None
) -> None:
    zone = aware(start).tzinfo
    end = (aware(start).astimezone(UTC) + LENGTHS[every] * length * HOUR).astimezone(end_zone or UTC)
    moments = check_coverage(aware(start), end, windows.split(start, end, every=every))
    for inner in moments[1:-1]:
        before, after = (inner - INSTANT).astimezone(zone), inner.astimezone(zone)
        if every == "hour":
            is_full_hour = (after.minute, after.second, after.microsecond) == (0, 0, 0)
            assert is_full_hour or unit_of(before, every) != unit_of(after, every)
        else:
            assert unit_of(before, every) < unit_of(after, every)
    for left, right in pairwise(moments):
        first, last = left.astimezone(zone), (right - INSTANT).astimezone(zone)
        if every == "hour":
            assert right - left <= HOUR or first.utcoffset() != last.utcoffset()
        else:
            assert unit_of(first, every) == unit_of(last, every)


@settings(max_examples=500, deadline=None)
@given(
    start=starts,
    length=lengths,
    every=st.sampled_from(NAMES),
    later=st.floats(0, 0.99),
    sooner=st.floats(0.01, 1),
)
def test_inner_windows_do_not_change_when_the_start_and_the_end_move(
    start: datetime, length: float, every: str, later: float, sooner: float
) -> None:
    period = LENGTHS[every] * length * HOUR
    first = aware(start).astimezone(UTC)
    moved = (first + later * period).astimezone(aware(start).tzinfo)
    end = moved.astimezone(UTC) + sooner * (1 - later) * period
    made = edges(start, first + period + INSTANT, every=every)
    inner = [edge for edge in made if moved.astimezone(UTC) < utc(edge) < end]
    assert edges(moved, end, every=every)[1:-1] == inner


@settings(max_examples=100, deadline=None)
@given(
    start=starts,
    every=st.timedeltas(INSTANT, timedelta(days=400)),
    count=st.integers(0, 60),
    part=st.floats(0.01, 1),
)
def test_windows_of_a_timedelta_have_equal_lengths(start: datetime, every: timedelta, count: int, part: float) -> None:
    last = max(INSTANT, part * every)
    end = aware(start).astimezone(UTC) + count * every + last
    moments = check_coverage(aware(start), end, windows.split(start, end, every=every))
    assert [right - left for left, right in pairwise(moments)] == [every] * count + [last]


@settings(max_examples=150, deadline=None)
@given(
    start=st.datetimes(timezones=zones),
    end=st.datetimes(timezones=zones),
    every=st.sampled_from(NAMES) | st.timedeltas(),
)
def test_any_period_has_windows_or_raises_an_error(start: datetime, end: datetime, every: str | timedelta) -> None:
    try:
        made = windows.split(start, end, every=every)
    except ValueError as reason:
        assert ", allowed is " in str(reason)  # noqa: PT017
    else:
        check_coverage(aware(start), aware(end), made)


@settings(max_examples=50, deadline=None)
@given(start=at_changes, length=lengths, every=st.sampled_from(NAMES))
def test_a_datetime_of_pendulum_has_the_same_windows(start: datetime, length: float, every: str) -> None:
    end = start.astimezone(UTC) + LENGTHS[every] * length * HOUR
    same = pendulum.instance(start.astimezone(UTC)).in_timezone(str(start.tzinfo))
    assert windows.split(same, pendulum.instance(end), every=every) == windows.split(start, end, every=every)
