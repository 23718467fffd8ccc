from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixServerError, PlanasonixUnreadableError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.waiting.request_flow import run_flow
from planasonix_provider.waiting.sync_target import MAX_TOO_EARLY, SyncTarget
from tests.support.api_errors import api_error
from tests.support.memory_api import NOW, MemoryApi, fail_always, fail_once, poll_once

DOWN = api_error(503)


def sync(job_id: str, status: str, created: float, finished: float | None = None, **fields: Any) -> Job:
    """Return a job of the awaited connection; times are in minutes after ``NOW``."""
    return Job.model_validate(
        {
            "id": job_id,
            "status": status,
            "type": "connection_sync",
            "connection_id": "conn_1",
            "created_at": NOW + timedelta(minutes=created),
            "finished_at": None if finished is None else NOW + timedelta(minutes=finished),
            **fields,
        }
    )


def subject(**arguments: Any) -> SyncTarget:
    return SyncTarget("conn_1", NOW, **arguments)


class TestASync:
    def test_that_succeeds_is_requested_with_all_fields(self) -> None:
        there = MemoryApi([sync("job_1", "succeeded", 1, 2, duration_seconds=60)], hidden_fields=("duration_seconds",))
        seen = poll_once(subject(), there)
        assert (seen.work, seen.took) == (there.jobs[0], 60)
        assert (seen.status, seen.is_over, seen.description) == ("succeeded", True, "Job job_1 succeeded")
        assert there.requests == ["list succeeded", "get job_1"]

    @pytest.mark.parametrize("status", ["succeeded", "failed"])
    def test_with_an_unreadable_row_in_the_list_is_not_missed(self, status: str) -> None:
        there = MemoryApi([sync("job_1", status, 1, 2)], unreadable_ids=("job_1",))
        assert poll_once(subject(), there).status == status
        there = MemoryApi(
            [sync("job_1", status, 1, 2, type="backfill")], unreadable_ids=("job_1",), ignored_filters=("type",)
        )
        assert not poll_once(subject(), there).is_over

    @pytest.mark.parametrize("by", ["created", "finished"])
    def test_counts_if_it_begins_exactly_at_the_start_time(self, by: str) -> None:
        assert poll_once(subject(by=by), MemoryApi([sync("job_1", "succeeded", 0, 0)])).is_over

    @pytest.mark.parametrize(("finished", "counts"), [(0, True), (-0.0001, False)])
    def test_that_was_created_before_counts_if_it_finished_after_the_start_time(
        self, finished: float, counts: bool
    ) -> None:
        there = MemoryApi([sync("job_1", "succeeded", -10, finished)])
        assert poll_once(subject(by="finished"), there).is_over is counts
        assert not poll_once(subject(by="created"), there).is_over

    def test_that_was_created_up_to_a_day_before_is_found(self) -> None:
        assert poll_once(subject(by="finished"), MemoryApi([sync("job_1", "succeeded", -1_440, 1)])).is_over

    @pytest.mark.parametrize(("status", "says"), [("failed", "failed"), ("cancelled", "was cancelled")])
    @pytest.mark.parametrize("created", [1, -1])
    def test_without_success_ends_the_wait_only_with_on_failure_fail(
        self, status: str, says: str, created: float
    ) -> None:
        there = MemoryApi([sync("job_1", status, created, 2)])
        seen = poll_once(subject(by="finished", on_failure="fail"), there)
        assert (seen.status, seen.is_over, seen.description) == (status, True, f"Job job_1 {says}")
        assert not poll_once(subject(by="finished", on_failure="wait"), there).is_over

    def test_that_failed_before_the_start_time_is_ignored(self) -> None:
        there = MemoryApi([sync("job_1", "failed", -10, -5)])
        assert not poll_once(subject(by="created"), there).is_over
        assert not poll_once(subject(by="finished"), there).is_over

    def test_that_succeeded_wins_over_one_that_failed(self) -> None:
        there = MemoryApi([sync("job_2", "failed", 2, 3), sync("job_1", "succeeded", 0, 1)])
        assert poll_once(subject(), there).status == "succeeded"

    @pytest.mark.parametrize("status", ["queued", "running", "cancelling"])
    def test_that_still_runs_is_waited_for(self, status: str) -> None:
        seen = poll_once(subject(), MemoryApi([sync("job_1", status, 1)]))
        assert (seen.status, seen.is_over, seen.work) == ("awaited", False, None)
        assert (
            seen.description
            == "No sync of connection conn_1 that was created since 2025-03-27 14:22:10 UTC succeeded yet"
        )

    def test_sends_one_request_or_three_if_failures_count(self) -> None:
        there = MemoryApi()
        poll_once(subject(on_failure="wait"), there)
        assert there.requests == ["list succeeded"]
        there.requests.clear()
        poll_once(subject(), there)
        assert there.requests == ["list succeeded", "list failed", "list cancelled"]

    @pytest.mark.parametrize("by", ["created", "finished"])
    @pytest.mark.parametrize(
        "other",
        [
            sync("job_1", "succeeded", 1, 2, connection_id="conn_2"),
            sync("job_1", "succeeded", 1, 2, type="backfill"),
            sync("job_1", "succeeded", -10, 2, connection_id="conn_2"),
            sync("job_1", "succeeded", -10, 2, type="backfill"),
            sync("job_1", "succeeded", -10, -5),
            sync("job_1", "running", 1),
        ],
    )
    def test_is_no_other_job_of_a_list_that_ignores_filters(self, other: Job, by: str) -> None:
        ignores = ("connection_id", "type", "status", "since", "until")
        assert not poll_once(subject(by=by), MemoryApi([other], ignored_filters=ignores), detailed=False).is_over

    def test_is_found_among_others_in_a_list_that_ignores_filters(self) -> None:
        others = [
            sync("job_4", "succeeded", 4, 5, connection_id="conn_2"),
            sync("job_3", "succeeded", 3, 4, type="backfill"),
            sync("job_2", "running", 2),
        ]
        there = MemoryApi(
            [*others, sync("job_1", "succeeded", 1, 2)],
            ignored_filters=("connection_id", "type", "status", "since", "until"),
        )
        assert poll_once(subject(), there).work == there.jobs[-1]

    @pytest.mark.parametrize("created", [1, -1])
    def test_that_failed_is_no_success_if_the_list_ignores_the_state(self, created: float) -> None:
        there = MemoryApi([sync("job_1", "failed", created, 2)], ignored_filters=("status",))
        assert not poll_once(subject(by="finished", on_failure="wait"), there).is_over

    def test_begins_when_it_was_started_or_else_created(self) -> None:
        assert poll_once(subject(), MemoryApi([sync("job_1", "succeeded", 1, 2)])).began == NOW + timedelta(minutes=1)
        started = NOW + timedelta(minutes=1.5)
        assert poll_once(subject(), MemoryApi([sync("job_1", "succeeded", 1, 2, started_at=started)])).began == started

    def test_is_found_in_a_list_that_leaves_out_fields(self) -> None:
        there = MemoryApi(
            [sync("job_1", "succeeded", 1, 2)], hidden_fields=("type", "connection_id", "created_at", "finished_at")
        )
        assert poll_once(subject(), there).work == there.jobs[0]

    def test_without_an_end_in_the_list_is_requested(self) -> None:
        there = MemoryApi(
            [sync("late", "succeeded", -5, 1), sync("early", "succeeded", -10, -5)][::-1],
            hidden_fields=("finished_at",),
        )
        seen = poll_once(subject(by="finished"), there)
        assert seen.work == there.get_job("late")
        assert "get early" in there.requests

    def test_that_ended_too_early_is_requested_once(self) -> None:
        there = MemoryApi(
            [sync("early", "succeeded", -10, -5), sync("broken", "failed", -20, -15)], hidden_fields=("finished_at",)
        )
        waiting = subject(by="finished")
        for _ in range(3):
            assert not poll_once(waiting, there).is_over
        assert there.requests.count("get early") == 1
        assert there.requests.count("get broken") == 1

    def test_that_runs_longer_than_another_is_found_when_it_ends(self) -> None:
        there = MemoryApi(
            [sync("job_1", "running", -10), sync("early", "succeeded", -20, -5)], hidden_fields=("finished_at",)
        )
        waiting = subject(by="finished")
        assert not poll_once(waiting, there).is_over
        there.jobs[0] = sync("job_1", "succeeded", -10, 1)
        assert poll_once(waiting, there).work == there.jobs[0]

    @pytest.mark.parametrize("created", [-0.5, -300], ids=["the newest", "the oldest"])
    def test_that_runs_longer_than_many_others_is_found_when_it_ends(self, created: float) -> None:
        early = [sync(f"early_{number}", "succeeded", -number, -number) for number in range(1, MAX_TOO_EARLY + 3)]
        there = MemoryApi([*early, sync("long", "running", created)], hidden_fields=("finished_at",))
        waiting = subject(by="finished")
        for _ in range(2):
            assert not poll_once(waiting, there).is_over
        there.jobs[-1] = sync("long", "succeeded", created, 1)
        assert poll_once(waiting, there).work == there.jobs[-1]
        assert f"get early_{MAX_TOO_EARLY + 1}" not in there.requests

    def test_is_found_on_a_further_page(self) -> None:
        early = [sync(f"early_{number}", "succeeded", -number, -number) for number in range(1, 250)]
        there = MemoryApi([*early, sync("long", "succeeded", -300, 1)])
        assert poll_once(subject(by="finished"), there).work == there.jobs[-1]
        assert there.requests == ["list succeeded"] + ["list None"] * 3

    def test_is_not_searched_for_ever_in_a_list_whose_cursor_never_ends(self) -> None:
        def send(_: Any) -> Any:
            return Page[Job].model_validate({"data": [], "meta": {"page": {"cursor": "again"}}})

        with pytest.raises(PlanasonixUnreadableError, match="would never end"):
            run_flow(subject(by="finished").poll(NOW, detailed=False), send)

    @pytest.mark.parametrize("what", ["list succeeded", "list failed", "list cancelled", "get job_1"])
    def test_is_not_decided_by_half_a_poll(self, what: str) -> None:
        there = MemoryApi([sync("job_1", "cancelled", 1, 2)], get_error=fail_once(what, DOWN))
        waiting = subject()
        with pytest.raises(PlanasonixError) as caught:
            poll_once(waiting, there)
        assert caught.value is DOWN
        assert poll_once(waiting, there).is_over

    def test_is_searched_again_after_a_poll_that_failed_halfway(self) -> None:
        there = MemoryApi(
            [sync("early", "succeeded", -5, -4), sync("late", "succeeded", -10, 1)],
            hidden_fields=("finished_at",),
            get_error=fail_once("get late", DOWN),
        )
        waiting = subject(by="finished")
        with pytest.raises(PlanasonixServerError):
            poll_once(waiting, there)
        assert poll_once(waiting, there).work == there.jobs[1]
        assert there.requests.count("get early") == 1

    def test_progress_names_the_newest_sync(self) -> None:
        there = MemoryApi([sync("job_2", "running", 2), sync("job_1", "queued", 1)])
        waiting = subject()
        assert poll_once(waiting, there).progress == ()
        assert poll_once(waiting, there, detailed=True).progress == ("the newest, job_2, is running",)
        there.requests.clear()
        assert poll_once(waiting, there).progress == ("the newest, job_2, is running",)
        assert "list None" not in there.requests

    def test_progress_is_empty_without_a_new_sync(self) -> None:
        assert poll_once(subject(), MemoryApi([sync("job_1", "running", -1)]), detailed=True).progress == ()
        of_another = MemoryApi([sync("job_1", "running", 1, type="backfill")], ignored_filters=("type",))
        assert poll_once(subject(), of_another, detailed=True).progress == ()

    def test_progress_is_empty_if_its_request_fails(self) -> None:
        there = MemoryApi([sync("job_1", "running", 1)], get_error=fail_always("list None", DOWN))
        seen = poll_once(subject(), there, detailed=True)
        assert (seen.status, seen.progress) == ("awaited", ())

    def test_first_request_is_the_same_in_all_waits_for_a_connection(self) -> None:
        assert subject().request.key == subject(by="finished", on_failure="wait").request.key
        assert subject().request.key != SyncTarget("conn_1", NOW + timedelta(seconds=1)).request.key
