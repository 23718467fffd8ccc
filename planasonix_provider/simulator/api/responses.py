"""What goes over HTTP: envelopes out of models, errors out of refusals, and models out of bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from planasonix_provider.api.models import ErrorBody, ErrorDetail, ErrorEnvelope
from planasonix_provider.simulator.model.api_errors import ApiError, invalid

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
    """Answer with a model.

    :param model: what to send; fields that were never set are left out.
    :param status: the HTTP status.
    :param include: which fields to send, as pydantic takes it; ``None`` is all.
    :param reveal: whether to send secrets as they are.
    :return: the answer.
    """
    # Pydantic before 2.7 has no context to dump with, and only what reveals needs one.
    context: dict[str, Any] = {"context": {"reveal": True}} if reveal else {}
    content = model.model_dump_json(include=include, exclude_unset=True, **context).encode()
    return Response(content, status, media_type="application/json")


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Answer with an error.

    :param status: the HTTP status.
    :param code: the API's error code.
    :param message: what is wrong, for a person.
    :param headers: further headers.
    :param more: further fields of the error; those that are ``None`` are left out.
    :return: the answer.
    """
    reply = ErrorEnvelope(error=ErrorBody(code=code, message=message, **more))
    return Response(
        reply.model_dump_json(exclude_none=True).encode(), status, dict(headers or {}), media_type="application/json"
    )


def api_error_response(error: ApiError | RequestValidationError) -> Response:
    """Answer with what was refused.

    :param error: the refusal, or FastAPI's complaint about a query.
    :return: the answer, with the status that belongs to the refusal's code.
    """
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
    """Read a request's body, whatever its content type says: ``curl -d`` names the wrong one.

    :param request: the request.
    :param model: what the body is to be.
    :param optional: whether no body is the same as an empty object.
    :return: the body.
    :raises Refused: as ``invalid_request``, if it is something else.
    """
    content = await request.body()
    if not content and not optional:
        raise invalid("body", "must not be empty")
    try:
        return model.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise _invalid_request(error.errors(include_url=False)) from None


def invalid_value(error: ValueError) -> ApiError:
    """Refuse a value that the simulator's own methods do not allow.

    :param error: what they raised.
    :return: the refusal, to be raised.
    """
    if isinstance(error, ValidationError):
        return _invalid_request(error.errors(include_url=False))
    field, _, issue = str(error).partition(": ")
    return _invalid_request([{"loc": (field,), "msg": issue}])


def _invalid_request(errors: Iterable[Mapping[str, Any]]) -> ApiError:
    """Make one refusal of all that pydantic complains of."""
    details = [
        ErrorDetail(
            field=".".join(map(str, one["loc"])) or "body",
            issue=str(one["msg"]).removeprefix("Value error, "),
        )
        for one in errors
    ]
    message = "; ".join(f"{detail.field}: {detail.issue}" for detail in details)
    return ApiError("invalid_request", message, details=details)
