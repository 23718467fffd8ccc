"""A complete local Airflow 3: API server with the UI, scheduler, DAG processor and triggerer."""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, Self

import httpx
from pydantic import SecretStr

from dev.other_services import OtherServices
from dev.processes import (
    EXAMPLE_DAGS,
    EXAMPLE_PLUGINS,
    ROOT,
    airflow_environment,
    end,
    end_on_sigterm,
    free_port,
    is_free,
    start,
    tail,
)
from planasonix_provider.api.client import Client, ClientConfig
from planasonix_provider.secret_stores.stored_secret import StoredSecret
from planasonix_provider.simulator import Simulator

WELCOME = """
Ready after {seconds:.0f} s.

  Airflow      {airflow.url} (no login; its logs are in .airflow/logs, its DAGs in example_dags)
  Planasonix   {planasonix.url} (simulated; API key {planasonix.api_key})

What to try
  - Switch on the DAG planasonix_nightly_sync, beside its name; a run starts at once:
      {airflow.url}/dags/planasonix_nightly_sync
  - Read the log of its task load_orders, and follow its button "Open in Planasonix".
  - Watch its job in Browse > Planasonix, and cancel it there:
      {airflow.url}/plugin/planasonix?view=jobs&state=all
  - Switch on all other DAGs, too: each has its own Planasonix connections, so they run together.
  - Let the next poll of a job fail; the task continues:
      curl {planasonix.url}/_simulator/faults \\
        -d '{{"kind": "status", "status": 503, "route": "get_job"}}'
  - Let the next job fail; the task logs the reason, and Airflow retries it after five minutes:
      curl {planasonix.url}/_simulator/plans \\
        -d '{{"connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1", "outcome": "failed"}}'
  - Edit the connection planasonix_default:
      {airflow.url}/connections

Ctrl-C ends both.
"""

#: The extra of the Airflow connection planasonix_orders, a webhook receiver.
RECEIVER = {"asset": "orders_ready", "kept_in": "variable:planasonix_orders_secret", "events": "job.succeeded"}


class LocalAirflowError(Exception):
    """Airflow did not start, one of its components ended, or its API returned an error."""


class LocalAirflow:
    """An Airflow with its database and logs in ``home``; as a context manager, it runs inside the block.

    ``env`` adds to the settings, or overrides them. ``python`` is the interpreter of an environment with Airflow, which
    may be another version than the caller's.
    """

    components: Collection[str] = ("api-server", "scheduler", "dag-processor", "triggerer")
    health_path = "/api/v2/monitor/health"
    api_path = "/api/v2"

    def __init__(
        self,
        home: Path,
        *,
        dags: Path = EXAMPLE_DAGS,
        env: dict[str, str] | None = None,
        python: str | Path = sys.executable,
        port: int | None = None,
    ) -> None:
        self.home = home.absolute()
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        self.python = python
        self.env = airflow_environment(self.home, dags) | self._settings() | (env or {})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _settings(self) -> dict[str, str]:
        return {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(EXAMPLE_PLUGINS),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            # SQLite has one writer at a time. The others wait a minute instead of failing after five seconds.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
            # Another Airflow may use the default ports of the log servers.
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, patience: float = 180) -> None:
        """Create the database, start every component, and return when all are healthy."""
        if not is_free(self.port):
            raise LocalAirflowError(
                f"Port {self.port} is taken, by another Airflow perhaps. Name a free one: make airflow PORT=8081"
            )
        self._start("db-migrate", "db", "migrate")
        if self.processes["db-migrate"].wait():
            self.check()
        del self.processes["db-migrate"]
        for name in self.components:
            self._start(name, name)
        self._wait_until_healthy(time.monotonic() + patience)

    def restart(self, name: str) -> None:
        """End a component if it still runs, and start it again."""
        end(self.processes[name])
        self._start(name, name)

    def stop(self) -> None:
        """End every component and all processes that they started."""
        end(*self.processes.values())
        self.processes.clear()

    def check(self) -> None:
        """Raise if a component has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise LocalAirflowError(
                    f"The end of {self.log(name)}:\n{tail(self.log(name))}\n\n"
                    f"{name} ended with exit code {process.returncode}."
                )

    def log(self, name: str) -> Path:
        """Return the path of a component's log."""
        return self.home / "logs" / f"{name}.log"

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Call a route of the REST API, such as ``dags/my_dag/dagRuns``, and return the content of its response."""
        answer = self.request(method, path, body)
        if answer.is_error:
            raise LocalAirflowError(f"{method} {path} was answered with {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None

    def request(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """Call a route of the REST API, and return the response with any status."""
        url = f"{self.url}{self.api_path}/{path}"
        return httpx.request(method, url, json=body, headers=self._headers() | headers, timeout=120)

    def health(self) -> dict[str, Any]:
        """Return the health of each component."""
        return dict(httpx.get(f"{self.url}{self.health_path}", timeout=10).raise_for_status().json())

    def create(self, kind: str, entity: dict[str, Any]) -> None:
        """Create or replace a connection, a variable or a pool."""
        action = {"action": "create", "action_on_existence": "overwrite", "entities": [entity]}
        self.api("PATCH", kind, {"actions": [action]})

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    @cached_property
    def _token(self) -> str:
        return str(httpx.get(f"{self.url}/auth/token", timeout=120).raise_for_status().json()["access_token"])

    def _start(self, name: str, *command: str) -> None:
        self.processes[name] = start([self.python, "-m", "airflow", *command], self.env, self.log(name))

    def _wait_until_healthy(self, deadline: float) -> None:
        sick: object = "the API server does not answer"
        while time.monotonic() < deadline:
            self.check()
            try:
                sick = sorted(name for name, part in self.health().items() if part["status"] != "healthy")
            except httpx.HTTPError as error:
                sick = error
            else:
                if not sick:
                    return
            time.sleep(0.5)
        raise LocalAirflowError(f"Airflow was not healthy in time ({sick}). Its logs are in {self.home / 'logs'}.")


def add_connection(airflow: LocalAirflow, name: str, fields: dict[str, Any]) -> None:
    """Store a connection in Airflow's database. ``fields`` are those of the JSON form of a connection."""
    extra = json.dumps(fields.get("extra") or {})
    airflow.create("connections", fields | {"connection_id": name, "extra": extra})


def prepare_examples(airflow: LocalAirflow, planasonix: Simulator) -> None:
    """Create the Airflow connections and the pool that the example DAGs need, and plan the tables that they expect."""
    planasonix.plan("conn_demo_38", tables={"public.orders": 44_802, "public.customers": 5_012}, times=None)
    planasonix.plan("conn_demo_40", tables={"public.orders": 44_802, "public.order_items": 97_310}, times=None)
    add_connection(airflow, "planasonix_default", planasonix.airflow_connection())
    # The port is for the button Test of Airflow 3.3.1 and 3.3.2.
    add_connection(airflow, "planasonix_orders", {"conn_type": "planasonix_webhook", "port": 443, "extra": RECEIVER})
    # With a webhook and its secret, the button Test of planasonix_orders succeeds before the DAG has run.
    with Client(ClientConfig(api_key=SecretStr(planasonix.api_key), base_url=planasonix.url)) as client:
        webhook = client.create_webhook(
            url=f"{airflow.url}/planasonix/webhook/planasonix_orders", events=["job.succeeded"]
        )
    secret = StoredSecret(webhook.id, webhook.signing_secret).to_json()
    airflow.create("variables", {"key": "planasonix_orders_secret", "value": secret})
    airflow.create("pools", {"name": "planasonix", "slots": 5, "include_deferred": True})


def run(airflow: LocalAirflow) -> NoReturn:
    """Run Airflow and the simulator until a component or this process ends."""
    print("Starting a simulated Planasonix and Airflow, which takes about half a minute.", flush=True)
    began = time.monotonic()
    with (
        TemporaryDirectory() as folder,
        OtherServices(Path(folder)) as others,
        Simulator(job_seconds=20, queued_seconds=3, airflow_url=airflow.url) as planasonix,
    ):
        airflow.env |= {**others.environment, "PLANASONIX_HOST": planasonix.url.removeprefix("http://")}
        with airflow:
            prepare_examples(airflow, planasonix)
            print(WELCOME.format(airflow=airflow, planasonix=planasonix, seconds=time.monotonic() - began), flush=True)
            while True:
                airflow.check()
                time.sleep(1)


def main() -> int:
    """Run Airflow and a simulated Planasonix until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=8080, help="the port of the UI")
    end_on_sigterm()
    try:
        run(LocalAirflow(ROOT / ".airflow", port=parser.parse_args().port))
    except LocalAirflowError as error:
        print(f"\n{error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
