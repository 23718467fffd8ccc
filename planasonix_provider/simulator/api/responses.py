"""Responses made of models and errors, and request bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from planasonix_provider.api.models import ErrorBody, ErrorDetail, ErrorEnvelope, PageInfo, PageMeta
from planasonix_provider.simulator.model.api_errors import ApiError, invalid_field
from planasonix_provider.simulator.model.paging import PageQuery

M = TypeVar("M", bound=BaseModel)

#: The HTTP status of each error code.
STATUS_OF = {
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "sync_in_progress": 409,
    "idempotency_key_reused": 409,
    "job_not_finished": 409,
    "job_not_active": 409,
    "request_too_large": 413,
    "rate_limited": 429,
}


def json_response(model: BaseModel, status: int = 200, *, include: Any = None, reveal: bool = False) -> Response:
    """Return a response with the fields of a model that were set; ``reveal`` sends secrets unmasked."""
    # pydantic before 2.7 has no parameter "context".
    context: dict[str, Any] = {"context": {"reveal": True}} if reveal else {}
    content = model.model_dump_json(include=include, exclude_unset=True, **context).encode()
    return Response(content, status, media_type="application/json")


def page_meta(query: PageQuery, end: int | None) -> PageMeta:
    """Return the ``meta`` of a page that ended at a position; ``None`` if it was the last."""
    return PageMeta(page=PageInfo(limit=query.limit, cursor=query.cursor_after(end)))


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **fields: Any
) -> Response:
    """Return an error with those of the further fields that are not ``None``."""
    envelope = ErrorEnvelope(error=ErrorBody(code=code, message=message, **fields))
    content = envelope.model_dump_json(exclude_none=True).encode()
    return Response(content, status, dict(headers or {}), media_type="application/json")


def api_error_response(error: ApiError | RequestValidationError) -> Response:
    """Return the response of an error, including FastAPI's error for an invalid query."""
    if isinstance(error, RequestValidationError):
        error = _invalid_request({**one, "loc": one["loc"][1:]} for one in error.errors())
    return error_response(
        STATUS_OF[error.code],
        error.code,
        error.message,
        details=list(error.details) or None,
        existing_job_id=error.existing_job_id,
    )


async def read_body(request: Request, model: type[M], *, optional: bool = True) -> M:
    """Return a request's JSON body. An optional body may be empty.

    The content type is ignored, because ``curl -d`` sends the wrong one.
    """
    content = await request.body()
    if not content and not optional:
        raise invalid_field("body", "must not be empty")
    try:
        return model.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise _invalid_request(error.errors(include_url=False)) from None


def invalid_value(error: ValueError) -> ApiError:
    """Return the API's error for a ``ValueError`` of the simulator's own methods, which begins with the field."""
    if isinstance(error, ValidationError):
        return _invalid_request(error.errors(include_url=False))
    field, _, issue = str(error).partition(": ")
    return _invalid_request([{"loc": (field,), "msg": issue}])


def _invalid_request(errors: Iterable[Mapping[str, Any]]) -> ApiError:
    """Return one error for all errors of pydantic."""
    details = [
        ErrorDetail(
            field=".".join(map(str, one["loc"])) or "body",
            issue=str(one["msg"]).removeprefix("Value error, "),
        )
        for one in errors
    ]
    message = "; ".join(f"{detail.field}: {detail.issue}" for detail in details)
    return ApiError("invalid_request", message, details=details)
