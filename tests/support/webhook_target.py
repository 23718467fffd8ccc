"""A webhook receiver for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from pydantic import SecretStr

from planasonix_provider.api.signature import verify
from planasonix_provider.simulator.model.clock_and_ids import Clock


class Received(NamedTuple):
    """A received request."""

    path: str
    body: bytes
    headers: dict[str, str]
    at: float

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)

    def verify(self, secret: str | SecretStr, clock: Clock) -> None:
        secrets = [SecretStr(secret) if isinstance(secret, str) else secret]
        signature = self.headers.get("x-planasonix-signature")
        timestamp = self.headers.get("x-planasonix-timestamp")
        verify(self.body, signature=signature, timestamp=timestamp, secrets=secrets, now=clock())


class Receiver:
    """Stores all requests, and responds with ``statuses``, then with 200. The status 0 sends no response."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        #: Delays responses while it is not set.
        self.may_answer = threading.Event()
        self.may_answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.received.append(Received(self.path, body, headers, time.monotonic()))
                receiver.may_answer.wait(120)
                if status == 0:
                    return
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def types(self) -> list[str]:
        return [received.event["type"] for received in self.received]

    def wait(self, number: int) -> list[Received]:
        """Wait until this many requests were received."""
        until(lambda: len(self.received) >= number)
        return self.received


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.005)
