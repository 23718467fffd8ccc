"""A server made of ``docs/openapi.yaml`` alone: it refuses undocumented requests, and responds with the examples.

It is stricter than an API. It rejects query parameters, headers and fields that the document does not have, so that a
client that passes here sends only what is documented.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml
from openapi_schema_validator import OAS31Validator, oas31_format_checker

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "openapi.yaml"

#: Headers of HTTP and of authentication, which API documents do not list as parameters.
OF_HTTP = {
    *("host", "connection", "user-agent", "accept", "accept-encoding", "content-type", "content-length"),
    "authorization",
}


class Sent(NamedTuple):
    """A request that the document allows.

    :param operation: its ``operationId``.
    :param parts: its parts, such as ``("query", "limit")``; a field of the body is a ``("body", …)``.
    """

    operation: str
    parts: frozenset[tuple[str, str]]


@dataclass
class Operation:
    """An operation of the document, with everything needed to validate a request and to respond."""

    document: dict[str, Any]
    path: str
    method: str
    written: dict[str, Any]
    parameters: dict[tuple[str, str], dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        found = [self.resolved(one) for one in self.written.get("parameters", ())]
        self.parameters = {(one["in"], _name(one["in"], one["name"])): one for one in found}

    @property
    def parts(self) -> frozenset[tuple[str, str]]:
        """The possible parts of a request."""
        body = self.body_schema or {}
        return frozenset(self.parameters) | {("body", name) for name in self.resolved(body).get("properties", ())}

    @property
    def body_schema(self) -> dict[str, Any] | None:
        """The schema of the body, if there is one."""
        body = self.written.get("requestBody")
        schema: dict[str, Any] | None = body and self.resolved(body)["content"]["application/json"]["schema"]
        return schema

    @property
    def answer(self) -> tuple[int, str | None, Any]:
        """The status, the media type and the example of the first success."""
        status = next(status for status in self.written["responses"] if status.startswith("2"))
        for kind, media in self.resolved(self.written["responses"][status]).get("content", {}).items():
            example = next(iter(media.get("examples", {}).values()), {})
            return int(status), kind, example.get("value")
        return int(status), None, None

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part of the document, or the part that its reference points to."""
        while "$ref" in part:
            found = self.document
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            part = found
        return part

    def ids(self, path: str) -> dict[str, str] | None:
        """The values of the path's parameters, or ``None`` for another path."""
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]*)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        return found and {name: unquote(value, errors="strict") for name, value in found.groupdict().items()}

    def wrong(self, schema: dict[str, Any], value: Any) -> Iterator[str]:
        """Yield the errors of a value against a schema."""
        whole = {**schema, "components": self.document["components"]}
        for error in OAS31Validator(whole, format_checker=oas31_format_checker).iter_errors(value):
            yield f"{error.json_path.removeprefix('$')} {error.message}".strip()


class Request(NamedTuple):
    """A request as it came over the wire; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class DocumentServer:
    """The server, on a free local port."""

    def __init__(self, document: str | None = None) -> None:
        self.text = DOCUMENT.read_text() if document is None else document
        self.document = yaml.load(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.operations = {
            written["operationId"]: Operation(self.document, path, method.upper(), written)
            for path, item in self.document["paths"].items()
            for method, written in item.items()
        }
        self.sent: list[Sent] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def respond(self, request: Request) -> tuple[int, str | None, bytes]:
        """Respond to a request with the document's example, or with all errors of the request."""
        name, complaints, parts = self._judge(request)
        if complaints or name is None:
            details = [{"field": where, "issue": what} for where, what in complaints]
            error = {
                "code": "not_in_the_document",
                "message": "This is not what the document says.",
                "details": details,
            }
            return 400, "application/json", json.dumps({"error": error}).encode()
        self.sent.append(Sent(name, parts))
        status, kind, example = self.operations[name].answer
        if isinstance(example, dict) and "meta" in example:
            example = copy.deepcopy(example)
            # Two pages, so that a cursor is sent.
            page = example["meta"]["page"]
            page["cursor"] = None if ("query", "cursor") in parts else page["cursor"] or "cursor of the second page"
        if kind is None:
            return status, None, b""
        # The only operation without an example returns the document itself.
        return status, kind, (self.text if example is None else json.dumps(example)).encode()

    def _judge(self, request: Request) -> tuple[str | None, list[tuple[str, str]], frozenset[tuple[str, str]]]:
        target = urlsplit(request.target)
        for name, operation in self.operations.items():
            if operation.method == request.method and (ids := operation.ids(target.path)) is not None:
                given = [("path", *one) for one in ids.items()]
                given += [("query", *one) for one in parse_qsl(target.query, keep_blank_values=True, errors="strict")]
                given += [("header", *one) for one in request.headers.items() if one[0] not in OF_HTTP]
                body, complaints = _body(operation, request)
                parts = frozenset({one[:2] for one in given} | {("body", field) for field in body or ()})
                complaints = [*_head(operation, request.headers), *_parameters(operation, given), *complaints]
                return name, complaints, parts
        return None, [(f"{request.method} {target.path}", "is no operation of the document")], frozenset()


def _name(place: str, name: str) -> str:
    return name.lower() if place == "header" else name


def _head(operation: Operation, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if not re.fullmatch(r"Bearer \S+", headers.get("authorization", "")):
        yield "header Authorization", "is no bearer's key, as the document's security wants it"
    kind = operation.answer[1]
    if kind and headers.get("accept") not in (kind, "*/*"):
        yield "header Accept", f"is {headers.get('accept')!r}, and the document answers {kind!r}"


def _parameters(operation: Operation, given: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    names = [one[:2] for one in given]
    for place, name in dict.fromkeys(names):
        if (place, name) not in operation.parameters:
            yield f"{place} {name}", "is not in the document"
        elif names.count((place, name)) > 1:
            yield f"{place} {name}", "is there more than once"
    for (place, name), parameter in operation.parameters.items():
        if parameter.get("required") and (place, name) not in names:
            yield f"{place} {name}", "is required"
    for place, name, text in given:
        if parameter := operation.parameters.get((place, name)):
            schema = parameter["schema"]
            is_number = operation.resolved(schema)["type"] == "integer" and re.fullmatch(r"-?\d+", text)
            for problem in operation.wrong(schema, int(text) if is_number else text):
                yield f"{place} {name}", problem


def _body(operation: Operation, request: Request) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    schema, kind = operation.body_schema, request.headers.get("content-type")
    if not request.body:
        is_required = schema is not None and operation.resolved(operation.written["requestBody"]).get("required")
        return None, [("body", "is required")] if is_required else []
    if schema is None:
        return None, [("body", "is not in the document")]
    if kind != "application/json":
        return None, [("header Content-Type", f"is {kind!r}, and the document takes 'application/json'")]
    try:
        value = json.loads(request.body.decode(), parse_constant=_no_json)
    except ValueError:
        return None, [("body", "is no JSON")]
    problems = operation.wrong({**schema, "unevaluatedProperties": False}, value)
    return value if isinstance(value, dict) else None, [("body", problem) for problem in problems]


def _no_json(constant: str) -> None:
    """Refuse NaN and Infinity, which Python would accept."""
    raise ValueError(constant)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, documented: DocumentServer) -> None:
        self.documented = documented
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _do(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, kind, content = self.server.documented.respond(Request(self.command, self.path, headers, body))
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _do  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Log nothing, because the responses have the errors."""
