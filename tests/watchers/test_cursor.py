from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.models import Job
from planasonix_provider.watchers.cursor import MAX_LISTING_DELAY, MAX_PENDING, MAX_REPORTED, Cursor
from tests.support.fake_clock import BEGAN


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def job(name: str, created: float | None = 0.0, status: str = "running") -> Job:
    return Job(id=name, status=status, created_at=None if created is None else at(created))


def ledger(**more: Any) -> Cursor:
    return Cursor(BEGAN, **more)


def test_what_was_created_before_is_no_news_unless_it_was_open() -> None:
    known = ledger(pending={"job_open": at(-9)})
    assert not known.needs_report(job("job_old", -1))
    assert known.needs_report(job("job_open", -9))
    assert known.needs_report(job("job_new", 0))
    assert known.needs_report(job("job_undated", None))


def test_what_was_told_is_no_news_whatever_it_was_before() -> None:
    known = ledger(pending={"job_1": at(-9)})
    for name, created in (("job_1", -9), ("job_2", 5), ("job_3", None)):
        known.mark_reported(job(name, created), at(10))
        assert not known.needs_report(job(name, created))


def test_what_had_ended_when_a_watcher_began_is_past() -> None:
    known = Cursor.new(at(100), at(100), [job("job_open", 50)])
    known.rewind(at(100))
    assert known.needs_report(job("job_ended", 50))
    assert known.ended_before_baseline(job("job_ended", 50))
    assert not known.ended_before_baseline(job("job_open", 50))
    assert not known.ended_before_baseline(job("job_new", 100))
    known.advance(at(110))
    # It was shown late, and nobody knows when it has ended.
    assert not known.ended_before_baseline(job("job_ended", 50))


def test_the_bound_follows_the_clock_where_nothing_happens() -> None:
    known = ledger()
    known.advance(at(3600))
    assert known.watermark == at(3600) - MAX_LISTING_DELAY


def test_the_bound_never_moves_back_by_itself() -> None:
    known = ledger()
    known.advance(at(-3600))
    assert known.watermark == BEGAN


def test_marks_are_kept_for_as_long_as_lists_may_show_what_they_mark() -> None:
    known = ledger()
    known.mark_reported(job("job_1", 10), at(20))
    known.advance(at(10) + MAX_LISTING_DELAY)
    assert not known.needs_report(job("job_1", 10))
    assert len(known.reported) == 1
    known.advance(at(11) + MAX_LISTING_DELAY)
    assert not known.needs_report(job("job_1", 10))
    assert not known.reported


def test_a_few_open_jobs_hold_the_bound_back() -> None:
    known = ledger()
    known.add_pending(job("job_open", 10), at(10))
    for number in range(98):
        known.mark_reported(job(f"job_{number}", 20 + number), at(200))
    known.advance(at(1000))
    assert known.watermark == at(10)


def test_an_open_job_is_left_behind_once_that_spares_a_page() -> None:
    known = ledger()
    known.add_pending(job("job_open", 10), at(10))
    for number in range(99):
        known.mark_reported(job(f"job_{number}", 20 + number), at(200))
    known.add_pending(job("job_later", 500), at(500))
    known.advance(at(1000))
    assert known.watermark == at(500)
    assert known.pending.keys() == {"job_open", "job_later"}
    assert known.needs_report(job("job_open", 10))


def test_two_of_one_second_are_left_behind_together() -> None:
    known = ledger()
    for number in range(50):
        known.mark_reported(job(f"job_{number}", 10), at(20))
    known.add_pending(job("job_open", 10), at(20))
    known.advance(at(1000))
    assert known.watermark == at(10)


def test_open_jobs_do_not_hold_back_more_than_another_process_can_be_told() -> None:
    known = ledger()
    for number in range(100):
        known.add_pending(job(f"job_open_{number}", number / 100), at(1))
    jobs = [job(f"job_{number}", 10 + number // 2) for number in range(MAX_REPORTED + 1_000)]
    for done in jobs:
        known.mark_reported(done, at(5_000))
    known.advance(at(5_000))
    assert MAX_REPORTED - 2 < len(known.reported) <= MAX_REPORTED
    again = Cursor.from_json(json.loads(json.dumps(known.to_json())))
    assert not any(again.needs_report(done) for done in jobs)
    assert again.pending.keys() == known.pending.keys()


def test_more_open_jobs_than_are_kept_are_not_left_behind_for_the_marks() -> None:
    known = ledger()
    for number in range(MAX_PENDING + 1):
        known.add_pending(job(f"job_open_{number}", number / 1_000), at(1))
    for number in range(MAX_REPORTED + 1_000):
        known.mark_reported(job(f"job_{number}", 10 + number), at(5_000))
    known.advance(at(5_000))
    assert known.watermark == at(0)


def test_it_is_the_same_to_another_process() -> None:
    known = ledger(pending={"job_open": at(-9)})
    known.add_pending(job("job_new", 5), at(6))
    for number in range(50):
        known.mark_reported(job(f"job_{number}", 7.5), at(8))
    again = Cursor.from_json(json.loads(json.dumps(known.to_json())))
    assert (again.watermark, again.pending, again.reported.keys()) == (
        known.watermark,
        known.pending,
        known.reported.keys(),
    )
    again.advance(at(7) + MAX_LISTING_DELAY)
    assert not any(again.needs_report(job(f"job_{number}", 7.5)) for number in range(50))


def test_it_stays_small_and_loses_nothing_that_is_open() -> None:
    known = ledger()
    for number in range(2 * MAX_PENDING):
        known.add_pending(job(f"job_open_{number:06}_{'x' * 16}", -number), at(0))
    for number in range(3 * MAX_REPORTED):
        known.mark_reported(job(f"job_{number}", number / 10), at(1000))
    kept = json.dumps(known.to_json())
    assert len(kept) < 60_000
    again = Cursor.from_json(json.loads(kept))
    assert all(
        again.needs_report(job(name, (created - BEGAN).total_seconds())) for name, created in known.pending.items()
    )


def test_a_mark_of_a_time_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="reported: "):
        Cursor.from_json({"watermark": str(BEGAN), "pending": {}, "reported": {"99999999999999": ["x"]}})


@pytest.mark.parametrize(
    "kept", [None, [], {}, {"watermark": "x", "pending": {}, "reported": {}}, {"watermark": str(BEGAN)}]
)
def test_what_is_damaged_is_refused(kept: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Cursor.from_json(kept)
