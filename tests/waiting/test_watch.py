from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixRateLimitError,
    PlanasonixServerError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.waiting.subjects import JobSubject, Seen
from planasonix_provider.waiting.watch import LONGEST_OUTAGE, Watch

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
SUBJECT = JobSubject("job_1")


def after(**span: float) -> datetime:
    return BEGAN + timedelta(**span)


def job(status: str, **fields: Any) -> Seen:
    return SUBJECT.seen(Job(id="job_1", status=status, started_at=BEGAN, **fields), BEGAN)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def watch(lines: list[str]) -> Watch:
    return make(lines)


def make(lines: list[str], **arguments: Any) -> Watch:
    return Watch(SUBJECT, now=BEGAN, info=lines.append, warn=lambda line: lines.append(f"! {line}"), **arguments)


class TestTheLog:
    def test_has_a_line_for_each_change_of_state(self, watch: Watch, lines: list[str]) -> None:
        metrics = {"rows_extracted": 45_210, "rows_loaded": 44_802, "bytes_read": 67_108_864}
        watch.see(job("queued"), after(seconds=0))
        watch.see(job("queued"), after(seconds=10))
        watch.see(job("running", metrics=metrics), after(seconds=20))
        watch.see(job("running", metrics=metrics), after(seconds=21))
        watch.see(job("succeeded", metrics=metrics, duration_seconds=85), after(seconds=90))
        assert lines == [
            "Job job_1 is queued, after 0 s.",
            "Job job_1 is running, 44,802 rows loaded, 67.1 MB read, after 20 s.",
            "Job job_1 succeeded, 44,802 rows loaded, 67.1 MB read, in 1 min 25 s.",
        ]

    def test_has_a_line_every_thirty_seconds_even_between_two_looks(self, watch: Watch, lines: list[str]) -> None:
        watch.see(job("running"), after(seconds=0))
        moment = BEGAN
        while moment < after(minutes=2):
            moment += timedelta(seconds=max(watch.seconds_until_attention(moment), 0.1))
            watch.remind(moment)
        assert lines == [
            "Job job_1 is running, after 0 s.",
            "Job job_1 is running, after 30 s (seen 30 s ago).",
            "Job job_1 is running, after 1 min 0 s (seen 1 min 0 s ago).",
            "Job job_1 is running, after 1 min 30 s (seen 1 min 30 s ago).",
            "Job job_1 is running, after 2 min 0 s (seen 2 min 0 s ago).",
        ]

    def test_does_not_repeat_what_the_process_before_has_written(self, lines: list[str]) -> None:
        make(lines, status="queued").see(job("queued"), after(seconds=1))
        assert lines == []

    def test_explains_a_state_that_nobody_knows(self, watch: Watch, lines: list[str]) -> None:
        assert watch.see(job("paused"), after(seconds=1)) is None
        assert lines == ["Job job_1 is paused (a state that this version takes for one that goes on), after 1 s."]

    def test_tells_of_trouble_once_then_reminds_then_tells_of_its_end(self, watch: Watch, lines: list[str]) -> None:
        watch.see(job("running"), after(seconds=0))
        for second in (10, 20, 30, 40):
            watch.miss(PlanasonixServerError("GET /x: answered 500.", status=500), after(seconds=second))
        watch.see(job("running"), after(seconds=50))
        assert lines == [
            "Job job_1 is running, after 0 s.",
            "! No news of job job_1, still waiting: GET /x: answered 500.",
            "Still no news of job job_1, for 30 s now.",
            "Planasonix answers again, after 40 s.",
        ]

    def test_counts_no_time_below_nothing_where_clocks_disagree(self, watch: Watch, lines: list[str]) -> None:
        watch.see(job("running"), after(hours=-1))
        assert lines == ["Job job_1 is running, after 0 s."]


class TestTheEnd:
    @pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
    def test_is_a_state_that_is_over(self, watch: Watch, status: str) -> None:
        event = watch.see(job(status), after(seconds=1))
        assert event is not None
        assert event.outcome == "over"
        assert event.work == job(status).work

    @pytest.mark.parametrize("status", ["queued", "running", "cancelling", "something new"])
    def test_is_no_other_state(self, watch: Watch, status: str) -> None:
        assert watch.see(job(status), after(seconds=1)) is None

    def test_comes_at_the_deadline_with_the_state_in_words(self, lines: list[str]) -> None:
        watch = make(lines, deadline=after(minutes=10))
        watch.see(job("running"), after(minutes=9))
        assert watch.remind(after(minutes=9, seconds=59)) is None
        event = watch.remind(after(minutes=10))
        assert event is not None
        assert event.is_out_of_time
        assert event.message == (
            "Job job_1 was not over by 2025-03-27 14:32:10 UTC, the end of the time that timeout and execution_timeout "
            "allow; it was running."
        )

    def test_is_the_jobs_own_even_if_the_look_comes_after_the_deadline(self, lines: list[str]) -> None:
        event = make(lines, deadline=after(minutes=10)).see(job("succeeded"), after(minutes=11))
        assert event is not None
        assert event.outcome == "over"

    def test_comes_at_the_deadline_in_an_outage_too(self, lines: list[str]) -> None:
        watch = make(lines, deadline=after(minutes=10))
        event = watch.miss(PlanasonixTransportError("no answer"), after(minutes=10))
        assert event is not None
        assert event.is_out_of_time

    def test_attention_is_asked_for_at_the_deadline(self, lines: list[str]) -> None:
        assert make(lines, deadline=after(seconds=7)).seconds_until_attention(BEGAN) == 7


class TestTrouble:
    @pytest.mark.parametrize(
        "error",
        [
            PlanasonixTransportError("refused", sent=False),
            PlanasonixServerError("503", status=503),
            PlanasonixRateLimitError("429", status=429),
            PlanasonixUnreadableError("HTML"),
        ],
    )
    def test_that_passes_is_waited_out_for_an_hour_and_no_longer(self, watch: Watch, error: PlanasonixError) -> None:
        watch.see(job("running"), after(minutes=5))
        assert watch.miss(error, after(minutes=6)) is None
        assert watch.miss(error, after(minutes=65, seconds=59)) is None
        event = watch.miss(error, after(minutes=66))
        assert event is not None
        assert event.error == "lost_track"
        assert "No news of job job_1 since 2025-03-27 14:28:10 UTC, for more than 1 h 0 min." in str(event.message)
        assert "The job was not cancelled and may still run" in str(event.message)

    def test_starts_counting_anew_after_an_answer(self, watch: Watch) -> None:
        error = PlanasonixTransportError("reset")
        for hour in range(5):
            assert watch.miss(error, after(hours=hour)) is None
            assert watch.miss(error, after(hours=hour) + LONGEST_OUTAGE - timedelta(seconds=1)) is None
            assert watch.see(job("running"), after(hours=hour) + LONGEST_OUTAGE - timedelta(seconds=1)) is None

    @pytest.mark.parametrize(
        "make_error",
        [
            lambda: PlanasonixNotFoundError("404", status=404),
            lambda: PlanasonixAuthenticationError("401", status=401),
        ],
    )
    def test_of_a_refusal_counts_the_second_time_in_a_row(
        self, watch: Watch, make_error: Callable[[], PlanasonixError]
    ) -> None:
        assert watch.miss(make_error(), after(seconds=10)) is None
        assert watch.see(job("running"), after(seconds=20)) is None
        assert watch.miss(make_error(), after(seconds=30)) is None
        event = watch.miss(make_error(), after(seconds=40))
        assert event is not None
        assert event.error == make_error().kind

    def test_that_does_not_pass_ends_the_wait_at_once(self, watch: Watch) -> None:
        event = watch.miss(PlanasonixPermissionError("403", status=403), after(seconds=10))
        assert event is not None
        assert event.error == "permission"

    def test_that_ends_the_wait_says_that_the_job_may_still_run(self, watch: Watch) -> None:
        event = watch.miss(PlanasonixPermissionError("GET /x: answered 403.", status=403), after(seconds=10))
        assert event is not None
        assert event.message == (
            "GET /x: answered 403. The job was not cancelled and may still run: look at job_1 before you clear the "
            "task."
        )

    def test_says_the_same_whoever_hands_it_over(self, watch: Watch) -> None:
        assert watch.take(None, after(seconds=1)) is None
        assert watch.take(PlanasonixTransportError("reset"), after(seconds=2)) is None
        event = watch.take(job("succeeded"), after(seconds=3))
        assert event is not None
        assert event.outcome == "over"
