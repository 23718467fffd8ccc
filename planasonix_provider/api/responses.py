"""What an answer of the API means: the model that it holds, or the error that it is. No I/O."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import ValidationError

from planasonix_provider.api.errors import (
    THE_CONNECTION,
    PlanasonixError,
    PlanasonixResponseError,
    PlanasonixUnreadableError,
    error_for_status,
)
from planasonix_provider.api.headers import retry_after
from planasonix_provider.api.json_bodies import TooManyValuesError, read_json, shorten
from planasonix_provider.api.models import ErrorBody, ErrorEnvelope, Page
from planasonix_provider.api.request import Request

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The connections and lists whose unreadable rows were warned of.
_WARNED: set[tuple[str, str]] = set()

#: How many values the body of an error may have.
_MAX_VALUES_OF_ERROR = 200_000

#: How many characters of a message are what the server says of an error; the code and the message come first.
_MAX_PROBLEM = 4_500
#: How many characters of a header or an id are shown.
_MAX_WORD = 500

# "{connection}" is where the Airflow connection is named.
_ADVICE: dict[int, str] = {
    400: "Correct what the answer names.",
    401: "The API key of {connection}, which is its password, is missing, mistyped or revoked: check it.",
    403: (
        "The API key of {connection} lacks the scope for this, or this machine is not on its IP allowlist: check "
        "both in Planasonix."
    ),
    404: (
        "There is no such thing for the API key of {connection}: check the id, and that the key belongs to the "
        "right workspace."
    ),
    409: "Wait for what is in the way, or cancel it.",
    413: "The request is too large for the API, or for a proxy before it: send fewer tables, or less metadata.",
    429: (
        "Too many requests for the API key of {connection} or its workspace: let fewer tasks run at once, or "
        "raise poll_interval."
    ),
}
_ADVICE_SERVER = "The fault is Planasonix's, or that of a proxy before it: try again later, and report it if it stays."
_ADVICE_REDIRECT = (
    "Redirects are not followed, since the API key would go along: put the address of the API itself into the host of "
    "{connection}."
)
_ADVICE_NOT_THE_API = (
    "This is not how the Orchestration API answers: check that the host of {connection} is the API's, without a "
    "path unless a gateway needs one."
)
_ADVICE_OTHER = "The API's reference names no such answer: check the host of {connection}, and report it if it stays."


@dataclass(frozen=True)
class RawResponse:
    """An HTTP answer, without the library that brought it.

    :param status: the HTTP status.
    :param headers: the headers, looked up by lower-case name.
    :param content: the body.
    :param connection: what messages call the Airflow connection that has asked.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    connection: str = THE_CONNECTION


class BoundedResponse:
    """An answer that is still coming in: takes its body piece by piece, and refuses one that would never be read.

    :param request: what was asked.
    :param status: the HTTP status.
    :param headers: the headers, looked up by lower-case name.
    :param connection: what messages call the Airflow connection that has asked.
    :raises PlanasonixUnreadableError: if the headers announce more than the route's ``max_bytes``.
    """

    def __init__(
        self, request: Request[Any], status: int, headers: Mapping[str, str], connection: str = THE_CONNECTION
    ) -> None:
        self._request = request
        self._head = RawResponse(status, headers, b"", connection)
        self._max_bytes = request.envelope.max_bytes
        self._content = bytearray()
        self._came = 0
        # Only what was asked for is unpacked. Other words are none that bodies are packed by, as "UTF-8".
        is_packed = headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
        self._unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16) if is_packed else None
        length = headers.get("content-length", "").strip()
        if length.isdecimal() and (len(length) > 20 or int(length) > self._max_bytes):
            raise self._too_large()

    def feed(self, piece: bytes) -> None:
        """Take some more of the body.

        :param piece: the bytes, as they came over the wire.
        :raises PlanasonixUnreadableError: if the body is larger than the route's ``max_bytes``, or cannot be unpacked.
        """
        self._came += len(piece)
        if self._unpacking and not self._unpacking.eof:
            try:
                # One byte more than there is room for shows that there is more, and a bomb goes off no further.
                piece = self._unpacking.decompress(piece, self._max_bytes + 1 - len(self._content))
            except zlib.error:
                raise _unreadable(
                    self._request, self._head, "with a body that cannot be unpacked as its Content-Encoding says"
                ) from None
        elif self._unpacking:
            piece = b""
        self._content += piece
        # What comes counts as well: packed, it may be much and mean nothing.
        if max(self._came, len(self._content)) > self._max_bytes:
            raise self._too_large()

    def finish(self) -> RawResponse:
        """Give the answer, when all of it has come.

        :return: the answer, with its body unpacked.
        :raises PlanasonixUnreadableError: if a packed body was cut off.
        """
        if self._unpacking and self._came and not self._unpacking.eof:
            raise _unreadable(self._request, self._head, "with a body that was cut off")
        return replace(self._head, content=bytes(self._content))

    def _too_large(self) -> PlanasonixError:
        return _unreadable(self._request, self._head, f"with a body of more than {self._max_bytes / 1_000_000:g} MB")


def parse_response(request: Request[T], answer: RawResponse) -> T:
    """Make of an answer what was asked for.

    :param request: what was asked.
    :param answer: what came back.
    :return: what the answer's envelope holds.
    :raises PlanasonixResponseError: (one of its kinds) if the answer is no success.
    :raises PlanasonixUnreadableError: if it is one, but not what the reference says.
    """
    if not 200 <= answer.status < 300:
        raise _error(request, answer)
    try:
        reply = request.envelope.parse(answer.content, request.excluded_fields)
    except ValueError as invalid:
        raise _unreadable(request, answer, _what_is_wrong(answer, invalid)) from None
    value = reply.content
    if isinstance(value, Page):
        if value.cursor is not None and value.cursor == request.query.get("cursor"):
            raise _unreadable(request, answer, "with a page of a list that names itself as the next page")
        if value.unreadable:
            _warn_of_unreadable(request, answer, value)
    return value


def _warn_of_unreadable(request: Request[Any], answer: RawResponse, page: Page[Any]) -> None:
    """Warn once for each connection and list, in each process: a list is asked for again and again."""
    if (known := (answer.connection, request.path)) in _WARNED:
        return
    _WARNED.add(known)
    first, total = page.unreadable[0], len(page.unreadable) + len(page.data)
    name = f"data.{first.position}" + (f" ({first.id})" if first.id else "")
    log.warning(
        "%s: %d of %d rows cannot be read and are left out; the first is %s: %s. A wait for one of them asks for it by "
        "its id. %s: report it to Planasonix. Further rows like this are not logged.",
        request,
        len(page.unreadable),
        total,
        name,
        first.problem,
        answer.connection,
    )


def _unreadable(request: Request[T], answer: RawResponse, what: str) -> PlanasonixError:
    return PlanasonixUnreadableError(
        f"{request}: answered {_status(answer.status)} {what}. {_ending(answer, _ADVICE_NOT_THE_API)}"
    )


def _what_is_wrong(answer: RawResponse, invalid: ValueError) -> str:
    """Say in words why a body cannot be read, without its values: they may be anything."""
    if not answer.content.strip():
        return "with an empty body"
    if _is_html(answer):
        return "with an HTML page, as a proxy or a login page between here and the API sends"
    if isinstance(invalid, TooManyValuesError):
        return f"with JSON of {invalid}"
    if not isinstance(invalid, ValidationError):
        return "with a body that is not JSON, or was cut off"
    first, *more = invalid.errors(include_url=False, include_input=False)
    place = ".".join(str(step) for step in first["loc"]) or "body"
    what = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return f"with JSON that is not what the API's reference says: {place}: {what}" + (
        f" (and {len(more)} more)" if more else ""
    )


def _error(request: Request[T], answer: RawResponse) -> PlanasonixResponseError:
    body = _error_body(answer)
    problem = f"{request}: answered {_status(answer.status)}"
    if body:
        if words := ": ".join(filter(None, (body.code, (body.message or "").rstrip(".")))):
            problem += f" ({words})"
        problem += "".join(f"; {': '.join(filter(None, (it.field, it.issue)))}" for it in body.details or ())
    # A long text of the server must not hide the advice.
    problem = shorten(problem, _MAX_PROBLEM)
    if location := answer.headers.get("location"):
        problem += f", a redirect to {shorten(location, _MAX_WORD)}"
    elif not body and _is_html(answer):
        problem += " with an HTML page"
    if body and body.existing_job_id:
        problem += f"; in the way is job {shorten(body.existing_job_id, _MAX_WORD)}"
    return error_for_status(answer.status, has_envelope=body is not None)(
        f"{problem}. {_ending(answer, _advice(answer, body))}",
        status=answer.status,
        code=body.code if body else None,
        fields=tuple(detail.field for detail in (body.details if body else None) or () if detail.field),
        request_id=_request_id(answer),
        retry_after=retry_after(answer.headers),
        existing_job_id=body.existing_job_id if body else None,
        has_envelope=body is not None,
    )


def _error_body(answer: RawResponse) -> ErrorBody | None:
    """Read the error's envelope, wherever it puts ``existing_job_id``; ``None`` where there is no envelope."""
    try:
        reply = ErrorEnvelope.model_validate(read_json(answer.content, _MAX_VALUES_OF_ERROR))
    except ValueError:
        return None
    if reply.existing_job_id and not reply.error.existing_job_id:
        return reply.error.model_copy(update={"existing_job_id": reply.existing_job_id})
    return reply.error


def _ending(answer: RawResponse, advice: str) -> str:
    """End a message; only the advice is told which Airflow connection it is: what the server has said stays."""
    identifier = _request_id(answer)
    note = f" [request id {shorten(identifier, _MAX_WORD)}]" if identifier else ""
    return advice.format(connection=answer.connection) + note


def _advice(answer: RawResponse, body: ErrorBody | None) -> str:
    if 300 <= answer.status < 400:
        return _ADVICE_REDIRECT
    if answer.status >= 500:
        return _ADVICE_SERVER
    if body is None and answer.status not in (401, 403, 413, 429):
        return _ADVICE_NOT_THE_API
    return _ADVICE.get(answer.status, _ADVICE_OTHER)


def _request_id(answer: RawResponse) -> str | None:
    return answer.headers.get("x-request-id") or answer.headers.get("request-id")


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _is_html(answer: RawResponse) -> bool:
    return answer.content.lstrip()[:1] == b"<" or "html" in answer.headers.get("content-type", "")
