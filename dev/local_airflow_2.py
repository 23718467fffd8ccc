"""A complete local Airflow 2: webserver, scheduler, DAG processor and triggerer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dev.local_airflow import LocalAirflow, LocalAirflowError

_OPEN_TO_ALL = 'AUTH_ROLE_PUBLIC = "Admin"\nWTF_CSRF_ENABLED = True\n'


class LocalAirflow2(LocalAirflow):
    """Airflow 2, without a login. Some routes and bodies of its REST API differ from those of Airflow 3."""

    components = ("webserver", "scheduler", "dag-processor", "triggerer")
    health_path = "/health"
    api_path = "/api/v1"

    def _settings(self) -> dict[str, str]:
        kept = ("CORE__EXECUTOR", "CORE__PARALLELISM", "CORE__TEST_CONNECTION", "LOGGING__")
        settings = super()._settings()
        return {name: value for name, value in settings.items() if name.removeprefix("AIRFLOW__").startswith(kept)} | {
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",  # asks for no login
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__STANDALONE_DAG_PROCESSOR": "True",
            "AIRFLOW__WEBSERVER__BASE_URL": self.url,
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(self.port),
            "AIRFLOW__WEBSERVER__WORKERS": "1",
        }

    def start(self, patience: float = 300) -> None:
        """Make every visitor of the UI an admin, then start."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "webserver_config.py").write_text(_OPEN_TO_ALL)
        dags = Path(self.env["AIRFLOW__CORE__DAGS_FOLDER"])
        if not any(dags.glob("*.py")):
            # The DAG processor ends if no file of the folder looks like a DAG.
            (dags / "none.py").write_text("# This file mentions Airflow and has no DAG.\n")
        super().start(patience)

    def create(self, kind: str, entity: dict[str, Any]) -> None:
        """Create or replace a connection, a variable or a pool."""
        key = next(key for key in ("connection_id", "key", "name") if key in entity)
        existing = self.request("PATCH", f"{kind}/{entity[key]}", entity)
        if existing.status_code == 404:
            self.api("POST", kind, entity)
        elif existing.is_error:
            raise LocalAirflowError(f"PATCH {kind} was answered with {existing.status_code}: {existing.text}")

    def _headers(self) -> dict[str, str]:
        return {}
