"""Partitions of ``planasonix_provider.windows``: their boundaries, and the keys that Airflow gives them."""

from __future__ import annotations

import runpy
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS
from hypothesis import given, settings
from hypothesis import strategies as st

from planasonix_provider import windows

EXAMPLES = Path(__file__).parent.parent / "example_dags"
BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
# Their clocks went back across midnight, so that the previous day continued after the first minute of the new one.
ODD_ZONES = {"America/St_Johns", "Canada/Newfoundland", "America/Goose_Bay"}
ZONES = sorted(zone for zone in available_timezones() if "/" in zone and zone not in ODD_ZONES)


def keys(*period: Any, **how: Any) -> list[str]:
    return [partition["partition_key"] for partition in windows.partitions(*period, **how)]


@pytest.mark.parametrize(
    ("every", "key_format", "expected"),
    [
        ("month", None, ["2024-01-01T00:00:00", "2024-02-01T00:00:00", "2024-03-01T00:00:00"]),
        ("month", "%Y-%m", ["2024-01", "2024-02", "2024-03"]),
        ("quarter", "%Y-Q{quarter}", ["2024-Q1"]),
        (
            "week",
            "%Y-%m-%d (W%V)",
            [f"{date(2024, 1, 1) + number * timedelta(7)} (W{number + 1:02})" for number in range(13)],
        ),
    ],
)
def test_a_key_is_the_local_start_in_a_format(every: str, key_format: str | None, expected: list[str]) -> None:
    end = "2024-04-01"
    assert keys("2024-01-01", end, every=every, key_format=key_format) == expected


def test_a_partition_is_a_window_with_a_key() -> None:
    assert windows.partitions("2024-03-31", "2024-04-02", every="day", timezone=BERLIN, key_format="%Y-%m-%d") == [
        {"partition_key": "2024-03-31", "start_at": "2024-03-30T23:00:00Z", "end_at": "2024-03-31T22:00:00Z"},
        {"partition_key": "2024-04-01", "start_at": "2024-03-31T22:00:00Z", "end_at": "2024-04-01T22:00:00Z"},
    ]


def test_times_with_a_zone_of_their_own_are_converted() -> None:
    period = (datetime(2024, 3, 10, 5, tzinfo=UTC), "2024-03-11T00:00:00-04:00")
    assert keys(*period, every="day", timezone=NEW_YORK) == ["2024-03-10T00:00:00"]


def test_an_hour_that_the_clock_shows_twice_is_one_partition() -> None:
    assert windows.partitions("2024-11-03T01:00", "2024-11-03T03:00", every="hour", timezone=NEW_YORK) == [
        {"partition_key": "2024-11-03T01:00:00", "start_at": "2024-11-03T05:00:00Z", "end_at": "2024-11-03T07:00:00Z"},
        {"partition_key": "2024-11-03T02:00:00", "start_at": "2024-11-03T07:00:00Z", "end_at": "2024-11-03T08:00:00Z"},
    ]


def test_an_hour_or_a_day_that_the_clock_skips_is_no_partition() -> None:
    hours = keys("2024-03-10T01:00", "2024-03-10T04:00", every="hour", timezone=NEW_YORK, key_format="%H")
    assert hours == ["01", "03"]
    days = keys("2011-12-29", "2012-01-01", every="day", timezone="Pacific/Apia", key_format="%d")
    assert days == ["29", "31"]


def test_the_key_of_a_day_without_a_midnight_is_its_first_hour() -> None:
    """As ``CronPartitionTimetable`` and the mappers of Airflow write it."""
    days = windows.partitions("2024-09-07", "2024-09-10", every="day", timezone="America/Santiago")
    assert [day["partition_key"] for day in days] == [
        "2024-09-07T00:00:00",
        "2024-09-08T01:00:00",
        "2024-09-09T00:00:00",
    ]


@pytest.mark.parametrize(
    ("moment", "how", "key"),
    [
        ("2024-03-10T23:30", {}, "2024-03-10T00:00:00"),
        ("2024-03-10T23:30Z", {"timezone": BERLIN}, "2024-03-11T00:00:00"),
        (date(2024, 3, 31), {"every": "quarter", "key_format": "%Y-Q{quarter}"}, "2024-Q1"),
    ],
)
def test_the_key_of_a_time(moment: Any, how: dict[str, str], key: str) -> None:
    assert windows.partition_key(moment, **{"every": "day"} | how) == key


@pytest.mark.parametrize(
    ("how", "name"), [({"every": "decade"}, "every"), ({"timezone": "Mars"}, "timezone"), ({"moment": "now"}, "moment")]
)
def test_the_key_of_a_time_needs_valid_parameters(how: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got "):
        windows.partition_key(**{"moment": "2024-03-10", "every": "day"} | how)


@pytest.mark.parametrize(("start", "end"), [("2024-03-10T01:00", "2024-03-12"), ("2024-03-10", "2024-03-11T23:59")])
def test_a_partial_partition_is_refused_or_included(start: str, end: str) -> None:
    with pytest.raises(ValueError, match=r"^(start|end): got '.*Z', allowed is the start of a day in UTC; the nearest"):
        windows.partitions(start, end, every="day")
    included = windows.partitions(start, end, every="day", partial="include")
    assert [partition["partition_key"][:10] for partition in included] == ["2024-03-10", "2024-03-11"]
    assert (included[0]["start_at"][:16], included[-1]["end_at"][:10]) == (
        start if "T" in start else f"{start}T00:00",
        end[:10],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": "fortnight"}, "every: got 'fortnight', allowed is hour, day, week, month, quarter, year."),
        ({"every": timedelta(1)}, "every: got datetime.timedelta"),
        ({"timezone": "Mars/Base"}, "timezone: got 'Mars/Base', allowed is the name of a time zone, such as UTC"),
        ({"timezone": None}, "timezone: got None, allowed is"),
        ({"key_format": "day"}, "key_format: got 'day', allowed is a format for strftime, such as %Y"),
        ({"key_format": "%Y"}, "key_format: got '%Y', allowed is a format whose keys differ, with at most 250"),
        ({"key_format": "%Y-%m-%d" + "x" * 250}, "key_format: got "),
        ({"key_format": "%Y-%m-%d%n"}, "key_format: got '%Y-%m-%d%n', allowed is a format whose keys differ"),
        ({"key_format": "%Y-%m-%d\0"}, "key_format: got '%Y-%m-%d\\x00', allowed is a format for strftime"),
        ({"partial": "ignore"}, "partial: got 'ignore', allowed is error, include."),
        ({"end": "2024-03-10"}, "end: got '2024-03-10', allowed is a time after start, 2024-03-10T00:00:00Z."),
        ({"end": "2034-03-10"}, "every: got 'day', allowed is a larger one, for at most 1,000 partitions from 2024"),
    ],
)
def test_an_invalid_parameter_is_refused(arguments: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"start": "2024-03-10", "end": "2024-03-12", "every": "day"} | arguments
    with pytest.raises(ValueError, match=r"allowed is") as refused:
        windows.partitions(**values)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "every", "start_at", "end_at"),
    [
        ("2024-03-10T00:00:00", "day", "2024-03-09T23:00:00Z", "2024-03-10T23:00:00Z"),
        ("2024-03-10T15:20:00+00:00", "hour", "2024-03-10T15:00:00Z", "2024-03-10T16:00:00Z"),
        ("2024-03-10T15", "hour", "2024-03-10T14:00:00Z", "2024-03-10T15:00:00Z"),
        ("2024-03-31", "day", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"),
        ("2024-03-31", "month", "2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z"),
        ("2024-12-30 (W01)", "week", "2024-12-29T23:00:00Z", "2025-01-05T23:00:00Z"),
        ("2024-02", "month", "2024-01-31T23:00:00Z", "2024-02-29T23:00:00Z"),
        ("2024-Q4", "quarter", "2024-09-30T22:00:00Z", "2024-12-31T23:00:00Z"),
        ("2024", "year", "2023-12-31T23:00:00Z", "2024-12-31T23:00:00Z"),
    ],
)
def test_the_window_of_a_key(key: str, every: str, start_at: str, end_at: str) -> None:
    assert windows.of_partition(key, every=every, timezone=BERLIN) == {"start_at": start_at, "end_at": end_at}


@pytest.mark.parametrize(
    ("key", "key_format"), [("10.03.2024", "%d.%m.%Y"), ("Q1 of 2024", "Q{quarter} of %Y"), ("24W10", "%yW%W")]
)
def test_the_window_of_a_key_in_a_format(key: str, key_format: str) -> None:
    assert windows.of_partition(key, every="year", key_format=key_format)["start_at"] == "2024-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("key", "every", "key_format", "message"),
    [
        ("2024-03", "day", None, "every: got 'day', allowed is month or longer, because the key '2024-03' names a mon"),
        ("2024-03-10", "hour", None, "every: got 'hour', allowed is day or longer"),
        ("orders", "day", None, "partition_key: got 'orders', allowed is a key such as 2024-03-10T00:00:00 or 2024"),
        ("20240310", "day", None, "partition_key: got '20240310'"),
        ("2024-13-10", "day", None, "partition_key: got '2024-13-10'"),
        ("0001-01-01", "day", None, "partition_key: got '0001-01-01'"),
        ("2024-03-10", "day", "%Y", "partition_key: got '2024-03-10', allowed is a key in the format %Y."),
        ("2024-03-10", "day", "%Q", "partition_key: got '2024-03-10', allowed is a key in the format %Q."),
        (None, "day", None, "partition_key: got None, allowed is a key such as"),
        (20240310, "day", "%Y%m%d", "partition_key: got 20240310, allowed is a key in the format"),
    ],
)
def test_an_invalid_key_is_refused(key: Any, every: str, key_format: str | None, message: str) -> None:
    with pytest.raises(ValueError, match="allowed is") as refused:
        windows.of_partition(key, every=every, key_format=key_format)
    assert str(refused.value).startswith(message)


def test_the_error_without_a_key_names_the_reason() -> None:
    with pytest.raises(ValueError, match="only if the timetable of its DAG is partitioned"):
        windows.of_partition(None, every="day")  # type: ignore[arg-type]


moments = st.integers(int(365.25 * 86_400), 67 * 31_536_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@settings(max_examples=300)
@given(moments, st.sampled_from(windows.UNITS), st.sampled_from(ZONES))
def test_a_partition_is_the_window_of_its_key(moment: datetime, every: str, zone: str) -> None:
    [partition] = windows.partitions(
        moment, moment + timedelta(microseconds=1), every=every, timezone=zone, partial="include"
    )
    assert windows.partition_key(moment, every=every, timezone=zone) == partition["partition_key"]
    window = windows.of_partition(partition["partition_key"], every=every, timezone=zone)
    assert windows.partitions(*window.values(), every=every, timezone=zone) == [partition | window]


@settings(max_examples=300)
@given(moments, st.sampled_from(windows.UNITS), st.sampled_from(ZONES))
def test_keys_are_those_of_the_mappers_of_airflow(moment: datetime, every: str, zone: str) -> None:
    temporal = pytest.importorskip("airflow.partition_mappers.temporal", reason="Airflow 3.2 has the first mappers")
    mapper = getattr(temporal, f"StartOf{every.capitalize()}Mapper")(timezone=zone, input_format="%Y-%m-%dT%H:%M:%S%z")
    period = (moment, moment + timedelta(microseconds=1))
    [partition] = windows.partitions(
        *period, every=every, timezone=zone, partial="include", key_format=mapper.output_format
    )
    assert partition["partition_key"] == mapper.to_downstream(moment.strftime("%Y-%m-%dT%H:%M:%S%z"))
    # The default format is the one that mappers read.
    [by_default] = windows.partitions(*period, every=every, timezone=zone, partial="include")
    plain = type(mapper)(timezone=zone)
    assert plain.to_downstream(by_default["partition_key"]) == partition["partition_key"]
    # The mappers of Airflow 3.2 map in one direction only.
    if hasattr(plain, "encode_upstream"):
        assert plain.encode_upstream(plain.decode_downstream(partition["partition_key"])) == by_default["partition_key"]
    assert windows.of_partition(partition["partition_key"], every=every, timezone=zone) == windows.of_partition(
        by_default["partition_key"], every=every, timezone=zone
    )


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "Asia/Tokyo"])
def test_keys_are_those_of_the_cron_timetable_of_airflow(zone: str) -> None:
    timetable_class = getattr(pytest.importorskip("airflow.timetables.trigger"), "CronPartitionTimetable", None)
    if not hasattr(timetable_class, "iter_partition_dagrun_infos"):
        pytest.skip("Airflow before 3.3 does not list the runs of a partitioned timetable")
    start, end = (pendulum.datetime(2024, 3, day, tz=zone) for day in (30, 31))
    timetable = timetable_class("0 0 * * *", timezone=zone)
    runs = timetable.iter_partition_dagrun_infos(earliest=start, latest=end)
    assert [run.partition_key for run in runs] == keys(start, "2024-04-01", every="day", timezone=zone)


def test_all_partitions_of_a_year_follow_each_other() -> None:
    made = windows.partitions("2024-01-01", "2025-01-01", every="day", timezone=BERLIN)
    assert len(made) == 366
    assert all(left["end_at"] == right["start_at"] for left, right in pairwise(made))


@pytest.mark.skipif(AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 has partitions of asset events")
@pytest.mark.parametrize(
    "name",
    [
        *("reload_day", "replay_by_day", "two_sources", "weekly_rollup"),
        pytest.param(
            "events_by_day", marks=pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no watchers")
        ),
    ],
)
def test_no_example_waits_for_partitions_before_airflow_3_3(name: str) -> None:
    """Airflow 3.2 has the timetables, but events without a key start no DAG with such a timetable."""
    values = runpy.run_path(str(EXAMPLES / f"planasonix_{name}.py")).values()
    timetables = [type(value.timetable).__name__ for value in values if isinstance(value, DAG)]
    assert len(timetables) == 2
    assert not any("Partition" in timetable for timetable in timetables)
