from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixUnreadableError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Snapshot
from tests.support.api_errors import api_error
from tests.support.memory_api import NOW, MemoryApi, fail_always, poll_once

DOWN = api_error(503)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


class TestAJob:
    def see(self, status: str = "running", until: tuple[str, ...] = (), **fields: Any) -> Snapshot:
        there = MemoryApi([Job(id="job_1", status=status, **fields)])
        return poll_once(JobTarget("job_1", until), there, detailed=True)

    @pytest.mark.parametrize(
        ("status", "says"),
        [
            ("queued", "Job job_1 is queued"),
            ("running", "Job job_1 is running"),
            ("cancelling", "Job job_1 is cancelling"),
            ("succeeded", "Job job_1 succeeded"),
            ("failed", "Job job_1 failed"),
            ("cancelled", "Job job_1 was cancelled"),
            ("paused", "Job job_1 is paused (a state that this version takes for one that goes on)"),
        ],
    )
    def test_is_described_in_words(self, status: str, says: str) -> None:
        assert self.see(status).description == says

    def test_ends_a_wait_in_another_awaited_state_although_it_is_not_over(self) -> None:
        assert not self.see("running").is_over
        seen = self.see("running", until=("running",))
        assert seen.is_over
        assert seen.took is None

    def test_takes_one_request_even_with_details(self) -> None:
        there = MemoryApi([Job(id="job_1", status="running")])
        poll_once(JobTarget("job_1"), there, detailed=True)
        assert there.requests == ["get job_1"]

    def test_with_another_id_is_rejected(self) -> None:
        with pytest.raises(PlanasonixUnreadableError, match=r"Asked for job job_1, got job_2\."):
            JobTarget("job_1").seen(Job(id="job_2", status="succeeded"), NOW)

    def test_has_moved_if_a_figure_has_changed(self) -> None:
        before = self.see(metrics={"rows_loaded": 1})
        assert self.see(metrics={"rows_loaded": 1}).moves == before.moves
        assert self.see(metrics={"rows_loaded": 2}).moves != before.moves
        assert self.see("cancelling", metrics={"rows_loaded": 1}).moves != before.moves

    @pytest.mark.parametrize(
        ("metrics", "progress"),
        [
            (None, ()),
            ({}, ()),
            ({"rows_extracted": 5}, ("5 rows extracted",)),
            ({"rows_extracted": 5, "rows_loaded": 0}, ("0 rows loaded",)),
            ({"rows_loaded": 1, "bytes_read": 2_000}, ("1 row loaded", "2.0 kB read")),
        ],
    )
    def test_shows_its_loaded_or_else_its_extracted_rows(self, metrics: Any, progress: tuple[str, ...]) -> None:
        assert self.see(metrics=metrics).progress == progress

    def test_duration_comes_from_the_api_or_else_from_its_times(self) -> None:
        times = {"created_at": ago(minutes=9), "queued_at": ago(minutes=8), "started_at": ago(minutes=7)}
        assert self.see("succeeded", **times, finished_at=ago(minutes=2), duration_seconds=7).took == 7
        assert self.see("succeeded", **times, finished_at=ago(minutes=2)).took == 300
        assert self.see("succeeded", **times).took is None
        assert self.see("succeeded", finished_at=ago(minutes=2)).took is None
        assert self.see("running", **times, duration_seconds=7).took is None

    def test_beginning_is_the_latest_of_its_times(self) -> None:
        times: dict[str, Any] = {}
        for name, minutes in (("created_at", 9), ("queued_at", 8), ("started_at", 7)):
            times[name] = ago(minutes=minutes)
            assert self.see(**times).began == times[name]
        assert self.see().began is None

    def test_goal_is_described_as_not_reached(self) -> None:
        assert JobTarget("job_1").goal == "Job job_1 was not over"
        assert JobTarget("job_1", ["running", "cancelling"]).goal == "Job job_1 was not over or cancelling or running"


def backfill(jobs: int = 4, status: str = "running", **fields: Any) -> Backfill:
    return Backfill(
        id="bf_1", status=status, connection_id="conn_1", job_ids=[f"job_{number}" for number in range(jobs)], **fields
    )


def see_alone(**fields: Any) -> Snapshot:
    """Poll a backfill once, without lists of its jobs."""
    return poll_once(BackfillTarget("bf_1"), MemoryApi(backfills=[backfill(**fields)]))


def jobs_in_states(*states: str) -> list[Job]:
    """Return the jobs of a backfill by their states; the first state is that of the oldest job."""
    jobs = [
        Job(id=f"job_{number}", status=status, connection_id="conn_1", created_at=NOW)
        for number, status in enumerate(states)
    ]
    return jobs[::-1]


class TestABackfill:
    def test_counts_finished_jobs_with_two_lists(self) -> None:
        there = MemoryApi(jobs_in_states("succeeded", "failed", "running", "queued"), [backfill(4)])
        seen = poll_once(BackfillTarget("bf_1"), there, detailed=True)
        assert seen.progress == ("2 of 4 jobs so far done",)
        assert len(there.requests) == 3

    def test_requests_no_list_if_no_log_line_is_due(self) -> None:
        there = MemoryApi(jobs_in_states(*["running"] * 4), [backfill(4)])
        assert poll_once(BackfillTarget("bf_1"), there).progress == ("4 jobs so far",)
        assert there.requests == ["get bf_1"]

    def test_shows_the_last_count_if_no_log_line_is_due(self) -> None:
        there = MemoryApi(jobs_in_states("succeeded", "running"), [backfill(2)])
        waiting = BackfillTarget("bf_1")
        poll_once(waiting, there, detailed=True)
        there.backfills = [backfill(3)]
        there.requests.clear()
        assert poll_once(waiting, there).progress == ("1 of 3 jobs so far done",)
        assert there.requests == ["get bf_1"]

    @pytest.mark.parametrize(("jobs", "words"), [(1, "1 job so far"), (5_000, "5,000 jobs so far")])
    def test_uses_the_right_plural_of_jobs(self, jobs: int, words: str) -> None:
        assert see_alone(jobs=jobs).progress == (words,)

    def test_counts_a_job_that_starts_between_the_lists_as_unfinished(self) -> None:
        there = MemoryApi(jobs_in_states("succeeded", "queued"), [backfill(2)])

        def starts_after_the_first_list(asked: str) -> None:
            if len(there.requests) == 3:
                there.set_status("job_1", "running")

        there.get_error = starts_after_the_first_list
        assert poll_once(BackfillTarget("bf_1"), there, detailed=True).progress == ("1 of 2 jobs so far done",)

    def test_counts_no_jobs_of_others(self) -> None:
        others = [
            Job(id=f"other_{number}", status="running", connection_id="conn_1", created_at=NOW) for number in range(9)
        ]
        there = MemoryApi([*others, *jobs_in_states("succeeded", "running")], [backfill(2)])
        assert poll_once(BackfillTarget("bf_1"), there, detailed=True).progress == ("1 of 2 jobs so far done",)

    def test_counts_correctly_if_the_lists_ignore_filters(self) -> None:
        there = MemoryApi(
            jobs_in_states("succeeded", "running", "queued"),
            [backfill(3)],
            ignored_filters=("status", "connection_id", "since"),
        )
        assert poll_once(BackfillTarget("bf_1"), there, detailed=True).progress == ("1 of 3 jobs so far done",)

    @pytest.mark.parametrize("status", ["running", "queued"])
    def test_counts_no_finished_jobs_if_more_than_a_page_is_active(self, status: str) -> None:
        there = MemoryApi(jobs_in_states(*[status] * 101), [backfill(101)])
        assert poll_once(BackfillTarget("bf_1"), there, detailed=True).progress == ("101 jobs so far",)
        assert len(there.requests) <= 3

    @pytest.mark.parametrize("what", ["list running", "list queued"])
    def test_needs_no_list_that_fails(self, what: str) -> None:
        there = MemoryApi(jobs_in_states("succeeded", "running"), [backfill(2)], get_error=fail_always(what, DOWN))
        seen = poll_once(BackfillTarget("bf_1"), there, detailed=True)
        assert seen.progress == ("2 jobs so far",)
        assert seen.status == "running"

    @pytest.mark.parametrize("job_ids", [None, []])
    def test_requests_no_list_before_it_has_created_a_job(self, job_ids: Any) -> None:
        there = MemoryApi(backfills=[Backfill(id="bf_1", status="queued", job_ids=job_ids)])
        assert poll_once(BackfillTarget("bf_1"), there, detailed=True).progress == ()
        assert there.requests == ["get bf_1"]

    @pytest.mark.parametrize(
        ("status", "says"),
        [
            ("completed", "Backfill bf_1 completed"),
            ("failed", "Backfill bf_1 failed"),
            ("cancelled", "Backfill bf_1 was cancelled"),
        ],
    )
    def test_that_is_over_shows_its_duration_and_known_figures(self, status: str, says: str) -> None:
        times = {"created_at": ago(hours=2), "updated_at": ago(hours=1)}
        there = MemoryApi(backfills=[backfill(status=status, progress_percent=60, rows_processed=7, **times)])
        seen = poll_once(BackfillTarget("bf_1"), there, detailed=True)
        assert (seen.description, seen.is_over, seen.took, seen.progress) == (says, True, 3_600, ("7 rows processed",))
        assert there.requests == ["get bf_1"]

    def test_has_no_duration_if_a_time_is_missing(self) -> None:
        times = {"created_at": ago(hours=2), "updated_at": ago(hours=1)}
        for missing in times:
            assert see_alone(status="completed", **{**times, missing: None}).took is None
        assert see_alone(**times).took is None

    def test_in_the_state_succeeded_which_only_jobs_have_is_not_over(self) -> None:
        seen = see_alone(status="succeeded")
        assert not seen.is_over
        assert "a state that this version takes for one that goes on" in seen.description

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"progress_percent": 25, "updated_at": NOW}, "about 3 h 0 min left"),
            # Relative to the time of the figures, not of the poll.
            ({"progress_percent": 25, "updated_at": ago(minutes=30)}, "about 1 h 30 min left"),
            ({"progress_percent": 25}, "about 3 h 0 min left"),
            ({"progress_percent": 1}, "about 4 d 3 h left"),
            ({"progress_percent": 99.99, "updated_at": NOW}, None),
            ({"progress_percent": 100}, None),
            ({"progress_percent": 0}, None),
            ({"progress_percent": 5e-324}, None),
            ({}, None),
            ({"progress_percent": 50, "created_at": None}, None),
            ({"progress_percent": 50, "updated_at": ago(hours=2)}, None),
            ({"progress_percent": 50, "status": "failed", "updated_at": NOW}, None),
        ],
    )
    def test_remaining_time_is_estimated_from_the_progress(self, fields: dict[str, Any], words: str | None) -> None:
        seen = see_alone(**{"created_at": ago(hours=1), **fields})
        assert [part for part in seen.progress if "left" in part] == ([words] if words else [])

    def test_shows_its_percent_and_rows_first(self) -> None:
        progress = see_alone(progress_percent=33.4, rows_processed=1_234, created_at=ago(hours=1)).progress
        assert progress == ("33 %", "1,234 rows processed", "4 jobs so far", "about 1 h 59 min left")

    @pytest.mark.parametrize(
        "fields", [{"status": "queued"}, {"progress_percent": 11}, {"rows_processed": 2}, {"jobs": 5}]
    )
    def test_has_moved_if_a_figure_has_changed(self, fields: dict[str, Any]) -> None:
        known = {"progress_percent": 10, "rows_processed": 1, "jobs": 4}
        before = see_alone(**known)
        # Neither a later time alone nor a first count of jobs is a move.
        later = MemoryApi(jobs_in_states(*["running"] * 4), [backfill(**known, updated_at=NOW)])
        assert poll_once(BackfillTarget("bf_1"), later, detailed=True).moves == before.moves
        assert see_alone(**{**known, **fields}).moves != before.moves

    def test_moved_at_the_time_from_the_api(self) -> None:
        assert see_alone(updated_at=ago(hours=1)).moved_at == ago(hours=1)
