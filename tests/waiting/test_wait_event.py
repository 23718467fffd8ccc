from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError, PlanasonixTimeoutError
from planasonix_provider.api.models import Backfill, Job, JobEnvelope
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget
from planasonix_provider.waiting.wait_event import InvalidWaitEventError, WaitEvent

SUBJECT = JobTarget("job_1")
BY_HAND = "`python -m planasonix_provider cancel job_1 --conn-id eu`"
JOB = Job(id="job_1", status="succeeded", finished_at=datetime(2025, 3, 27, tzinfo=UTC), something_new={"a": 1})


def test_survives_json() -> None:
    event = WaitEvent.over(SUBJECT, JOB)
    payload = json.loads(json.dumps(event.to_payload()))
    assert WaitEvent.from_payload(payload, "job") == event.model_copy(
        update={"job": Job(id="job_1", status="succeeded", finished_at=JOB.finished_at)}
    )
    assert WaitEvent.from_payload(payload, "job").to_payload() == payload


@pytest.mark.heavy
def test_has_only_the_fields_that_a_task_uses() -> None:
    """Airflow reads a dict with such a key as an object to create, and PostgreSQL rejects NUL characters."""
    job = JobEnvelope.parse(
        json.dumps(
            {
                "data": {
                    "id": "job_1",
                    "status": "failed",
                    "error": {"code": "c", "message": "a\0b\ud800" + "x" * 7_000_000, "__classname__": "builtins.dict"},
                    "metrics": {"rows_loaded": 7, "bytes_read": 2**70, "__type": "set", "more": "\0"},
                    "metadata": {"__var": "\0", "mine": "\0"},
                    "__classname__": "datetime.datetime",
                    "__data__": {"__version__": 2},
                    "duration_seconds": float("inf"),
                }
            }
        ).encode()
    ).content
    assert WaitEvent.over(SUBJECT, job).to_payload() == {
        "version": 1,
        "kind": "job",
        "id": "job_1",
        "outcome": "over",
        "job": {
            "id": "job_1",
            "status": "failed",
            "error": {"code": "c", "message": f"a\ufffdb\ufffd{'x' * 1995}…"},
            "metrics": {"rows_extracted": None, "rows_loaded": 7, "bytes_read": None},
        },
    }


def test_of_work_from_this_process_can_be_stored() -> None:
    event = WaitEvent.over(SUBJECT, Job(id="job_1", status="failed", error={"message": "a\0b\ud800"}))
    assert event.to_payload()["job"]["error"]["message"] == "a\ufffdb\ufffd"


def test_raises_the_same_error_in_the_task() -> None:
    event = WaitEvent.failed(SUBJECT, PlanasonixNotFoundError("GET /x: answered 404.", status=404))
    with pytest.raises(PlanasonixNotFoundError, match="answered 404"):
        WaitEvent.from_payload(event.to_payload(), "job").work_or_error()


def test_of_an_error_unknown_to_this_version_fails_with_its_message() -> None:
    event = WaitEvent(kind="job", id="job_1", outcome="error", error="from the future", message="Something new.")
    with pytest.raises(PlanasonixError, match="Something new"):
        event.work_or_error()


def finished_payload(**fields: Any) -> dict[str, Any]:
    """Return the payload of a job that has succeeded, with other fields."""
    payload = {"version": 1, "kind": "job", "id": "job_1", "outcome": "over"}
    payload |= {"job": {"id": "job_1", "status": "succeeded"}, **fields}
    return {name: value for name, value in payload.items() if value is not None}


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        {},
        {"status": "success"},
        finished_payload(version=2),
        finished_payload(id="", job={"id": "", "status": "succeeded"}),
        finished_payload(job=None),
        finished_payload(job=None, backfill={"id": "job_1", "status": "failed"}),
        finished_payload(kind="backfill", id="bf_1", job=None, backfill={"id": "bf_1", "status": "failed"}),
        finished_payload(job={"id": "job_2", "status": "succeeded"}),
        finished_payload(outcome="done"),
        {"version": 1, "kind": "something new", "id": "job_1", "outcome": "error", "error": "a", "message": "b"},
        {"version": 1, "kind": "job", "id": "job_1", "outcome": "error", "error": "transport"},
    ],
)
def test_of_any_other_shape_is_rejected_with_a_reason(payload: Any) -> None:
    assert WaitEvent.from_payload(finished_payload(), "job").outcome == "over"
    with pytest.raises(InvalidWaitEventError, match="clear the task"):
        WaitEvent.from_payload(payload, "job")


def test_of_a_later_release_is_read_without_its_new_fields() -> None:
    assert WaitEvent.from_payload(finished_payload(more=1), "job") == WaitEvent.from_payload(finished_payload(), "job")


def test_after_a_cancel_has_its_result_in_the_message() -> None:
    out_of_time = WaitEvent.failed(SUBJECT, PlanasonixTimeoutError("Not over."))
    assert out_of_time.is_out_of_time
    cancelling = out_of_time.with_cancel_result(Job(id="job_1", status="cancelling"), BY_HAND)
    assert cancelling.message == "Not over. It was asked to cancel."
    unreachable = out_of_time.with_cancel_result(PlanasonixError("No answer."), BY_HAND)
    assert unreachable.message == (
        f"Not over. It could not be cancelled and may still run: No answer. To end it: {BY_HAND}"
    )
    assert unreachable.is_out_of_time
    assert out_of_time.with_cancel_result(JOB, BY_HAND) == WaitEvent.over(SUBJECT, JOB)


def test_without_a_cancel_has_the_message_that_the_work_runs_on() -> None:
    out_of_time = WaitEvent.failed(SUBJECT, PlanasonixTimeoutError("Not over."))
    assert out_of_time.without_cancel().message == "Not over. It was not cancelled, and runs on."


def test_after_the_cancel_of_a_backfill_that_runs_on_names_its_state() -> None:
    out_of_time = WaitEvent.failed(BackfillTarget("bf_1"), PlanasonixTimeoutError("Not over."))
    event = out_of_time.with_cancel_result(Backfill(id="bf_1", status="queued"), BY_HAND)
    with pytest.raises(PlanasonixTimeoutError, match=r"asked to cancel; it is queued, and may make more. To end it: `"):
        event.work_or_error()


def test_of_a_backfill_leaves_out_its_jobs() -> None:
    backfill = Backfill(id="bf_1", status="completed", job_ids=[f"job_{number}" for number in range(5_000)])
    payload = WaitEvent.over(BackfillTarget("bf_1"), backfill).to_payload()
    assert len(json.dumps(payload)) < 500
    assert WaitEvent.from_payload(payload, "backfill").work == backfill.model_copy(update={"job_ids": None})


def test_of_a_sync_has_the_id_of_the_connection_and_the_job() -> None:
    event = WaitEvent.over(SyncTarget("conn_1", datetime(2025, 3, 27, tzinfo=UTC)), JOB)
    assert event.id == "conn_1"
    assert WaitEvent.from_payload(event.to_payload(), "sync").work == Job(**JOB.known_fields())
