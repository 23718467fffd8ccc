"""What is left of the key when all the other tests are done."""

from __future__ import annotations

import configparser
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.fernet import Fernet

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.runs import TaskRun

#: Where a key could get to by way of a task, a DAG or the REST API.
TABLES = {"dag_run", "log", "rendered_task_instance_fields", "serialized_dag", "task_instance", "trigger", "xcom"}


@pytest.fixture
def database(airflow: LocalAirflow) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True)) as connection:
        yield connection


@pytest.fixture
def fernet(airflow: LocalAirflow) -> Fernet:
    """What Airflow encrypts with; it made the key itself when it wrote its configuration."""
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(airflow.home / "airflow.cfg")
    return Fernet(configuration["core"]["fernet_key"])


def test_there_is_something_to_search(
    airflow: LocalAirflow, planasonix: Simulator, connection_id: str, way: str
) -> None:
    planasonix.plan(connection_id, running_seconds=15)
    run = TaskRun.start(airflow, f"sync_{way}", connection_id=connection_id)
    run.wait_for("success")
    job_id = run.job(planasonix).id.encode()
    assert any(job_id in path.read_bytes() for path in (airflow.home / "logs").rglob("*.log"))


def test_the_connection_is_stored_encrypted(database: sqlite3.Connection, fernet: Fernet) -> None:
    query = "SELECT is_encrypted, password FROM connection WHERE conn_id = 'planasonix_default'"
    is_encrypted, password = database.execute(query).fetchone()
    assert is_encrypted
    assert fernet.decrypt(password.encode()).decode() == API_KEY


def test_what_a_waiting_trigger_was_given_holds_no_key(
    airflow: LocalAirflow, planasonix: Simulator, database: sqlite3.Connection, fernet: Fernet, connection_id: str
) -> None:
    planasonix.plan(connection_id, running_seconds=20)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id)
    run.wait_for("deferred")
    stored = [kwargs for (kwargs,) in database.execute("SELECT kwargs FROM trigger")]
    # Airflow encrypts them, from a version on.
    given = [kwargs if kwargs.startswith("{") else fernet.decrypt(kwargs.encode()).decode() for kwargs in stored]
    assert run.job(planasonix).id in str(given)
    assert API_KEY not in str(given)
    run.wait_for("success")


def test_no_table_holds_the_key(database: sqlite3.Connection) -> None:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= TABLES
    rows = {table: database.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables}
    assert {table for table in TABLES if not rows[table]} <= {"trigger"}
    assert [table for table in sorted(tables) if API_KEY in str(rows[table])] == []


def test_no_file_holds_the_key(airflow: LocalAirflow) -> None:
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"airflow.cfg", "airflow.db", "api-server.log", "triggerer.log"}
    assert [path for path in files if API_KEY.encode() in path.read_bytes()] == []
