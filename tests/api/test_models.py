from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from planasonix_provider.api.models import (
    Backfill,
    BackfillBody,
    BackfillPage,
    BackfillReply,
    BackfillStartReply,
    ErrorBody,
    ErrorReply,
    Job,
    JobPage,
    JobReply,
    JobResultsReply,
    SyncBody,
    SyncReply,
    as_utc,
)

EXAMPLES: dict[str, tuple[type[BaseModel], str]] = {
    "the body of a trigger": (
        SyncBody,
        """{"pipeline_id": "pl_01hqxyz", "priority": "normal", "metadata": {
            "triggered_by": "airflow_dag_nightly_sales", "dag_run_id": "scheduled__2025-03-27T02:00:00+00:00"}}""",
    ),
    "a trigger": (
        SyncReply,
        """{"data": {"job": {"id": "job_01jq8syncabc", "type": "connection_sync", "status": "queued",
            "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1", "pipeline_id": "pl_01hqxyz",
            "created_at": "2025-03-27T14:22:10Z", "queued_at": "2025-03-27T14:22:10Z"}}}""",
    ),
    "a list, its last page": (
        JobPage,
        """{"data": [{"id": "job_01jq8syncabc", "type": "connection_sync", "status": "running",
            "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1", "pipeline_id": "pl_01hqxyz",
            "created_at": "2025-03-27T14:22:10Z", "started_at": "2025-03-27T14:22:12Z"}],
            "meta": {"page": {"limit": 50, "cursor": null}}}""",
    ),
    "a list, with more to come": (
        JobPage,
        """{"data": [], "meta": {"page": {"limit": 50, "cursor": "eyJiZiI6ImJmXzAxanE4YmZpbGwwMSJ9"}}}""",
    ),
    "a job": (
        JobReply,
        """{"data": {"id": "job_01jq8syncabc", "type": "connection_sync", "status": "running",
            "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1", "pipeline_id": "pl_01hqxyz",
            "created_at": "2025-03-27T14:22:10Z", "queued_at": "2025-03-27T14:22:10Z",
            "started_at": "2025-03-27T14:22:12Z", "finished_at": null, "duration_seconds": null,
            "metrics": {"rows_extracted": 45210, "rows_loaded": 44802, "bytes_read": 67108864}, "error": null}}""",
    ),
    "results": (
        JobResultsReply,
        """{"data": {"job_id": "job_01jq8syncabc", "status": "succeeded", "tables": [{"name": "public.orders",
            "rows_loaded": 44802,
            "checksum": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}],
            "warnings": [{"code": "column_type_widened",
            "message": "Column discount_pct coerced from NUMERIC(5,2) to NUMERIC(8,4)"}]}}""",
    ),
    "a cancel": (
        JobReply,
        """{"data": {"id": "job_01jq8syncabc", "status": "cancelling",
            "cancel_requested_at": "2025-03-27T14:30:00Z"}}""",
    ),
    "the body of a backfill": (
        BackfillBody,
        """{"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z",
            "tables": ["public.orders", "public.order_items"], "priority": "low",
            "metadata": {"reason": "post_incident_replay"}}""",
    ),
    "the start of a backfill": (
        BackfillStartReply,
        """{"data": {"backfill": {"id": "bf_01jq8bfill01", "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            "status": "running", "start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z",
            "tables": ["public.orders", "public.order_items"], "progress_percent": 0,
            "created_at": "2025-03-27T14:25:00Z"}}}""",
    ),
    "a list of backfills": (
        BackfillPage,
        """{"data": [{"id": "bf_01jq8bfill01", "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            "status": "running", "start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z",
            "progress_percent": 37, "created_at": "2025-03-27T14:25:00Z", "updated_at": "2025-03-27T14:28:44Z"}],
            "meta": {"page": {"limit": 50, "cursor": "eyJiZiI6ImJmXzAxanE4YmZpbGwwMSJ9"}}}""",
    ),
    "a backfill": (
        BackfillReply,
        """{"data": {"id": "bf_01jq8bfill01", "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1",
            "status": "running", "start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z",
            "tables": ["public.orders", "public.order_items"], "progress_percent": 37, "rows_processed": 1849200,
            "error": null, "job_ids": ["job_01jq8chunk01", "job_01jq8chunk02"],
            "created_at": "2025-03-27T14:25:00Z", "updated_at": "2025-03-27T14:28:44Z"}}""",
    ),
    "an error": (
        ErrorReply,
        """{"error": {"code": "invalid_request", "message": "The request is invalid.",
            "details": [{"field": "priority", "issue": "is unknown"}]}}""",
    ),
    "an error without details": (
        ErrorReply,
        """{"error": {"code": "not_found", "message": "There is no such job."}}""",
    ),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("model", "text"), EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_of_the_reference_is_written_back_without_loss(model: type[BaseModel], text: str) -> None:
    assert model.model_validate_json(text).model_dump(mode="json", exclude_unset=True) == json.loads(text)


def test_an_example_is_read_into_names_and_types() -> None:
    job = JobReply.model_validate_json(EXAMPLES["a job"][1]).value
    assert (job.id, job.status, job.type) == ("job_01jq8syncabc", "running", "connection_sync")
    assert (job.connection_id, job.pipeline_id) == ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", "pl_01hqxyz")
    assert job.started_at == datetime(2025, 3, 27, 14, 22, 12, tzinfo=UTC)
    assert (job.finished_at, job.duration_seconds, job.error) == (None, None, None)
    assert job.metrics is not None
    assert (job.metrics.rows_extracted, job.metrics.rows_loaded, job.metrics.bytes_read) == (45210, 44802, 67108864)


def test_an_envelope_gives_what_was_asked_for() -> None:
    values = {name: model.model_validate_json(text) for name, (model, text) in EXAMPLES.items()}
    assert values["a trigger"].value.id == "job_01jq8syncabc"
    assert values["a cancel"].value.cancel_requested_at == datetime(2025, 3, 27, 14, 30, tzinfo=UTC)
    assert values["results"].value.tables[0].rows_loaded == 44802
    assert values["results"].value.warnings[0].code == "column_type_widened"
    assert values["a list, its last page"].value.cursor is None
    assert values["a list, with more to come"].value.cursor == "eyJiZiI6ImJmXzAxanE4YmZpbGwwMSJ9"
    assert values["the start of a backfill"].value.status == "running"
    assert values["a backfill"].value.job_ids == ["job_01jq8chunk01", "job_01jq8chunk02"]
    assert values["a list of backfills"].value.data[0].progress_percent == 37
    assert values["a list of backfills"].value.cursor == "eyJiZiI6ImJmXzAxanE4YmZpbGwwMSJ9"


@given(st.dictionaries(st.text(min_size=1).map("x_".__add__), JSON, max_size=4))
def test_fields_that_the_reference_lacks_are_kept(unknown: dict[str, Any]) -> None:
    job = {"id": "job_1", "status": "running", "metrics": {"rows_loaded": 1, **unknown}, **unknown}
    assert Job.model_validate_json(json.dumps(job)).model_dump(mode="json", exclude_unset=True) == job


@pytest.mark.parametrize("envelope", [{"data": [], "next": 1}, {"data": [], "meta": {"total": 1, "page": {"of": 2}}}])
def test_unknown_fields_of_an_envelope_are_kept(envelope: dict[str, Any]) -> None:
    assert JobPage.model_validate(envelope).model_dump(mode="json", exclude_unset=True) == envelope


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("queued", False),
        ("running", False),
        ("cancelling", False),
        ("succeeded", True),
        ("failed", True),
        ("cancelled", True),
        ("paused", False),
        ("SUCCEEDED", False),
        ("", False),
    ],
)
def test_only_the_three_ends_of_the_reference_are_ends(status: str, over: bool) -> None:
    assert Job(id="job_1", status=status, type="of_a_new_type").is_over is over


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("queued", False),
        ("running", False),
        ("completed", True),
        ("failed", True),
        ("cancelled", True),
        ("cancelling", False),
        ("succeeded", False),
        ("paused", False),
    ],
)
def test_a_backfill_ends_in_the_states_that_the_reference_names(status: str, over: bool) -> None:
    assert Backfill(id="bf_1", status=status).is_over is over


@pytest.mark.parametrize(
    "text", ["2025-03-27T14:22:10Z", "2025-03-27T14:22:10", "2025-03-27T16:22:10+02:00", "2025-03-27T14:22:10.000Z"]
)
def test_a_time_is_aware_and_in_utc(text: str) -> None:
    created = Job.model_validate({"id": "job_1", "status": "queued", "created_at": text}).created_at
    assert created == datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
    assert created.utcoffset() == timedelta(0)


def test_a_time_without_an_offset_is_taken_as_utc() -> None:
    assert as_utc(datetime(2025, 1, 1)) == datetime(2025, 1, 1, tzinfo=UTC)  # noqa: DTZ001
    east = timezone(timedelta(hours=9))
    assert as_utc(datetime(2025, 1, 1, 9, tzinfo=east)).isoformat() == "2025-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("The source did not answer.", None, "The source did not answer."),
        ({"code": "source_unavailable", "message": "No."}, "source_unavailable", "No."),
        ({"hint": "Ask."}, None, None),
    ],
)
def test_why_work_failed_may_come_as_bare_text(error: Any, code: str | None, message: str | None) -> None:
    for model in (Job, Backfill):
        work = model.model_validate({"id": "work_1", "status": "failed", "error": error})
        assert work.error is not None
        assert (work.error.code, work.error.message) == (code, message)


@pytest.mark.parametrize("page", [{"data": []}, {"data": [], "meta": {"page": {"cursor": ""}}}])
def test_a_page_that_names_no_cursor_is_the_last(page: dict[str, Any]) -> None:
    assert JobPage.model_validate(page).cursor is None


@pytest.mark.parametrize("job", [{"status": "queued"}, {"id": "", "status": "queued"}, {"id": "job_1"}])
def test_a_job_without_id_or_status_is_none(job: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Job.model_validate(job)


def test_a_stub_of_results_has_no_tables() -> None:
    results = JobResultsReply.model_validate({"data": {"job_id": "job_1", "status": "running"}}).value
    assert (results.tables, results.warnings) == ([], [])


def test_a_model_does_not_change() -> None:
    job = Job(id="job_1", status="queued")
    with pytest.raises(ValidationError, match="frozen"):
        job.status = "failed"


@pytest.mark.parametrize(
    ("odd", "left"),
    [
        ({"code": 42, "message": "No"}, {"code": "42", "message": "No"}),
        ({"code": ["a"], "message": "No"}, {"code": None, "message": "No"}),
        ({"message": "No", "details": "a text"}, {"message": "No", "details": None}),
        (
            {"message": "No", "details": ["a text", {"field": "x", "issue": 1}]},
            {"message": "No", "details": [{"field": "x", "issue": "1"}]},
        ),
    ],
)
def test_an_odd_part_of_an_error_hides_nothing_of_the_rest(odd: dict[str, Any], left: dict[str, Any]) -> None:
    assert ErrorBody.model_validate(odd).model_dump(exclude_unset=True) == left
