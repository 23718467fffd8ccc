from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.models import Job
from planasonix_provider.watchers.cursor import MAX_LISTING_DELAY, MAX_PENDING, MAX_REPORTED, Cursor
from tests.support.time_travel import BEGAN


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def job(name: str, created: float | None = 0.0, status: str = "running") -> Job:
    return Job(id=name, status=status, created_at=None if created is None else at(created))


def new_cursor(**more: Any) -> Cursor:
    return Cursor(BEGAN, **more)


def test_work_below_the_watermark_is_reported_only_if_pending() -> None:
    cursor = new_cursor(pending={"job_pending": at(-9)})
    assert not cursor.needs_report(job("job_old", -1))
    assert cursor.needs_report(job("job_pending", -9))
    assert cursor.needs_report(job("job_new", 0))
    assert cursor.needs_report(job("job_undated", None))


def test_reported_work_is_not_reported_again() -> None:
    cursor = new_cursor(pending={"job_1": at(-9)})
    for name, created in (("job_1", -9), ("job_2", 5), ("job_3", None)):
        cursor.mark_reported(job(name, created), at(10))
        assert not cursor.needs_report(job(name, created))


def test_work_that_ended_before_the_baseline_is_past() -> None:
    cursor = Cursor.new(at(100), at(100), [job("job_pending", 50)])
    cursor.rewind(at(100))
    assert cursor.needs_report(job("job_ended", 50))
    assert cursor.ended_before_baseline(job("job_ended", 50))
    assert not cursor.ended_before_baseline(job("job_pending", 50))
    assert not cursor.ended_before_baseline(job("job_new", 100))
    cursor.advance(at(110))
    # A list showed it late, so it may have ended since.
    assert not cursor.ended_before_baseline(job("job_ended", 50))


def test_the_watermark_follows_the_clock() -> None:
    cursor = new_cursor()
    cursor.advance(at(3600))
    assert cursor.watermark == at(3600) - MAX_LISTING_DELAY


def test_the_watermark_never_moves_back_by_itself() -> None:
    cursor = new_cursor()
    cursor.advance(at(-3600))
    assert cursor.watermark == BEGAN


def test_marks_stay_while_lists_may_contain_the_work() -> None:
    cursor = new_cursor()
    cursor.mark_reported(job("job_1", 10), at(20))
    cursor.advance(at(10) + MAX_LISTING_DELAY)
    assert not cursor.needs_report(job("job_1", 10))
    assert len(cursor.reported) == 1
    cursor.advance(at(11) + MAX_LISTING_DELAY)
    assert not cursor.needs_report(job("job_1", 10))
    assert not cursor.reported


def test_a_few_pending_jobs_hold_the_watermark_back() -> None:
    cursor = new_cursor()
    cursor.add_pending(job("job_pending", 10), at(10))
    for number in range(98):
        cursor.mark_reported(job(f"job_{number}", 20 + number), at(200))
    cursor.advance(at(1000))
    assert cursor.watermark == at(10)


def test_the_watermark_passes_a_pending_job_if_that_saves_a_page() -> None:
    cursor = new_cursor()
    cursor.add_pending(job("job_pending", 10), at(10))
    for number in range(99):
        cursor.mark_reported(job(f"job_{number}", 20 + number), at(200))
    cursor.add_pending(job("job_later", 500), at(500))
    cursor.advance(at(1000))
    assert cursor.watermark == at(500)
    assert cursor.pending.keys() == {"job_pending", "job_later"}
    assert cursor.needs_report(job("job_pending", 10))


def test_the_watermark_passes_all_work_of_one_second_together() -> None:
    cursor = new_cursor()
    for number in range(50):
        cursor.mark_reported(job(f"job_{number}", 10), at(20))
    cursor.add_pending(job("job_pending", 10), at(20))
    cursor.advance(at(1000))
    assert cursor.watermark == at(10)


def test_pending_jobs_hold_back_no_more_marks_than_are_saved() -> None:
    cursor = new_cursor()
    for number in range(100):
        cursor.add_pending(job(f"job_open_{number}", number / 100), at(1))
    jobs = [job(f"job_{number}", 10 + number // 2) for number in range(MAX_REPORTED + 1_000)]
    for done in jobs:
        cursor.mark_reported(done, at(5_000))
    cursor.advance(at(5_000))
    assert MAX_REPORTED - 2 < len(cursor.reported) <= MAX_REPORTED
    restored = Cursor.from_json(json.loads(json.dumps(cursor.to_json())))
    assert not any(restored.needs_report(done) for done in jobs)
    assert restored.pending.keys() == cursor.pending.keys()


def test_the_watermark_passes_no_more_pending_jobs_than_are_saved() -> None:
    cursor = new_cursor()
    for number in range(MAX_PENDING + 1):
        cursor.add_pending(job(f"job_open_{number}", number / 1_000), at(1))
    for number in range(MAX_REPORTED + 1_000):
        cursor.mark_reported(job(f"job_{number}", 10 + number), at(5_000))
    cursor.advance(at(5_000))
    assert cursor.watermark == at(0)


def test_survives_json() -> None:
    cursor = new_cursor(pending={"job_pending": at(-9)})
    cursor.add_pending(job("job_new", 5), at(6))
    for number in range(50):
        cursor.mark_reported(job(f"job_{number}", 7.5), at(8))
    restored = Cursor.from_json(json.loads(json.dumps(cursor.to_json())))
    assert (restored.watermark, restored.pending, restored.reported.keys()) == (
        cursor.watermark,
        cursor.pending,
        cursor.reported.keys(),
    )
    restored.advance(at(7) + MAX_LISTING_DELAY)
    assert not any(restored.needs_report(job(f"job_{number}", 7.5)) for number in range(50))


def test_a_saved_cursor_is_small_and_loses_no_pending_job() -> None:
    cursor = new_cursor()
    for number in range(2 * MAX_PENDING):
        cursor.add_pending(job(f"job_open_{number:06}_{'x' * 16}", -number), at(0))
    for number in range(3 * MAX_REPORTED):
        cursor.mark_reported(job(f"job_{number}", number / 10), at(1000))
    saved = json.dumps(cursor.to_json())
    assert len(saved) < 60_000
    restored = Cursor.from_json(json.loads(saved))
    assert all(
        restored.needs_report(job(name, (created - BEGAN).total_seconds())) for name, created in cursor.pending.items()
    )


def test_a_mark_of_an_impossible_time_is_rejected() -> None:
    with pytest.raises(ValueError, match="reported: "):
        Cursor.from_json({"watermark": str(BEGAN), "pending": {}, "reported": {"99999999999999": ["x"]}})


@pytest.mark.parametrize(
    "saved", [None, [], {}, {"watermark": "x", "pending": {}, "reported": {}}, {"watermark": str(BEGAN)}]
)
def test_a_damaged_cursor_is_rejected(saved: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Cursor.from_json(saved)
