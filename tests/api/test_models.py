from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planasonix_provider.api.models import (
    Backfill,
    ErrorBody,
    ErrorEnvelope,
    Job,
    JobPage,
    JobResults,
    JobResultsEnvelope,
    TableResult,
    as_utc,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("details", [{}, {"details": [{"field": "priority", "issue": "is unknown"}]}])
def test_an_error_is_serialized_without_loss(details: dict[str, Any]) -> None:
    envelope = {"error": {"code": "invalid_request", "message": "The request is invalid.", **details}}
    assert ErrorEnvelope.model_validate(envelope).model_dump(mode="json", exclude_unset=True) == envelope


@pytest.mark.heavy
@given(st.dictionaries(st.text(min_size=1).map("x_".__add__), JSON, max_size=4))
def test_fields_that_are_not_in_the_reference_are_kept(unknown: dict[str, Any]) -> None:
    job = {"id": "job_1", "status": "running", "metrics": {"rows_loaded": 1, **unknown}, **unknown}
    assert Job.model_validate_json(json.dumps(job)).model_dump(mode="json", exclude_unset=True) == job


@pytest.mark.parametrize("envelope", [{"data": [], "next": 1}, {"data": [], "meta": {"total": 1, "page": {"of": 2}}}])
def test_unknown_fields_of_an_envelope_are_kept(envelope: dict[str, Any]) -> None:
    assert JobPage.model_validate(envelope).model_dump(mode="json", exclude_unset=True) == envelope


@pytest.mark.parametrize(
    ("model", "ends"),
    [(Job, {"succeeded", "failed", "cancelled"}), (Backfill, {"completed", "failed", "cancelled"})],
)
def test_only_the_final_states_of_the_reference_are_final(model: type[Job] | type[Backfill], ends: set[str]) -> None:
    others = {"queued", "running", "cancelling", "succeeded", "completed", "paused", "SUCCEEDED", ""} - ends
    for status in ends | others:
        assert model(id="id_1", status=status).is_over is (status in ends), status


@pytest.mark.parametrize(
    "text", ["2025-03-27T14:22:10Z", "2025-03-27T14:22:10", "2025-03-27T16:22:10+02:00", "2025-03-27T14:22:10.000Z"]
)
def test_a_time_is_aware_and_in_utc(text: str) -> None:
    created = Job.model_validate({"id": "job_1", "status": "queued", "created_at": text}).created_at
    assert created == datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
    assert created.utcoffset() == timedelta(0)


def test_a_time_without_an_offset_is_in_utc() -> None:
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
def test_the_error_of_a_job_or_backfill_may_be_a_text(error: Any, code: str | None, message: str | None) -> None:
    for model in (Job, Backfill):
        work = model.model_validate({"id": "work_1", "status": "failed", "error": error})
        assert work.error is not None
        assert (work.error.code, work.error.message) == (code, message)


@pytest.mark.parametrize("page", [{"data": []}, {"data": [], "meta": {"page": {"cursor": ""}}}])
def test_a_page_without_a_cursor_is_the_last(page: dict[str, Any]) -> None:
    assert JobPage.model_validate(page).cursor is None


@pytest.mark.parametrize("job", [{"status": "queued"}, {"id": "", "status": "queued"}, {"id": "job_1"}])
def test_a_job_without_id_or_status_is_invalid(job: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Job.model_validate(job)


def test_results_of_a_running_job_have_no_tables() -> None:
    results = JobResultsEnvelope.model_validate({"data": {"job_id": "job_1", "status": "running"}}).content
    assert (results.tables, results.warnings) == ([], [])


def test_a_model_is_immutable() -> None:
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
def test_an_invalid_part_of_an_error_hides_no_other_part(odd: dict[str, Any], left: dict[str, Any]) -> None:
    assert ErrorBody.model_validate(odd).model_dump(exclude_unset=True) == left


#: Unreadable values by field. Only the id and the state of a job are required.
UNREADABLE: dict[str, list[Any]] = {
    "type": [[], {}],
    "connection_id": [None, {"id": "conn_1"}],
    "created_at": ["soon", [], "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", float("nan")],
    "finished_at": [True, {}],
    "duration_seconds": [float("inf"), float("-inf"), float("nan"), "Infinity", "long", 10**400, [], {}],
    "metrics": ["many", 7, []],
    "error": [False, None],
    "metadata": ["a text", 7, []],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in UNREADABLE for value in UNREADABLE[field]])
def test_an_unreadable_field_of_a_job_is_none(field: str, value: Any) -> None:
    job = Job.model_validate({"id": "job_1", "status": "succeeded", "pipeline_id": "pl_1", field: value})
    if field != "error" or value is None:
        assert getattr(job, field) is None
    assert (job.id, job.status, job.pipeline_id) == ("job_1", "succeeded", "pl_1")
    json.dumps(job.known_fields(), allow_nan=False)


@pytest.mark.parametrize("value", [float("inf"), "Infinity", "many", 2**63, 1e300, []])
def test_an_unreadable_number_is_none(value: Any) -> None:
    job = Job.model_validate({"id": "job_1", "status": "running", "metrics": {"rows_loaded": value, "bytes_read": 7}})
    assert job.metrics is not None
    assert (job.metrics.rows_loaded, job.metrics.bytes_read) == (None, 7)
    backfill = Backfill.model_validate(
        {"id": "bf_1", "status": "running", "progress_percent": value, "rows_processed": value, "start_at": value}
    )
    assert (backfill.rows_processed, backfill.start_at) == (None, None)
    assert backfill.progress_percent in (None, 2**63)


@pytest.mark.parametrize(
    ("error", "message"),
    [(["disk", "full"], "['disk', 'full']"), (7, "7"), ({"message": ["a"]}, None), ({"message": 7}, "7")],
)
def test_the_readable_part_of_an_invalid_error_is_kept(error: Any, message: str | None) -> None:
    failed = Job.model_validate({"id": "job_1", "status": "failed", "error": error})
    assert failed.error is not None
    assert failed.error.message == message


def test_a_long_text_is_shortened() -> None:
    job = Job.model_validate({"id": "job_1", "status": "failed", "error": {"message": "x" * 7_000_000}})
    assert job.error is not None
    assert job.error.message == "x" * 1_999 + "…"
    table = TableResult(name="t" * 3_000, checksum="c" * 3_000)
    assert (len(table.name), len(table.checksum or "")) == (2_000, 2_000)


def test_invalid_warnings_hide_no_table() -> None:
    results = JobResults.model_validate(
        {
            "job_id": "job_1",
            "status": "succeeded",
            "tables": [{"name": "a"}],
            "warnings": ["It is odd.", 7, {"code": 1}],
        }
    )
    assert [table.name for table in results.tables] == ["a"]
    assert [(warning.code, warning.message) for warning in results.warnings] == [(None, "It is odd."), ("1", None)]


def test_a_table_without_a_name_makes_results_unreadable() -> None:
    with pytest.raises(ValidationError):
        JobResults.model_validate({"job_id": "job_1", "status": "succeeded", "tables": [{"rows_loaded": 7}]})


@pytest.mark.parametrize("odd", ["", "a/b", "..", "a b", "a?b"])
def test_an_invalid_id_makes_a_response_unreadable(odd: str) -> None:
    with pytest.raises(ValidationError, match="allowed is an id as Planasonix gives it"):
        Job.model_validate({"id": odd, "status": "running"})
    with pytest.raises(ValidationError, match="allowed is an id as Planasonix gives it"):
        Backfill.model_validate({"id": "bf_1", "status": "running", "job_ids": ["job_1", odd]})
