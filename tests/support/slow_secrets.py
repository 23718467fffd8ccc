"""A slow secrets backend for tests."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from importlib import import_module

from airflow.secrets import BaseSecretsBackend


class SlowBackend(BaseSecretsBackend):
    """Has a few connections, by id; each lookup takes some seconds."""

    #: All names that were looked up, in any instance.
    requested: list[str] = []  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, seconds: float = 0.0, connections: dict[str, dict[str, object]] | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.connections = connections or {}

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        with self._lock:
            self.requested.append(conn_id)
        time.sleep(self.seconds)
        found = self.connections.get(conn_id)
        return json.dumps(found) if found else None

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        return None


def forget_backends() -> None:
    """Make Airflow read its settings of secrets backends again; Airflow 3.3 keeps the first backend that it finds."""
    # `airflow.configuration` keeps a backend that is set when it is imported.
    import_module("airflow.configuration")
    with suppress(ImportError, AttributeError):
        import_module("airflow.sdk.configuration").clear_secrets_backends_cache()
