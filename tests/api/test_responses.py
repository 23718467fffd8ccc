from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from planasonix_provider.api import responses, routes
from planasonix_provider.api.errors import (
    BY_STATUS,
    PlanasonixError,
    PlanasonixResponseError,
    PlanasonixServerError,
    PlanasonixUnreadableError,
)
from planasonix_provider.api.responses import RawResponse, parse_response
from tests.api.test_models import JSON
from tests.support.raw_server import HTML, JOB

GET_JOB = routes.get_job("job_1")
DATE = "Thu, 27 Mar 2025 14:22:10 GMT"


def answer(status: int, body: Any = b"", **headers: str) -> RawResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RawResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def refusal(status: int, body: Any = b"", **headers: str) -> PlanasonixResponseError:
    with pytest.raises(PlanasonixResponseError) as refused:
        parse_response(GET_JOB, answer(status, body, **headers))
    return refused.value


def unreadable(body: Any, status: int = 200, **headers: str) -> str:
    with pytest.raises(PlanasonixUnreadableError) as refused:
        parse_response(GET_JOB, answer(status, body, **headers))
    return refused.value.message


def envelope(**error: Any) -> dict[str, Any]:
    return {"error": {"code": "some_code", "message": "In some words.", **error}}


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_returns_the_content_of_its_envelope(status: int) -> None:
    job = parse_response(GET_JOB, answer(status, {"data": JOB}))
    assert (job.id, job.status) == ("job_1", "running")


@pytest.mark.parametrize(
    ("status", "phrase", "advice"),
    [
        (302, "302 Found", "Redirects are not followed"),
        (400, "400 Bad Request", "Correct what the answer names."),
        (401, "401 Unauthorized", "The API key of the Airflow connection, which is its password, is missing"),
        (403, "403 Forbidden", "IP allowlist"),
        (404, "404 Not Found", "check the id"),
        (409, "409 Conflict", "cancel it"),
        (413, f"413 {HTTPStatus(413).phrase}", "send fewer tables, or less metadata"),
        (418, "418 I'm a Teapot", "The API's reference names no such answer"),
        (429, "429 Too Many Requests", "raise poll_interval"),
        (500, "500 Internal Server Error", "try again later"),
        (501, "501 Not Implemented", "try again later"),
        (502, "502 Bad Gateway", "try again later"),
        (503, "503 Service Unavailable", "try again later"),
        (504, "504 Gateway Timeout", "try again later"),
        (599, "599 (some_code", "try again later"),
    ],
)
def test_an_error_names_the_request_the_status_and_the_solution(status: int, phrase: str, advice: str) -> None:
    error = refusal(status, envelope(), x_request_id="req_1")
    fallback = PlanasonixServerError if status >= 500 else PlanasonixResponseError
    assert type(error) is BY_STATUS.get(status, fallback)
    assert (error.status, error.code, error.request_id) == (status, "some_code", "req_1")
    assert error.message.startswith(f"GET /api/v1/jobs/job_1: answered {phrase}")
    assert "(some_code: In some words)" in error.message
    assert advice in error.message
    assert error.message.endswith(" [request id req_1]")


def test_an_error_has_all_details() -> None:
    details = [{"field": "priority", "issue": "is unknown"}, {"field": "metadata", "issue": "is too large"}]
    error = refusal(400, envelope(details=details), request_id="req_2")
    assert error.message == (
        "GET /api/v1/jobs/job_1: answered 400 Bad Request (some_code: In some words); priority: is unknown; "
        "metadata: is too large. Correct what the answer names. [request id req_2]"
    )
    assert error.fields == ("priority", "metadata")


@pytest.mark.parametrize(
    ("detail", "words"), [({"issue": "is unknown"}, "; is unknown. "), ({"field": "priority"}, "; priority. ")]
)
def test_a_detail_may_lack_its_field_or_its_issue(detail: dict[str, str], words: str) -> None:
    error = refusal(400, envelope(details=[detail]))
    assert words in error.message
    assert "None" not in error.message


@pytest.mark.parametrize(
    "body",
    [envelope(existing_job_id="job_2"), {**envelope(), "existing_job_id": "job_2"}],
    ids=["in the error", "beside the error"],
)
def test_a_conflict_names_the_active_job(body: dict[str, Any]) -> None:
    error = refusal(409, body)
    assert error.existing_job_id == "job_2"
    assert "in the way is job job_2" in error.message


def test_a_conflict_without_a_job() -> None:
    error = refusal(409, envelope())
    assert error.existing_job_id is None
    assert "in the way is" not in error.message


@pytest.mark.parametrize("body", [b"", HTML, {"message": "no envelope"}, [1], envelope()])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_its_target(status: int, body: Any) -> None:
    error = refusal(status, body, location="https://login.example.com/")
    assert "a redirect to https://login.example.com/" in error.message
    assert "Redirects are not followed" in error.message


@pytest.mark.parametrize("status", [401, 403, 429])
def test_an_error_without_an_envelope_has_the_same_solution(status: int) -> None:
    assert (
        refusal(status, HTML).message.partition("page. ")[2] == refusal(status, envelope()).message.partition("). ")[2]
    )


@pytest.mark.parametrize(("body", "words"), [(HTML, "404 Not Found with an HTML page."), (b"", "404 Not Found.")])
def test_a_404_without_an_envelope_is_not_from_the_api(body: bytes, words: str) -> None:
    message = refusal(404, body).message
    assert words in message
    assert "check that the host of the Airflow connection is the API's" in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "with an empty body"),
        (b" \r\n", "with an empty body"),
        (HTML, "with an HTML page"),
        (b"\n  " + HTML, "with an HTML page"),
        (b'{"data": {"id": "job_1", "sta', "with a body that is not JSON, or was cut off"),
        (b"\x00\xff\xfe", "with a body that is not JSON, or was cut off"),
        ([], "with JSON that is not what the API's reference says: body: Input should be an object"),
        (None, "with JSON that is not what the API's reference says: body: "),
        ({}, "with JSON that is not what the API's reference says: data: Field required"),
        ({"data": [JOB]}, "with JSON that is not what the API's reference says: data: "),
        (
            {"data": {"job": JOB}},
            "with JSON that is not what the API's reference says: data.id: Field required (and 1 more)",
        ),
        (
            {"data": {**JOB, "id": 7}},
            "with JSON that is not what the API's reference says: data.id: Input should be a valid",
        ),
        (
            {"data": {**JOB, "id": "j" * 501}},
            "with JSON that is not what the API's reference says: data.id: Value error, an id has at most 500 char",
        ),
    ],
)
def test_an_unreadable_success_names_the_reason(body: Any, words: str) -> None:
    message = unreadable(body, request_id="req_3")
    assert message.startswith(f"GET /api/v1/jobs/job_1: answered 200 OK {words}")
    assert "check that the host of the Airflow connection is the API's" in message
    assert message.endswith(" [request id req_3]")


def test_html_is_recognized_by_its_content_type_too() -> None:
    assert "with an HTML page" in unreadable(b"Sign in", content_type="text/html; charset=utf-8")


def test_a_message_does_not_quote_an_unreadable_body() -> None:
    assert "whsec_1" not in unreadable({"data": {"id": ["whsec_1"], "status": {"a": "whsec_1"}}})


@pytest.mark.heavy
@given(st.sampled_from([200, 202, 204, 302, 400, 409, 503, 799]), st.binary() | JSON.map(json.dumps).map(str.encode))
def test_any_invalid_response_raises_a_planasonix_error(status: int, content: bytes) -> None:
    for request in (GET_JOB, routes.trigger_sync("conn_1"), routes.list_jobs(), routes.get_job_results("job_1")):
        with pytest.raises(PlanasonixError):
            parse_response(request, RawResponse(status, {}, content))


#: A page with four unreadable rows and two readable ones.
ODD_PAGE: dict[str, Any] = {
    "data": [
        {"id": "job_1", "status": "running", "duration_seconds": "Infinity", "created_at": 10**400, "error": ["a"]},
        {"id": "job_2", "secret": "whsec_1"},
        {"id": "whsec_1/..", "status": "running"},
        "whsec_1",
        None,
        {"id": "job_3", "status": "queued", "metadata": "none"},
    ],
    "meta": {"page": {"limit": "many", "cursor": 7}},
}


def test_unreadable_rows_are_left_out_with_one_warning(caplog: pytest.LogCaptureFixture, mocker: MockerFixture) -> None:
    mocker.patch.object(responses, "_WARNED", set())
    eu = replace(answer(200, ODD_PAGE), connection="Airflow connection 'eu'")
    for _ in range(3):
        page = parse_response(routes.list_jobs(), eu)
        assert [job.id for job in page.data] == ["job_1", "job_3"]
        assert page.cursor == "7"
        assert [row.id for row in page.unreadable] == ["job_2", None, None, None]
    (warning,) = caplog.messages
    assert warning == (
        "GET /api/v1/jobs: 4 of 6 rows cannot be read and are left out; the first is data.1 (job_2): status: Field "
        "required. A wait for one of them asks for it by its id. Airflow connection 'eu': report it to Planasonix. "
        "Further rows like this are not logged."
    )
    assert "whsec_1" not in caplog.text
    parse_response(routes.list_jobs(), replace(eu, connection="Airflow connection 'us'"))
    parse_response(routes.list_backfills(), eu)
    assert len(caplog.messages) == 3


def test_a_row_of_a_list_requires_only_an_id_and_a_state() -> None:
    rows = [{"id": "bf_1", "status": "running", "job_ids": ["job 1"], "tables": 7, "progress_percent": "half"}]
    (backfill,) = parse_response(routes.list_backfills(), answer(200, {"data": rows})).data
    assert (backfill.id, backfill.status, backfill.job_ids, backfill.tables) == ("bf_1", "running", None, None)


@pytest.mark.parametrize("cursor", [["c1"], {"after": "c1"}, True, 1.5])
def test_an_unreadable_cursor_is_an_error(cursor: Any) -> None:
    """Otherwise, all following pages would be missed."""
    with pytest.raises(PlanasonixUnreadableError, match=r"meta\.page\.cursor"):
        parse_response(routes.list_jobs(), answer(200, {"data": [], "meta": {"page": {"cursor": cursor}}}))


def test_an_object_instead_of_a_list_is_unreadable() -> None:
    with pytest.raises(PlanasonixUnreadableError, match="data: "):
        parse_response(routes.list_jobs(), answer(200, {"data": {"id": "job_1", "status": "running"}}))


def test_a_page_with_its_own_cursor_is_unreadable() -> None:
    page = answer(200, {"data": [], "meta": {"page": {"cursor": "c1"}}})
    assert parse_response(routes.list_jobs(), page).cursor == "c1"
    with pytest.raises(PlanasonixUnreadableError, match="names itself as the next page"):
        parse_response(routes.list_jobs().next_page("c1"), page)


def test_an_error_has_the_seconds_of_its_retry_after() -> None:
    assert refusal(503, retry_after="Thu, 27 Mar 2025 14:22:40 GMT", date=DATE).retry_after == 30
    assert refusal(503).retry_after is None
