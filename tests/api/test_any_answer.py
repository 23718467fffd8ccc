"""For any response, a call returns the type of its route, or raises a ``PlanasonixError`` that does not show the key.

``HYPOTHESIS_EXAMPLES=100 pytest tests/api/test_any_answer.py`` tries a hundred times as many responses as usual.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
import typing
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planasonix_provider.api.client import Client, _options
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Envelope
from planasonix_provider.api.request import Request
from planasonix_provider.api.responses import RawResponse, parse_response
from planasonix_provider.api.retry import NO_RETRY
from tests.api.test_models import JSON
from tests.support import api_reference
from tests.support.api_clients import KEY, CallStyle, make_config
from tests.support.error_text import log_text
from tests.support.example_calls import REQUESTS
from tests.support.raw_server import RawServer

TIMES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "1"))

ENVELOPE = {
    "error": {
        "code": KEY,
        "message": f"Not for {KEY}.",
        "details": [{"field": KEY, "issue": "is unknown"}],
        "existing_job_id": "job_2",
    },
    "existing_job_id": KEY,
}
#: The responses that the reference shows.
SHAPES: list[Any] = [*(one.body for one in api_reference.examples() if one.status), ENVELOPE]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Raw(str):
    """A piece of JSON, or of invalid JSON, that is sent unchanged."""


ESCAPED_KEY = "".join(f"\\u{ord(character):04x}" for character in KEY)
ODD_TIMES = (
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-02-30T00:00:00Z", "2025-03-27", "12:00", "now"),
    *("2025-03-27T24:00:00Z", "2025-03-27T14:22:60Z", "2025-03-27t14:22:10.123456789z", "10000-01-01T00:00:00Z"),
    *(0, -1, 1e20, 253402300800, -62135596801, 1743085330.5),
)
ODD = st.sampled_from(
    [
        *map(Raw, ("1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 400, "9" * 5000, "NaN", "Infinity", "-Infinity")),
        *map(Raw, ("-0", "0.0", "1.0", "1e2", "9223372036854775808", "1e-400", "00", "", "nul", "'a'", '"\\ud800"')),
        *(Raw(opening * 10_000 + closing * 10_000) for opening, closing in ("[]", ('{"a":', "}"))),
        Raw("[" * 10_000),
        Raw(f'"{ESCAPED_KEY}"'),
        Raw(f'{{"{ESCAPED_KEY}": "{ESCAPED_KEY}", "id": "x", "id": "y"}}'),
        *("", " ", "\0", KEY, f"Bearer {KEY}", "x" * 20_000, "\ud7ff\uffff", "quite new", "True"),
        *ODD_TIMES,
        *(None, True, False, 0, -1, 10**20, 253402300800, -62135596801, 1.5, [], {}, [None], [{}], {"": {}}, [[]]),
    ]
)


def wire(value: Any) -> str:
    """Return a value as JSON, with its raw pieces unchanged."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{wire(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(wire, value)) + "]"
    return json.dumps(value)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return each object or list in a value, with each of its names or indexes."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, item in inside for place in [(value, name), *places(item)]]


@st.composite
def _changed_json(draw: st.DrawFn, shapes: list[Any] = SHAPES) -> bytes:
    """JSON of one of the shapes, with some parts changed, removed or added."""
    body = copy.deepcopy(draw(st.sampled_from(shapes)))
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(["set", "take away", "add", "move in time", "echo"]))
        changeable = [
            (holder, name)
            for holder, name in places(body)
            if change != "move in time" or _TIME.fullmatch(str(holder[name]))
        ]
        if not changeable:
            continue
        holder, name = draw(st.sampled_from(changeable))
        if change == "take away":
            del holder[name]
        elif change == "move in time":
            holder[name] = draw(st.sampled_from(ODD_TIMES))
        elif change == "echo":
            holder[name] = Raw(f'"{ESCAPED_KEY}"')
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["unknown", "", "id", KEY]))] = copy.deepcopy(draw(ODD | JSON))
        else:
            holder[name] = copy.deepcopy(draw(ODD | JSON))
    return wire(body).encode("utf-8", "surrogatepass")


@st.composite
def _damaged_body(draw: st.DrawFn) -> bytes:
    """A truncated body, or one with some changed bytes."""
    body = draw(_changed_json())
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=4)) + draw(st.sampled_from([body[at + 1 :], b""]))


BODIES = (
    _changed_json()
    | _changed_json([ENVELOPE])
    | _damaged_body()
    | ODD.map(wire).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=200)
    | st.sampled_from([b"", b" ", b"\xef\xbb\xbf{}", b"<html>" + KEY.encode(), b"\xff\xfe{\0}\0", KEY.encode("utf-16")])
)
DATE_PARTS = (
    *("Thu,", "Fri", "27", "31", "0", "99", "Mar", "Foo", "2025", "9999", "10000", "1", "99999999999999999999"),
    *(
        "14:22:40",
        "24:61:61",
        "14.22",
        "::",
        ":",
        "GMT",
        "UTC",
        "EST",
        "+0200",
        "-2300",
        "+9999",
        "-0000",
        "+",
        "-",
        ",",
    ),
    *("+99999999999", "AM", "(comment", "\u0663", "1e9", "1.", ".5", "9" * 5000),
)
DATES = st.lists(st.sampled_from(DATE_PARTS), max_size=7).map(" ".join) | st.text(max_size=20)
LOCATIONS = st.sampled_from(
    [
        *(
            "",
            "/",
            "//",
            "?",
            "#",
            "http://",
            "https://[::1",
            "http://x:99999999/",
            "http://a..b/",
            "http://\u00fc..de/",
        ),
        *("javascript:1", "http://x\x7f/", f"http://{KEY}:{KEY}@x/?{KEY}", f"http://[{KEY}]", f"http://x:{KEY}/"),
        "/" * 9000,
    ]
)
ENCODINGS = st.sampled_from(
    ["gzip", "x-gzip", "GZIP ", "gzip, gzip", "deflate", "br", "zstd", "identity", "UTF-8", "", KEY]
)
VALUES = (
    DATES | LOCATIONS | ENCODINGS | st.sampled_from(["0", "-1", "5, 5", "text/html", f"Bearer {KEY}", "a=b; c", "="])
)
NAMES = st.sampled_from(
    [
        *("Retry-After", "Date", "Location", "Content-Type", "Content-Encoding", "X-Request-ID", "Request-Id"),
        *("Set-Cookie", "WWW-Authenticate", "X-Unknown", "Link", "Connection", "Upgrade", "Trailer", KEY),
    ]
)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode("utf-8", "replace").translate(None, b"\0\r\n")


HEADERS = st.lists(
    st.builds(_header, NAMES, VALUES)
    | st.builds(_header, st.just("Retry-After"), DATES)
    | st.builds(_header, st.just("Location"), LOCATIONS)
    | st.builds(_header, st.just("Content-Encoding"), ENCODINGS),
    max_size=5,
)
PACKED = st.sampled_from([bytes, bytes, gzip.compress, zlib.compress, lambda body: gzip.compress(body)[:-9]])
STATUSES = st.sampled_from([200, 200, 202, 204, 301, 400, 401, 404, 409, 429, 503]) | st.integers(100, 599)
ANY_REQUEST = st.sampled_from(list(REQUESTS))


def content_type_of(reply: type[Envelope[Any]]) -> Any:
    """Return the type of an envelope's content."""
    hint = typing.get_type_hints(reply.content.fget)["return"]  # type: ignore[attr-defined] # it is a property
    if hint is typing.Self:
        return reply
    return reply.model_fields["data"].annotation if isinstance(hint, typing.TypeVar) else hint


def assert_sound(request: Request[Any], call: Callable[[], Any]) -> None:
    """Check that a call returns the type of its route, or raises a readable error without the key."""
    try:
        value = call()
    except PlanasonixError as error:
        assert KEY not in log_text(error) + repr(vars(error))  # noqa: PT017 - no error is fine, too
        assert len(error.message) < 200_000  # noqa: PT017
    else:
        assert isinstance(value, content_type_of(request.envelope))


@cache
def accepted_shapes(name: str) -> list[Any]:
    """Return strategies for the responses that a route accepts."""

    def fits(shape: Any) -> bool:
        try:
            parse_response(REQUESTS[name], RawResponse(200, {}, wire(shape).encode()))
        except PlanasonixError:
            return False
        return True

    return list(filter(fits, SHAPES))


@pytest.mark.parametrize("name", REQUESTS)
def test_each_route_accepts_a_shape(name: str) -> None:
    """Otherwise the tests below would change shapes that were invalid before."""
    assert accepted_shapes(name)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_outside_the_range_of_utc_is_none(moment: str) -> None:
    body = wire({"data": {"id": "job_1", "status": "running", "created_at": moment}}).encode()
    assert parse_response(REQUESTS["get_job"], RawResponse(200, {}, body)).created_at is None


@pytest.mark.parametrize("nested", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000])
@pytest.mark.parametrize("status", [200, 400])
def test_deeply_nested_json_is_invalid(status: int, nested: str) -> None:
    job = {"id": "job_1", "status": "running", "unknown": Raw(nested)}
    body = wire({"data": job, "error": {"code": "c", "unknown": Raw(nested)}}).encode()
    with pytest.raises(PlanasonixError, match=r"not JSON|answered 400 Bad Request\. "):
        parse_response(REQUESTS["get_job"], RawResponse(status, {}, body))


@pytest.mark.heavy
@settings(max_examples=200 * TIMES, deadline=None)
@given(ANY_REQUEST, st.data())
def test_changed_json(name: str, data: st.DataObject) -> None:
    body = data.draw(_changed_json(accepted_shapes(name)))
    assert_sound(
        REQUESTS[name], lambda: parse_response(REQUESTS[name], RawResponse(200, {}, body.replace(KEY.encode(), b"")))
    )


@pytest.mark.heavy
@settings(max_examples=300 * TIMES, deadline=None)
@given(ANY_REQUEST, STATUSES, HEADERS, BODIES, PACKED)
def test_any_response(
    name: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes, pack: Callable[[bytes], bytes]
) -> None:
    here = make_config("http://planasonix.example")

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(pack(body)))

    client = Client(here, NO_RETRY)
    with httpx.Client(**_options(here), transport=httpx.MockTransport(respond)) as client._http:
        assert_sound(REQUESTS[name], lambda: client.send(REQUESTS[name]))


@st.composite
def _response_bytes(draw: st.DrawFn) -> bytes:
    """All bytes of a response, whose framing may be invalid, too."""
    body = draw(PACKED)(draw(BODIES))
    reason = draw(st.sampled_from(["-", "", f"Bearer {KEY}", "\u00fc", "OK\t", "\x7f"]))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/3", KEY]))
    lines = [f"{version} {draw(STATUSES)} {reason}".encode()]
    lines += [name + b": " + value for name, value in draw(HEADERS)]
    framing = draw(st.sampled_from(["length", "length", "close", "chunked", "chunked", "lie"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(st.sampled_from([b"%x" % len(body), b"%x" % len(body), b"0", b"-1", b"f" * 30, KEY.encode()]))
        body = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    elif framing == "lie":
        length = draw(st.sampled_from(["1", "33000000", "-1", "1e3", "5, 6", "9" * 30, "9" * 5000, "", KEY]))
        lines.append(f"Content-Length: {length}".encode())
    return draw(st.sampled_from([b"", b"", b"HTTP/1.1 100 -\r\n\r\n"])) + b"\r\n".join([*lines, b"", body])


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["blocking", "awaited"])
def test_any_bytes(_raw_server: RawServer, name: str) -> None:  # noqa: PT019 - one server for all examples
    here, style = make_config(_raw_server.url, read_timeout=2.0), CallStyle(name)

    @settings(max_examples=80 * TIMES, deadline=None)
    @given(ANY_REQUEST, _response_bytes() | st.binary(max_size=100))
    def try_it(route: str, answer: bytes) -> None:
        _raw_server.respond_with(answer)
        assert_sound(REQUESTS[route], lambda: style.call(here, lambda client: client.send(REQUESTS[route]), NO_RETRY))

    try_it()
