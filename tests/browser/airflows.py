"""Local Airflows of each supported version for the browser tests."""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path

import httpx

from dev.local_airflow import LocalAirflow
from dev.local_airflow_2 import LocalAirflow2
from dev.processes import ROOT

#: The supported versions, the oldest first.
VERSIONS = sorted(
    (path.stem.removeprefix("airflow-") for path in (ROOT / "constraints").glob("airflow-[0-9]*.txt")),
    key=lambda version: [int(part) for part in version.split(".")],
)
NEWEST = VERSIONS[-1]
DAGS = Path(__file__).parent / "dags"

#: The users of Airflow 3. The name of each is also its role and its password.
USERS = ("admin", "viewer")


class LocalAirflow3(LocalAirflow):
    """Airflow 3 with logins."""

    def _settings(self) -> dict[str, str]:
        return super()._settings() | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{user}" for user in USERS),
        }

    def start(self, patience: float = 180) -> None:
        """Write the passwords, then start."""
        (self.home / "passwords.json").write_text(json.dumps({user: user for user in USERS}))
        super().start(patience)

    def log_in(self, user: str) -> str:
        """Return a user's token; the UI reads it from the cookie ``_token``."""
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user}, timeout=120)
        return str(answer.raise_for_status().json()["access_token"])

    @cached_property
    def _token(self) -> str:
        return self.log_in("admin")


def airflow_of(version: str, home: Path, env: dict[str, str]) -> LocalAirflow:
    """Return an Airflow of a version in its own environment, without DAGs; :func:`add_dags` adds them."""
    kind = LocalAirflow2 if version.startswith("2.") else LocalAirflow3
    # The Makefile makes these environments.
    environment = ROOT / (".venv" if version == NEWEST else f".venvs/{version}")
    dags = home / "dags"
    dags.mkdir()
    return kind(home, dags=dags, env=env, python=environment / "bin" / "python")


def add_dags(airflow: LocalAirflow) -> None:
    """Add the DAGs. Their runs start at once, so everything that the tasks need must already run."""
    shutil.copytree(DAGS, airflow.env["AIRFLOW__CORE__DAGS_FOLDER"], dirs_exist_ok=True)
