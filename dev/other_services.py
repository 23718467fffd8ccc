"""A local server in place of dbt Cloud and Slack, which responds to the requests of the example DAGs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import certifi

from dev.certificates import tls_context

#: The status of a finished run in dbt Cloud's API.
DBT_SUCCESS = 10


class OtherServices:
    """Both services on one port, with TLS, because dbt Cloud's client accepts no other scheme.

    ``folder`` is where it writes the certificate. As a context manager, it serves inside the block. ``messages`` has
    the texts that were sent to Slack, and ``dbt_runs`` the ids of the dbt jobs that were started.
    """

    def __init__(self, folder: Path) -> None:
        self.messages: list[str] = []
        self.dbt_runs: list[int] = []
        tls, certificate = tls_context(folder)
        # Include the usual certificate authorities, because Airflow may also call a real Planasonix.
        self.authorities = folder / "authorities.pem"
        self.authorities.write_bytes(Path(certifi.where()).read_bytes() + certificate.read_bytes())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with Airflow's connections to both services and the trusted authorities."""
        dbt_cloud = {"conn_type": "dbt_cloud", "login": "1", "password": "local", "host": self.host}
        slack = {"conn_type": "slackwebhook", "password": f"https://{self.host}/slack"}
        return {
            "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(dbt_cloud),
            "AIRFLOW_CONN_SLACK_DEFAULT": json.dumps(slack),
            "REQUESTS_CA_BUNDLE": str(self.authorities),
            "SSL_CERT_FILE": str(self.authorities),
        }

    def answer(self, method: str, path: str, body: Any) -> Any:
        """Return the response to a request."""
        if path == "/slack":
            self.messages.append(body["text"])
            return "ok"
        run = {"id": 1, "status": DBT_SUCCESS, "job_id": 1234, "href": f"https://{self.host}/runs/1"}
        if method == "POST":
            self.dbt_runs.append(int(path.rstrip("/").split("/")[-2]))
        return {"data": run, "status": {"code": 200}}


def _handler_of(services: OtherServices) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = services.answer(self.command, self.path, body)
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            """Log nothing."""

    return Handler
