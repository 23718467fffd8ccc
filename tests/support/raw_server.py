"""A server that sends the bytes of a test, for invalid responses."""

from __future__ import annotations

import http.client
import json
import os
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from tests.support.webhook_target import until


class ReceivedRequest(NamedTuple):
    """A received request; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


#: The bytes to send, a function that returns them, or an event instead of a response.
Reaction = bytes | Callable[[ReceivedRequest], bytes] | None
#: A TCP reset before the first byte of a response.
RESET = None


#: No response for as long as the client waits.
SILENCE = b"(silence)"


def response(status: int = 200, body: Any = b"", /, **headers: str) -> bytes:
    """Return the bytes of a response; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def error_response(status: int, /, **headers: str) -> bytes:
    """Return the bytes of a response with the API's error envelope."""
    return response(status, {"error": {"code": "planned", "message": "The test wants it so."}}, **headers)


def truncate(whole: bytes) -> bytes:
    """Cut off the second half of a response's body."""
    head, _, body = whole.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + body[: len(body) // 2]


JOB = {"id": "job_1", "type": "connection_sync", "status": "running"}
#: Responses that all routes but lists and results can read.
ONE_JOB = response(200, {"data": JOB})
STARTED = response(202, {"data": {"job": JOB}})
HTML = b"<!DOCTYPE html><html><body>Sign in to go on</body></html>"


class RawServer:
    """The server, on a free local port. Each connection is one request."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.reactions: list[Reaction] = []
        self.requests: list[ReceivedRequest] = []
        self._server = _Server(self)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def respond_with(self, *reactions: Reaction) -> Self:
        """Set the next reactions; the last one stays."""
        self.reactions, self.requests = list(reactions), []
        return self

    def wait_for_requests(self, number: int) -> list[ReceivedRequest]:
        """Wait until this many requests have arrived, because a client that timed out may be faster than the server."""
        until(lambda: len(self.requests) >= number)
        return self.requests

    def next_response(self, request: ReceivedRequest) -> bytes | None:
        self.requests.append(request)
        reaction = self.reactions.pop(0) if len(self.reactions) > 1 else self.reactions[0]
        return reaction(request) if callable(reaction) else reaction

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, raw_server: RawServer) -> None:
        self.raw_server = raw_server
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors, because some tests close their connections early."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if tls := self.server.raw_server.tls:
            self.request = tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        line = self.rfile.readline().decode("latin-1").split()
        if len(line) != 3:  # not HTTP, for example a TLS handshake
            return
        headers = {name.lower(): value for name, value in http.client.parse_headers(self.rfile).items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        reaction = self.server.raw_server.next_response(ReceivedRequest(line[0], line[1], headers, body))
        if reaction is RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif reaction is SILENCE:
            self.rfile.read()
        else:
            self.wfile.write(reaction)
