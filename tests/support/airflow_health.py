"""The health endpoint of Airflow's API server, which a killed task requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/api/v2/monitor/health"


def health(database: str = "healthy") -> dict[str, Any]:
    """Return the health that Airflow 3 reports."""
    return {"metadatabase": {"status": database}, "scheduler": {"status": "healthy"}}


class ApiServer:
    """A server on a free port.

    :param port: the port.
    """

    def __init__(self, port: int) -> None:
        self.execution_url = f"http://127.0.0.1:{port}/execution/"
        self.status = 200
        self.body = json.dumps(health())
        self.paths: list[str] = []
        #: The number of responses.
        self.answered = 0
        #: Cleared while the server accepts requests but does not respond.
        self.answers = threading.Event()
        self.answers.set()


@contextmanager
def serving() -> Iterator[ApiServer]:
    """Serve while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            server.answers.wait(30)
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(server.body.encode())
            server.answered += 1

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server = ApiServer(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.answers.set()
            listener.shutdown()
            thread.join()
