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
    ErrorBody,
    ErrorReply,
    Job,
    JobPage,
    JobResultsReply,
    as_utc,
)

#: What is said of errors elsewhere; the bodies of the reference itself are in test_reference.py.
EXAMPLES: dict[str, tuple[type[BaseModel], str]] = {
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
def test_an_error_is_written_back_without_loss(model: type[BaseModel], text: str) -> None:
    assert model.model_validate_json(text).model_dump(mode="json", exclude_unset=True) == json.loads(text)


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


@pytest.mark.parametrize("odd", ["", "a/b", "..", "a b", "a?b"])
def test_an_id_that_nobody_could_ask_for_makes_an_answer_unreadable(odd: str) -> None:
    with pytest.raises(ValidationError, match="allowed is an id as Planasonix gives it"):
        Job.model_validate({"id": odd, "status": "running"})
    with pytest.raises(ValidationError, match="allowed is an id as Planasonix gives it"):
        Backfill.model_validate({"id": "bf_1", "status": "running", "job_ids": ["job_1", odd]})
