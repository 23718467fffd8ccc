"""Turns a response into the model that it contains, or into an error. No I/O."""

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

#: The connections and lists with a warning about unreadable rows.
_WARNED: set[tuple[str, str]] = set()

_MAX_VALUES_OF_ERROR = 200_000

#: The maximum length of the server's part of a message, which begins with the code and the message.
_MAX_PROBLEM = 4_500
#: The maximum length of a header or an id in a message.
_MAX_WORD = 500

# "{connection}" is replaced by the name of the Airflow connection.
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
    """An HTTP response without its library.

    Header names are in lower case; ``connection`` is how messages name the Airflow connection.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    connection: str = THE_CONNECTION


class BoundedResponse:
    """Reads the body of a response chunk by chunk, up to the ``max_bytes`` of its route.

    It raises :class:`PlanasonixUnreadableError` as soon as the headers announce, or the chunks contain, more.
    """

    def __init__(
        self, request: Request[Any], status: int, headers: Mapping[str, str], connection: str = THE_CONNECTION
    ) -> None:
        self._request = request
        self._head = RawResponse(status, headers, b"", connection)
        self._max_bytes = request.envelope.max_bytes
        self._content = bytearray()
        self._received_bytes = 0
        # Only gzip was accepted. Some servers send other words here, such as "UTF-8".
        is_gzip = headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
        self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16) if is_gzip else None
        length = headers.get("content-length", "").strip()
        if length.isdecimal() and (len(length) > 20 or int(length) > self._max_bytes):
            raise self._too_large()

    def feed(self, chunk: bytes) -> None:
        """Add a chunk as it came over the wire."""
        self._received_bytes += len(chunk)
        if self._decompressor and not self._decompressor.eof:
            try:
                # One byte beyond the limit is enough to detect an oversized body; a zip bomb expands no further.
                chunk = self._decompressor.decompress(chunk, self._max_bytes + 1 - len(self._content))
            except zlib.error:
                raise _unreadable(
                    self._request, self._head, "with a body that cannot be unpacked as its Content-Encoding says"
                ) from None
        elif self._decompressor:
            chunk = b""
        self._content += chunk
        # Compressed bytes count as well: many of them may decompress to nothing.
        if max(self._received_bytes, len(self._content)) > self._max_bytes:
            raise self._too_large()

    def finish(self) -> RawResponse:
        """Return the response with its decompressed body, after the last chunk."""
        if self._decompressor and self._received_bytes and not self._decompressor.eof:
            raise _unreadable(self._request, self._head, "with a body that was cut off")
        return replace(self._head, content=bytes(self._content))

    def _too_large(self) -> PlanasonixError:
        return _unreadable(self._request, self._head, f"with a body of more than {self._max_bytes / 1_000_000:g} MB")


def parse_response(request: Request[T], response: RawResponse) -> T:
    """Return the content of a response.

    :raises PlanasonixResponseError: if the response is not a success.
    :raises PlanasonixUnreadableError: if a successful response is not what the reference says.
    """
    if not 200 <= response.status < 300:
        raise _error(request, response)
    try:
        envelope = request.envelope.parse(response.content, request.excluded_fields)
    except ValueError as invalid:
        raise _unreadable(request, response, _describe_problem(response, invalid)) from None
    content = envelope.content
    if isinstance(content, Page):
        if content.cursor is not None and content.cursor == request.query.get("cursor"):
            raise _unreadable(request, response, "with a page of a list that names itself as the next page")
        if content.unreadable:
            _warn_of_unreadable(request, response, content)
    return content


def _warn_of_unreadable(request: Request[Any], response: RawResponse, page: Page[Any]) -> None:
    """Log one warning per connection, list and process, because lists are requested again and again."""
    if (known := (response.connection, request.path)) in _WARNED:
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
        response.connection,
    )


def _unreadable(request: Request[T], response: RawResponse, what: str) -> PlanasonixError:
    return PlanasonixUnreadableError(
        f"{request}: answered {_status(response.status)} {what}. "
        f"{_advice_with_request_id(response, _ADVICE_NOT_THE_API)}"
    )


def _describe_problem(response: RawResponse, invalid: ValueError) -> str:
    """Return why a body cannot be read, without its values, which may be anything."""
    if not response.content.strip():
        return "with an empty body"
    if _is_html(response):
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


def _error(request: Request[T], response: RawResponse) -> PlanasonixResponseError:
    body = _error_body(response)
    problem = f"{request}: answered {_status(response.status)}"
    if body:
        if words := ": ".join(filter(None, (body.code, (body.message or "").rstrip(".")))):
            problem += f" ({words})"
        problem += "".join(f"; {': '.join(filter(None, (it.field, it.issue)))}" for it in body.details or ())
    # A long text of the server must not displace the advice.
    problem = shorten(problem, _MAX_PROBLEM)
    if location := response.headers.get("location"):
        problem += f", a redirect to {shorten(location, _MAX_WORD)}"
    elif not body and _is_html(response):
        problem += " with an HTML page"
    if body and body.existing_job_id:
        problem += f"; in the way is job {shorten(body.existing_job_id, _MAX_WORD)}"
    return error_for_status(response.status, has_envelope=body is not None)(
        f"{problem}. {_advice_with_request_id(response, _advice(response, body))}",
        status=response.status,
        code=body.code if body else None,
        fields=tuple(detail.field for detail in (body.details if body else None) or () if detail.field),
        request_id=_request_id(response),
        retry_after=retry_after(response.headers),
        existing_job_id=body.existing_job_id if body else None,
        has_envelope=body is not None,
    )


def _error_body(response: RawResponse) -> ErrorBody | None:
    """Return the error of the envelope, wherever it has ``existing_job_id``; ``None`` without an envelope."""
    try:
        envelope = ErrorEnvelope.model_validate(read_json(response.content, _MAX_VALUES_OF_ERROR))
    except ValueError:
        return None
    if envelope.existing_job_id and not envelope.error.existing_job_id:
        return envelope.error.model_copy(update={"existing_job_id": envelope.existing_job_id})
    return envelope.error


def _advice_with_request_id(response: RawResponse, advice: str) -> str:
    """Return the end of a message. Only the advice is formatted, because the server's text may contain braces."""
    identifier = _request_id(response)
    note = f" [request id {shorten(identifier, _MAX_WORD)}]" if identifier else ""
    return advice.format(connection=response.connection) + note


def _advice(response: RawResponse, body: ErrorBody | None) -> str:
    if 300 <= response.status < 400:
        return _ADVICE_REDIRECT
    if response.status >= 500:
        return _ADVICE_SERVER
    if body is None and response.status not in (401, 403, 413, 429):
        return _ADVICE_NOT_THE_API
    return _ADVICE.get(response.status, _ADVICE_OTHER)


def _request_id(response: RawResponse) -> str | None:
    return response.headers.get("x-request-id") or response.headers.get("request-id")


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _is_html(response: RawResponse) -> bool:
    return response.content.lstrip()[:1] == b"<" or "html" in response.headers.get("content-type", "")
