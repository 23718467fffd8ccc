from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixPermissionError,
    PlanasonixServerError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
)
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.waiting.outages import MAX_OUTAGE
from planasonix_provider.waiting.request_flow import Steps
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Snapshot, WaitTarget
from planasonix_provider.waiting.wait_state import WaitState
from tests.support.api_errors import api_error

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
SUBJECT = JobTarget("job_1")


def after(**span: float) -> datetime:
    return BEGAN + timedelta(**span)


def job(status: str, **fields: Any) -> Snapshot:
    return SUBJECT.seen(Job(id="job_1", status=status, started_at=BEGAN, **fields), BEGAN)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def watch(lines: list[str]) -> WaitState:
    return make(lines)


def make(lines: list[str], subject: WaitTarget = SUBJECT, **arguments: Any) -> WaitState:
    return WaitState(subject, now=BEGAN, info=lines.append, warn=lambda line: lines.append(f"! {line}"), **arguments)


class TestTheLog:
    def test_has_a_line_for_each_change_of_state(self, watch: WaitState, lines: list[str]) -> None:
        metrics = {"rows_extracted": 45_210, "rows_loaded": 44_802, "bytes_read": 67_108_864}
        watch.on_snapshot(job("queued"), after(seconds=0))
        watch.on_snapshot(job("queued"), after(seconds=10))
        watch.on_snapshot(job("running", metrics=metrics), after(seconds=20))
        watch.on_snapshot(job("running", metrics=metrics), after(seconds=21))
        watch.on_snapshot(job("succeeded", metrics=metrics, duration_seconds=85), after(seconds=90))
        assert lines == [
            "Job job_1 is queued, after 0 s.",
            "Job job_1 is running, 44,802 rows loaded, 67.1 MB read, after 20 s.",
            "Job job_1 succeeded, 44,802 rows loaded, 67.1 MB read, in 1 min 25 s.",
        ]

    def test_has_a_line_every_thirty_seconds_even_between_two_polls(self, watch: WaitState, lines: list[str]) -> None:
        watch.on_snapshot(job("running"), after(seconds=0))
        moment = BEGAN
        while moment < after(minutes=2):
            moment += timedelta(seconds=max(watch.seconds_until_attention(moment), 0.1))
            watch.on_tick(moment)
        assert lines == [
            "Job job_1 is running, after 0 s.",
            "Job job_1 is running, after 30 s (seen 30 s ago).",
            "Job job_1 is running, after 1 min 0 s (seen 1 min 0 s ago).",
            "Job job_1 is running, after 1 min 30 s (seen 1 min 30 s ago).",
            "Job job_1 is running, after 2 min 0 s (seen 2 min 0 s ago).",
        ]

    def test_does_not_repeat_the_line_of_the_previous_process(self, lines: list[str]) -> None:
        make(lines, status="queued").on_snapshot(job("queued"), after(seconds=1))
        assert lines == []

    def test_explains_an_unknown_state(self, watch: WaitState, lines: list[str]) -> None:
        assert watch.on_snapshot(job("paused"), after(seconds=1)) is None
        assert lines == ["Job job_1 is paused (a state that this version takes for one that goes on), after 1 s."]

    def test_has_an_outage_once_then_a_reminder_then_its_end(self, watch: WaitState, lines: list[str]) -> None:
        watch.on_snapshot(job("running"), after(seconds=0))
        for second in range(10, 90, 10):
            watch.on_error(PlanasonixServerError("GET /x: answered 500.", status=500), after(seconds=second))
        watch.on_snapshot(job("running"), after(seconds=90))
        assert lines == [
            "Job job_1 is running, after 0 s.",
            "! No news of job job_1, still waiting: GET /x: answered 500.",
            "Still no news of job job_1, for 1 min 0 s now.",
            "Planasonix answers again, after 1 min 20 s.",
        ]

    def test_has_one_line_a_minute_about_an_api_that_fails_repeatedly(self, watch: WaitState, lines: list[str]) -> None:
        watch.on_snapshot(job("running"), after(seconds=0))
        for second in range(5, 65, 10):
            watch.on_error(PlanasonixServerError("GET /x: answered 503.", status=503), after(seconds=second))
            watch.on_snapshot(job("running"), after(seconds=second + 5))
        assert [line for line in lines if "is running" not in line] == [
            "! No news of job job_1, still waiting: GET /x: answered 503.",
            "Planasonix answers again, after 5 s.",
        ]
        watch.on_error(PlanasonixServerError("GET /x: answered 502.", status=502), after(seconds=66))
        assert lines[-1] == "! No news of job job_1, still waiting: GET /x: answered 502."

    def test_shows_no_negative_time_if_clocks_differ(self, watch: WaitState, lines: list[str]) -> None:
        watch.on_snapshot(job("running"), after(hours=-1))
        assert lines == ["Job job_1 is running, after 0 s."]


class TestEvent:
    @pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
    def test_is_returned_for_a_final_state(self, watch: WaitState, status: str) -> None:
        event = watch.on_snapshot(job(status), after(seconds=1))
        assert event.outcome == "over"
        assert event.work == job(status).work

    @pytest.mark.parametrize("status", ["queued", "running", "cancelling", "something new"])
    def test_is_not_returned_for_another_state(self, watch: WaitState, status: str) -> None:
        assert watch.on_snapshot(job(status), after(seconds=1)) is None

    def test_at_the_deadline_names_the_state(self, lines: list[str]) -> None:
        watch = make(lines, deadline=after(minutes=10))
        watch.on_snapshot(job("running"), after(minutes=9))
        assert watch.on_tick(after(minutes=9, seconds=59)) is None
        event = watch.on_tick(after(minutes=10))
        assert event.is_out_of_time
        assert event.message == (
            "Job job_1 was not over by 2025-03-27 14:32:10 UTC, when the task's timeout or execution_timeout was up; "
            "it was running."
        )

    def test_of_finished_work_counts_after_the_deadline(self, lines: list[str]) -> None:
        event = make(lines, deadline=after(minutes=10)).on_snapshot(job("succeeded"), after(minutes=11))
        assert event.outcome == "over"

    def test_at_the_deadline_is_returned_during_an_outage(self, lines: list[str]) -> None:
        watch = make(lines, deadline=after(minutes=10))
        event = watch.on_error(PlanasonixTransportError("no answer"), after(minutes=10))
        assert event.is_out_of_time

    def test_is_due_at_the_deadline(self, lines: list[str]) -> None:
        watch = make(lines, deadline=after(seconds=7))
        assert watch.seconds_until_attention(BEGAN) == 7
        assert watch.seconds_until_attention(after(seconds=8)) == 0


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            PlanasonixTransportError("refused", sent=False),
            api_error(503),
            api_error(429),
            PlanasonixUnreadableError("HTML"),
        ],
    )
    def test_that_are_transient_are_tolerated_for_an_hour(self, watch: WaitState, error: PlanasonixError) -> None:
        watch.on_snapshot(job("running"), after(minutes=5))
        assert watch.on_error(error, after(minutes=6)) is None
        assert watch.on_error(error, after(minutes=65, seconds=59)) is None
        event = watch.on_error(error, after(minutes=66))
        assert event.error == "outage"
        assert "No news of job job_1 since 2025-03-27 14:28:10 UTC, for more than 1 h 0 min." in str(event.message)
        assert "The job was not cancelled and may still run" in str(event.message)

    def test_are_counted_again_after_a_response(self, watch: WaitState) -> None:
        error = PlanasonixTransportError("reset")
        for hour in range(5):
            assert watch.on_error(error, after(hours=hour)) is None
            assert watch.on_error(error, after(hours=hour) + MAX_OUTAGE - timedelta(seconds=1)) is None
            assert watch.on_snapshot(job("running"), after(hours=hour) + MAX_OUTAGE - timedelta(seconds=1)) is None

    def test_that_are_refusals_by_the_api_end_the_wait_after_a_minute(self, watch: WaitState) -> None:
        error = api_error(404)
        assert watch.on_error(error, after(seconds=10)) is None
        assert watch.on_snapshot(job("running"), after(seconds=60)) is None
        assert all(watch.on_error(error, after(seconds=second)) is None for second in range(70, 130))
        event = watch.on_error(error, after(seconds=130))
        assert event.error == error.kind

    def test_that_end_the_wait_warn_that_the_job_may_still_run(self, watch: WaitState) -> None:
        error = PlanasonixPermissionError("GET /x: answered 403.", status=403)
        watch.on_error(error, after(seconds=10))
        event = watch.on_error(error, after(seconds=70))
        assert event.message == (
            "GET /x: answered 403. The job was not cancelled and may still run: look at job_1 before you clear the "
            "task."
        )

    def test_update_accepts_errors_and_snapshots(self, watch: WaitState) -> None:
        assert watch.update(None, after(seconds=1)) is None
        assert watch.update(PlanasonixTransportError("reset"), after(seconds=2)) is None
        event = watch.update(job("succeeded"), after(seconds=3))
        assert event.outcome == "over"


TRANSIENT = [
    PlanasonixTransportError("refused", sent=False),
    api_error(503),
    api_error(429),
    PlanasonixUnreadableError("HTML"),
]
FINAL = [api_error(404), api_error(403), api_error(400)]
KEY_REFUSED = api_error(401)


class TestWorkOfOthers:
    @pytest.mark.parametrize("error", FINAL, ids=str)
    def test_fails_the_wait_at_the_first_refusal(self, lines: list[str], error: PlanasonixError) -> None:
        event = make(lines, is_owned=False).on_error(error, after(seconds=1))
        assert event.error == error.kind

    def test_allows_a_minute_of_refusals_of_the_key(self, lines: list[str]) -> None:
        watch = make(lines, is_owned=False)
        assert watch.on_error(KEY_REFUSED, after(seconds=1)) is None
        assert watch.is_in_doubt
        event = watch.on_error(KEY_REFUSED, after(seconds=61))
        assert event.error == "authentication"

    @pytest.mark.parametrize("how", [{"status": "running"}, {"is_known": True}], ids=str)
    @pytest.mark.parametrize("error", FINAL, ids=str)
    def test_allows_a_minute_of_refusals_if_it_was_seen_before(
        self, lines: list[str], error: PlanasonixError, how: dict[str, Any]
    ) -> None:
        watch = make(lines, is_owned=False, **how)
        assert watch.on_error(error, after(seconds=0)) is None
        assert watch.on_error(error, after(seconds=59)) is None
        assert watch.on_error(error, after(seconds=60)) is not None

    def test_is_known_once_it_was_seen(self, lines: list[str]) -> None:
        watch = make(lines, is_owned=False)
        watch.on_snapshot(job("running"), after(seconds=0))
        assert watch.is_known
        assert watch.on_error(FINAL[0], after(seconds=1)) is None

    def test_gets_no_warning_that_it_may_still_run(self, lines: list[str]) -> None:
        refused = make(lines, is_owned=False).on_error(FINAL[0], after(seconds=1))
        watch = make(lines, is_owned=False, unseen_since=after(hours=-2))
        lost = watch.on_error(TRANSIENT[0], after(seconds=1))
        assert refused.message == "404"
        assert "may still run" not in str(lost.message)


class TestSilentWait:
    @pytest.mark.parametrize("owned", [True, False])
    @pytest.mark.parametrize("error", [*TRANSIENT, KEY_REFUSED], ids=str)
    def test_tolerates_transient_errors_for_ever(self, lines: list[str], error: PlanasonixError, owned: bool) -> None:
        watch = make(lines, is_owned=owned, is_silent=True)
        for hour in range(100):
            assert watch.on_error(error, after(hours=hour)) is None

    @pytest.mark.parametrize("error", FINAL, ids=str)
    def test_ends_at_a_permanent_error(self, lines: list[str], error: PlanasonixError) -> None:
        event = make(lines, is_owned=False, is_silent=True).on_error(error, after(seconds=1))
        assert event.error == error.kind

    def test_ends_at_a_404_after_days_of_errors(self, lines: list[str]) -> None:
        watch = make(lines, is_owned=False, is_silent=True)
        assert watch.on_error(TRANSIENT[0], after(hours=1)) is None
        assert watch.on_error(FINAL[0], after(days=2)) is not None

    def test_ends_at_its_deadline(self, lines: list[str]) -> None:
        watch = make(lines, is_owned=False, is_silent=True, deadline=after(hours=2))
        event = watch.on_error(TRANSIENT[0], after(hours=2))
        assert event.is_out_of_time

    def test_logs_its_errors(self, lines: list[str]) -> None:
        make(lines, is_silent=True, is_owned=False).on_error(KEY_REFUSED, after(seconds=1))
        assert lines == ["! No news of job job_1, still waiting: 401"]


class TestOutageFromAnEarlierProcess:
    def test_continues_and_is_not_logged_again(self, lines: list[str]) -> None:
        watch = make(lines, unseen_since=after(minutes=-50))
        assert watch.on_error(TRANSIENT[0], after(minutes=9)) is None
        assert not any(line.startswith("!") for line in lines)
        event = watch.on_error(TRANSIENT[0], after(minutes=10))
        assert event.error == "outage"
        assert "since 2025-03-27 13:32:10 UTC" in str(event.message)

    def test_ends_with_a_response(self, lines: list[str]) -> None:
        watch = make(lines, status="running", unseen_since=after(minutes=-50))
        assert watch.on_snapshot(job("running"), after(seconds=1)) is None
        assert lines == ["Planasonix answers again, after 50 min 1 s."]
        assert watch.unseen_since is None
        assert watch.on_error(TRANSIENT[0], after(minutes=30)) is None
        assert watch.unseen_since == after(minutes=30)

    def test_is_shown_in_the_next_line(self, lines: list[str]) -> None:
        make(lines, unseen_since=after(minutes=-50)).on_tick(after(seconds=60))
        assert lines == ["Still no news of job job_1, for 51 min 0 s now."]


class CountedPolls(JobTarget):
    """A job that records its polls."""

    def __init__(self) -> None:
        super().__init__("job_1")
        self.detailed: list[bool] = []

    def poll(self, now: datetime, *, detailed: bool) -> Steps[Snapshot]:
        self.detailed.append(detailed)
        return super().poll(now, detailed=detailed)


@pytest.mark.parametrize(
    ("interval", "detailed"),
    [(10, [False, False, True, False, False, True]), (60, [True] * 6), (15, [False, True, False, True, False, True])],
)
def test_polls_request_the_details_for_the_log_twice_a_minute(
    lines: list[str], interval: float, detailed: list[bool]
) -> None:
    subject = CountedPolls()
    watch = make(lines, subject)
    for number in range(1, 7):
        watch.poll(after(seconds=number * interval))
    assert subject.detailed == detailed


def test_the_log_names_the_target_before_the_first_poll(lines: list[str]) -> None:
    make(lines, BackfillTarget("bf_1")).on_tick(after(seconds=30))
    assert lines == ["Waiting for backfill bf_1, for 30 s now."]


BACKFILL = BackfillTarget("bf_1")


def backfill(status: str = "running", *more: str, now: datetime = BEGAN, **fields: Any) -> Snapshot:
    return BACKFILL.seen(Backfill(id="bf_1", status=status, created_at=BEGAN, **fields), now, *more)


class TestABackfill:
    def test_has_a_line_for_each_change_of_state(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL)
        watch.on_snapshot(backfill("queued"), after(seconds=0))
        running = backfill("running", "1 of 4 jobs so far done", progress_percent=25, updated_at=after(minutes=10))
        watch.on_snapshot(running, after(minutes=10))
        done = backfill("completed", progress_percent=100, rows_processed=5_000, updated_at=after(minutes=40))
        event = watch.on_snapshot(done, after(minutes=41))
        assert lines == [
            "Backfill bf_1 is queued, after 0 s.",
            "Backfill bf_1 is running, 25 %, 1 of 4 jobs so far done, about 30 min 0 s left, after 10 min 0 s.",
            "Backfill bf_1 completed, 5,000 rows processed, in 40 min 0 s.",
        ]
        assert event.backfill == done.work

    def test_that_may_still_run_is_named(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL)
        watch.on_error(FINAL[1], after(seconds=1))
        event = watch.on_error(FINAL[1], after(seconds=61))
        assert event.message == (
            "403 The backfill was not cancelled and may still run: look at bf_1 before you clear the task."
        )

    def test_at_the_deadline_is_named_with_its_state(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL, deadline=after(minutes=1))
        watch.on_snapshot(backfill(), after(seconds=1))
        event = watch.on_tick(after(minutes=1))
        assert str(event.message).startswith("Backfill bf_1 was not over by 2025-03-27 14:23:10 UTC")
        assert str(event.message).endswith("; it was running.")


def test_logs_the_age_of_a_late_response(watch: WaitState, lines: list[str]) -> None:
    watch.on_snapshot(job("running"), BEGAN)
    watch.update(job("running"), after(seconds=45), age=40)
    assert lines[-1] == "Job job_1 is running, after 45 s (seen 40 s ago)."


class TestAStandstill:
    def line(self, watch: WaitState, lines: list[str], seen: Snapshot, moment: datetime) -> str:
        lines.clear()
        watch.on_snapshot(seen, moment)
        return lines[-1]

    def test_is_logged_after_ten_minutes(self, lines: list[str]) -> None:
        watch, rests = make(lines), job("running", metrics={"rows_loaded": 1})
        watch.on_snapshot(rests, BEGAN)
        early = self.line(watch, lines, rests, after(minutes=9, seconds=59))
        late = self.line(watch, lines, rests, after(minutes=11))
        assert early == "Job job_1 is running, 1 row loaded, after 9 min 59 s."
        assert late == "Job job_1 is running, 1 row loaded, after 11 min 0 s; nothing has moved for 11 min 0 s."

    def test_ends_with_a_change(self, lines: list[str]) -> None:
        watch = make(lines)
        watch.on_snapshot(job("running", metrics={"rows_loaded": 0}), BEGAN)
        moved = self.line(watch, lines, job("running", metrics={"rows_loaded": 1}), after(minutes=11))
        later = self.line(watch, lines, job("running", metrics={"rows_loaded": 1}), after(minutes=21))
        assert "nothing has moved" not in moved
        assert later.endswith("; nothing has moved for 10 min 0 s.")

    def test_is_not_caused_by_polls_without_figures(self, lines: list[str]) -> None:
        watch = make(lines)
        watch.on_snapshot(job("running", metrics={"rows_loaded": 1}), BEGAN)
        for minutes in range(1, 30):
            watch.on_snapshot(job("running"), after(minutes=minutes))
        assert "nothing has moved" not in " ".join(lines)
        line = self.line(watch, lines, job("running", metrics={"rows_loaded": 1}), after(minutes=30))
        assert line.endswith("; nothing has moved for 30 min 0 s.")

    def test_that_began_before_the_wait_is_logged_at_once(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL)
        line = self.line(watch, lines, backfill(updated_at=after(minutes=-30)), after(minutes=1))
        assert line.endswith("; nothing has moved for 31 min 0 s.")

    def test_is_counted_from_the_first_poll_if_clocks_differ(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL)
        watch.on_snapshot(backfill(updated_at=after(hours=5)), BEGAN)
        line = self.line(watch, lines, backfill(updated_at=after(hours=5)), after(minutes=10))
        assert line.endswith("; nothing has moved for 10 min 0 s.")

    def test_is_not_logged_for_finished_work(self, lines: list[str]) -> None:
        watch = make(lines, BACKFILL)
        line = self.line(watch, lines, backfill("failed", updated_at=after(hours=-5)), BEGAN)
        assert "nothing has moved" not in line

    def test_is_not_logged_for_a_target_without_moves(self, lines: list[str]) -> None:
        watch = make(lines, SyncTarget("conn_1", BEGAN))
        watch.on_snapshot(Snapshot("awaited", False, "No sync yet"), BEGAN)
        assert self.line(watch, lines, Snapshot("awaited", False, "No sync yet"), after(hours=5)) == (
            "No sync yet, after 5 h 0 min."
        )


class TestASync:
    SUBJECT = SyncTarget("conn_1", BEGAN)

    def awaited(self, *progress: str) -> Snapshot:
        return Snapshot("awaited", False, f"{self.SUBJECT.goal} yet", progress=progress)

    def test_is_described_in_the_log(self, lines: list[str]) -> None:
        watch = make(lines, self.SUBJECT)
        watch.on_snapshot(self.awaited(), after(seconds=1))
        watch.on_snapshot(self.awaited("the newest, job_1, is running"), after(seconds=31))
        work = Job(id="job_1", status="succeeded")
        event = watch.on_snapshot(Snapshot("succeeded", True, "Job job_1 succeeded", work, took=5), after(seconds=40))
        assert lines == [
            "No sync of connection conn_1 that was created since 2025-03-27 14:22:10 UTC succeeded yet, after 1 s.",
            "No sync of connection conn_1 that was created since 2025-03-27 14:22:10 UTC succeeded yet, "
            "the newest, job_1, is running, after 31 s.",
            "Job job_1 succeeded, in 5 s.",
        ]
        assert (event.kind, event.id, event.job) == ("sync", "conn_1", work)

    def test_is_named_in_an_outage(self, lines: list[str]) -> None:
        make(lines, self.SUBJECT, is_owned=False).on_error(TRANSIENT[1], after(seconds=1))
        assert lines == ["! No news of a sync of connection conn_1, still waiting: 503"]

    def test_that_does_not_come_in_time_has_no_state(self, lines: list[str]) -> None:
        watch = make(lines, self.SUBJECT, deadline=after(minutes=1), limit="execution_timeout", is_owned=False)
        watch.on_snapshot(self.awaited(), after(seconds=1))
        event = watch.on_tick(after(minutes=1))
        assert event.message == (
            "No sync of connection conn_1 that was created since 2025-03-27 14:22:10 UTC succeeded by 2025-03-27 "
            "14:23:10 UTC, when the task's execution_timeout was up."
        )
