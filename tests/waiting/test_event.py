from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixTimeoutError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.waiting.event import InvalidEventError, WaitEvent

JOB = Job(id="job_1", status="succeeded", finished_at=datetime(2025, 3, 27, tzinfo=UTC), something_new={"a": 1})


def test_survives_the_way_to_the_task() -> None:
    event = WaitEvent.over(JOB)
    assert WaitEvent.from_payload(json.loads(json.dumps(event.to_payload()))) == event


def test_makes_the_same_error_again() -> None:
    event = WaitEvent.failed("job_1", PlanasonixNotFoundError("GET /x: answered 404.", status=404))
    with pytest.raises(PlanasonixNotFoundError, match="answered 404"):
        WaitEvent.from_payload(event.to_payload()).job_or_error()


def test_of_an_error_that_this_version_lacks_still_fails_with_its_message() -> None:
    event = WaitEvent(job_id="job_1", outcome="error", error="from the future", message="Something new.")
    with pytest.raises(PlanasonixError, match="Something new"):
        event.job_or_error()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        {},
        {"status": "success"},
        {"version": 2, "job_id": "job_1", "outcome": "over", "job": {"id": "job_1", "status": "succeeded"}},
        {"version": 1, "job_id": "", "outcome": "over", "job": {"id": "", "status": "succeeded"}},
        {"version": 1, "job_id": "job_1", "outcome": "over"},
        {"version": 1, "job_id": "job_1", "outcome": "over", "job": {"id": "job_1", "status": "running"}},
        {"version": 1, "job_id": "job_1", "outcome": "over", "job": {"id": "job_2", "status": "succeeded"}},
        {"version": 1, "job_id": "job_1", "outcome": "error", "error": "transport"},
        {"version": 1, "job_id": "job_1", "outcome": "done", "job": {"id": "job_1", "status": "succeeded"}},
        {"version": 1, "job_id": "job_1", "outcome": "over", "job": {"id": "job_1", "status": "failed"}, "more": 1},
    ],
)
def test_of_any_other_shape_is_refused_with_a_reason(payload: Any) -> None:
    with pytest.raises(InvalidEventError, match="clear the task"):
        WaitEvent.from_payload(payload)


def test_after_a_cancel_says_how_it_went() -> None:
    out_of_time = WaitEvent.failed("job_1", PlanasonixTimeoutError("Not over."))
    assert out_of_time.is_out_of_time
    cancelling = out_of_time.after_cancel(Job(id="job_1", status="cancelling"))
    assert cancelling.message == "Not over. It was asked to cancel."
    unreachable = out_of_time.after_cancel(PlanasonixError("No answer."))
    assert unreachable.message == (
        "Not over. It could not be cancelled and may still run: end it in Planasonix before you clear the task. "
        "No answer."
    )
    with pytest.raises(PlanasonixLostTrackError):
        unreachable.job_or_error()
    assert out_of_time.after_no_cancel().message == "Not over. It was not cancelled, and runs on."
    assert out_of_time.after_cancel(JOB) == WaitEvent.over(JOB)
