"""A proxy in front of the simulator: it refuses requests as proxies do, and corrupts responses.

It knows routes and responses only from the API reference, and shares no code with the provider or the simulator.
While the simulator does not listen, the proxy responds with 502, as real ones do.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Literal

#: The requests that a proxy refuses.
Which = Literal["reads", "writes"]
#: The corruption of responses about a connection's work: a NUL in each text, an infinite number, or megabytes of text.
Oddity = Literal["nul", "infinite", "huge"]

_PAGE = "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
#: The refusals of proxies: status, body and further headers. None has an error of the API.
REFUSALS: dict[str, tuple[int, str, dict[str, str]]] = {
    "404 html": (404, _PAGE.format(title="404 default backend"), {"Content-Type": "text/html"}),
    "403 html": (403, _PAGE.format(title="403 Forbidden"), {"Content-Type": "text/html"}),
    "404 text": (404, "default backend - 404", {"Content-Type": "text/plain"}),
    "302": (302, _PAGE.format(title="302 Found"), {"Content-Type": "text/html", "Location": "/login"}),
    "408": (408, _PAGE.format(title="408 Request Time-out"), {"Content-Type": "text/html"}),
}
#: A text that is too large for logs and databases.
HUGE = "x" * 3_000_000
#: A row of a list without a readable field.
UNREADABLE = {
    "id": None,
    "status": 7,
    "created_at": "yesterday",
    "metrics": "none",
    "error": [],
    "duration_seconds": {},
}
#: The unreadable fields of a row whose id and state are readable.
HALF_READABLE = {"started_at": "soon", "metrics": "none", "duration_seconds": "a while"}

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "host", "accept-encoding", "content-length")


@dataclass
class _Order:
    """A period of refusals or of corrupted lists, which begins with the first request that it affects."""

    name: str
    seconds: float
    began: datetime | None = None
    until: float = 0.0


class Proxy:
    """A proxy on its own port.

    :param port: the port to listen on.
    :param upstream: the port of the simulator.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        #: The numbers of refused or corrupted responses, by kind.
        self.counts: Counter[str] = Counter()
        #: The corruption of the responses about the work of a connection.
        self.oddities: dict[str, Oddity] = {}
        self._upstream = upstream
        self._orders: dict[str, _Order] = {}
        # The connections of jobs, because results do not contain them.
        self._connection_of: dict[str, str] = {}
        self._server: _Server | None = None
        self._lock = Lock()

    def open(self) -> None:
        """Start to listen, unless it listens already."""
        if self._server is None:
            self._server = _Server(self)
            Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and drop all connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop_connections()
            self._server = None

    def refuse(self, which: Which, how: str, seconds: float) -> None:
        """Refuse requests for a period, which begins with the first of them.

        :param which: "reads" or "writes".
        :param how: one of :data:`REFUSALS`.
        :param seconds: the length of the period.
        """
        self._orders[which] = _Order(how, seconds)

    def spoil_lists(self, seconds: float) -> None:
        """Add an unreadable row to each list, and make another one half readable, for a period from the first list on.

        :param seconds: the length of the period.
        """
        self._orders["lists"] = _Order("unreadable row", seconds)

    def began(self, which: str) -> datetime | None:
        """Return the beginning of the latest period.

        :param which: "reads", "writes" or "lists".
        :return: the time of its first request; ``None`` if there was none yet.
        """
        order = self._orders.get(which)
        return order.began if order else None

    def calm(self) -> None:
        """Stop refusing requests and corrupting lists."""
        self._orders.clear()

    def refusal_of(self, method: str) -> str | None:
        """Return the refusal of a request, and count it.

        :param method: the HTTP method.
        :return: one of :data:`REFUSALS`, or ``None`` if the request passes.
        """
        which = "reads" if method == "GET" else "writes"
        return self._take(which, f"{which} refused: ")

    def spoil(self, path: str, body: bytes) -> bytes:
        """Return the body of a response, corrupted if its connection or the current period requires it.

        :param path: the path of the request.
        :param body: the body that the simulator sent.
        :return: the body to send to the client.
        """
        try:
            answer = json.loads(body)
            data = answer["data"]
        except (ValueError, TypeError, KeyError):
            return body
        is_spoilt = False
        for each in list(_objects(data)):
            is_spoilt |= self._make_odd(path, each)
        if isinstance(data, list) and path.split("?")[0].endswith(("/jobs", "/backfills")) and self._take("lists"):
            if data:
                data[0] |= HALF_READABLE
            data.append(UNREADABLE)
            is_spoilt = True
        return json.dumps(answer).encode() if is_spoilt else body

    def _take(self, which: str, prefix: str = "") -> str | None:
        with self._lock:
            order = self._orders.get(which)
            if order is None:
                return None
            if order.began is None:
                order.began, order.until = datetime.now(UTC), time.monotonic() + order.seconds
            elif time.monotonic() > order.until:
                return None
            self.counts[prefix + order.name] += 1
            return order.name

    def _make_odd(self, path: str, data: dict[str, Any]) -> bool:
        """Corrupt the response about a job or backfill if its connection requires it; return whether it did."""
        if data.get("connection_id") and data.get("id"):
            self._connection_of[data["id"]] = data["connection_id"]
        connection_id = data.get("connection_id") or self._connection_of.get(path.split("?")[0].split("/")[-2])
        oddity = self.oddities.get(connection_id or "")
        if oddity is None or not (data.get("id") or data.get("job_id")):
            return False
        is_odd = _spoil_texts(data, "\0" if oddity == "nul" else HUGE) if oddity != "infinite" else False
        if oddity == "infinite" and data.get("duration_seconds") is not None:
            data["duration_seconds"] = float("inf")
            is_odd = True
        if is_odd:
            with self._lock:
                self.counts[f"odd: {oddity}"] += 1
        return is_odd


def _objects(data: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a response: a single one, those of a list, and those in a "job" or "backfill" field."""
    for each in data if isinstance(data, list) else [data]:
        if isinstance(each, dict):
            yield each
            yield from (each[name] for name in ("job", "backfill") if isinstance(each.get(name), dict))


def _spoil_texts(data: dict[str, Any], text: str) -> bool:
    """Add a text to error message and warnings, and a NUL also to metadata and table names; return whether it did."""
    is_spoilt = False
    if isinstance(data.get("error"), dict):
        data["error"]["message"] = f"{data['error'].get('message')} {text}"
        is_spoilt = True
    if isinstance(data.get("metadata"), dict) and text == "\0":
        data["metadata"]["note of another tool"] = f"ends in {text}"
        is_spoilt = True
    for table in data.get("tables") or () if text == "\0" else ():
        table["name"] = f"{table['name']}{text}"
        is_spoilt = True
    if "warnings" in data:
        data["warnings"] = [*(data["warnings"] or ()), {"code": "odd_text", "message": f"A value ends in {text}"}]
        is_spoilt = True
    return is_spoilt


class _Server(ThreadingHTTPServer):
    """Serves a proxy, and can drop its connections."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        # Without the FIN that the base class sends first, so that a connection without linger ends with a RST.
        self._connections.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors, because a client that disconnects is no error of the proxy."""

    def drop_connections(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Log nothing, because each request would be a line."""

    def _answer(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        how = proxy.refusal_of(self.command)
        if how:
            status, page, headers = REFUSALS[how]
            self._send(status, headers, page.encode())
            return
        upstream = HTTPConnection("127.0.0.1", proxy._upstream, timeout=90)
        try:
            upstream.connect()
        except OSError:
            self._send(502, {"Content-Type": "text/html"}, _PAGE.format(title="502 Bad Gateway").encode())
            return
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            upstream.request(self.command, self.path, body or None, headers)
            self._pass_on(upstream.getresponse())
        except (OSError, HTTPException):
            self._reset()
        finally:
            upstream.close()

    def _pass_on(self, answer: HTTPResponse) -> None:
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        try:
            body = answer.read()
        except IncompleteRead as cut:
            self._send(answer.status, headers, cut.partial, length=len(cut.partial) + (cut.expected or 1))
            self.close_connection = True
            return
        self._send(answer.status, headers, self.server.proxy.spoil(self.path, body))

    def _send(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """End the connection without a response, as the simulator did."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the base class
