"""Clients for the routes of Airflow's REST API that differ between versions."""

from __future__ import annotations

import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2

from dev.local_airflow import LocalAirflow
from dev.local_airflow_2 import LocalAirflow2


def run_airflow(airflow: LocalAirflow, *arguments: str) -> None:
    """Run a command of Airflow's command line."""
    command = [airflow.python, "-m", "airflow", *arguments]
    done = subprocess.run(command, env=airflow.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def query_database(airflow: LocalAirflow, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows that Airflow's database finds."""
    database = airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


@dataclass(frozen=True)
class LogLine:
    """A line of a task's log. ``details`` has exceptions and the reason for a skip."""

    event: str
    timestamp: datetime | None = None
    details: list[str] = field(default_factory=list)


class Rest(ABC):
    """A client of the REST API. ``task`` is the path of a task instance without its map index."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self._airflow = airflow
        self._api = airflow.api

    @abstractmethod
    def start_run(self, dag_id: str, conf: dict[str, object], partition_key: str | None) -> str:
        """Start a DAG run, and return its id."""

    @abstractmethod
    def set_state(self, task_instance: str, state: str) -> None:
        """Set a task's state, as the UI does."""

    @abstractmethod
    def clear(self, dag_id: str, run_id: str, *, only_failed: bool) -> None:
        """Clear the tasks of a DAG run."""

    @abstractmethod
    def xcom(self, task: str, key: str, map_index: int) -> Any:
        """Return the value of an XCom."""

    @abstractmethod
    def links(self, task: str, map_index: int) -> dict[str, str | None]:
        """Return the URL of each extra link."""

    @abstractmethod
    def log_lines(self, task: str, try_number: int, map_index: int) -> list[LogLine]:
        """Return the log of a try."""

    @abstractmethod
    def assets(self, pattern: str) -> list[dict[str, Any]]:
        """Return the assets whose URIs contain the pattern."""

    @abstractmethod
    def events(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the asset events of a DAG run, each with the asset's ``uri``."""

    @abstractmethod
    def alive_triggerers(self) -> list[int]:
        """Return the ids of the triggerers with a recent heartbeat."""


def read_asset_events(airflow: LocalAirflow, **query: object) -> dict[str, Any]:
    """Return a page of asset events. Airflow 3 returns 500 while a DAG run that an event created has no start date."""
    path = f"assets/events?{urlencode(query)}"
    deadline = time.monotonic() + 30
    while (response := airflow.request("GET", path)).status_code == 500 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert response.is_success, response.text
    return dict(response.json())


class RestV2(Rest):
    """The REST API of Airflow 3."""

    def start_run(self, dag_id: str, conf: dict[str, object], partition_key: str | None) -> str:
        body = {"logical_date": None, "conf": conf} | ({"partition_key": partition_key} if partition_key else {})
        return str(self._api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def set_state(self, task_instance: str, state: str) -> None:
        self._api("PATCH", task_instance, {"new_state": state})

    def clear(self, dag_id: str, run_id: str, *, only_failed: bool) -> None:
        body = {"dag_run_id": run_id, "only_failed": only_failed, "dry_run": False}
        self._api("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def xcom(self, task: str, key: str, map_index: int) -> Any:
        return self._api("GET", f"{task}/xcomEntries/{key}?map_index={map_index}")["value"]

    def links(self, task: str, map_index: int) -> dict[str, str | None]:
        return dict(self._api("GET", f"{task}/links?map_index={map_index}")["extra_links"])

    def log_lines(self, task: str, try_number: int, map_index: int) -> list[LogLine]:
        answer = self._api("GET", f"{task}/logs/{try_number}?full_content=true&map_index={map_index}")
        return [self._log_line(line) for line in answer["content"]]

    @staticmethod
    def _log_line(line: dict[str, Any]) -> LogLine:
        timestamp = line.get("timestamp")
        # Airflow 3.0 omits the time zone of some lines.
        time = datetime.fromisoformat(timestamp) if timestamp else None
        details = [error["exc_value"] for error in line.get("error_detail") or ()]
        reason = [line["reason"]] if "reason" in line else []
        return LogLine(line["event"], time and (time if time.tzinfo else time.replace(tzinfo=UTC)), details + reason)

    def assets(self, pattern: str) -> list[dict[str, Any]]:
        return list(self._api("GET", f"assets?limit=1000&uri_pattern={quote(pattern)}")["assets"])

    def events(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while True:
            query = {"source_dag_id": dag_id, "source_run_id": run_id, "limit": 100, "offset": len(events)}
            page = read_asset_events(self._airflow, **query)
            events += page["asset_events"]
            if len(events) >= page["total_entries"]:
                return events

    def alive_triggerers(self) -> list[int]:
        jobs = self._api("GET", "jobs?job_type=TriggererJob&is_alive=true&limit=100")["jobs"]
        return [job["id"] for job in jobs]


class RestV1(Rest):
    """The REST API of Airflow 2, whose assets are datasets."""

    #: [2026-11-27T10:00:00.123+0000] {planasonix.py:120} INFO - Started job …
    _LINE = re.compile(r"\[(\d{4}-\S+)\] \{[^}]*\} [A-Z]+ - (.*)")

    def start_run(self, dag_id: str, conf: dict[str, object], partition_key: str | None) -> str:
        assert partition_key is None
        return str(self._api("POST", f"dags/{dag_id}/dagRuns", {"conf": conf})["dag_run_id"])

    def set_state(self, task_instance: str, state: str) -> None:
        self._api("PATCH", task_instance, {"new_state": state, "dry_run": False})

    def clear(self, dag_id: str, run_id: str, *, only_failed: bool) -> None:
        """Clear with a command: the route does not store the new state of a running task."""
        date = self._api("GET", f"dags/{dag_id}/dagRuns/{run_id}")["logical_date"]
        period = ["--start-date", date, "--end-date", date, *(["--only-failed"] if only_failed else [])]
        run_airflow(self._airflow, "tasks", "clear", dag_id, "--yes", *period)

    def xcom(self, task: str, key: str, map_index: int) -> Any:
        return self._api("GET", f"{task}/xcomEntries/{key}?map_index={map_index}&stringify=false")["value"]

    def links(self, task: str, map_index: int) -> dict[str, str | None]:
        return dict(self._api("GET", f"{task}/links?map_index={map_index}"))

    def log_lines(self, task: str, try_number: int, map_index: int) -> list[LogLine]:
        path = f"{task}/logs/{try_number}?full_content=true&map_index={map_index}"
        answer = self._airflow.request("GET", path, Accept="text/plain").raise_for_status()
        return list(self._parse(answer.text))

    def _parse(self, log: str) -> Iterator[LogLine]:
        line = LogLine("")
        for text in log.splitlines():
            if match := self._LINE.match(text):
                yield line
                line = LogLine(match[2], datetime.fromisoformat(match[1]))
            else:
                line.details.append(text)
        yield line

    def assets(self, pattern: str) -> list[dict[str, Any]]:
        return list(self._api("GET", f"datasets?limit=1000&uri_pattern={quote(pattern)}")["datasets"])

    def events(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        query = urlencode({"source_dag_id": dag_id, "source_run_id": run_id, "limit": 1000})
        events = self._api("GET", f"datasets/events?{query}")["dataset_events"]
        return [event | {"uri": event["dataset_uri"]} for event in events]

    def alive_triggerers(self) -> list[int]:
        """Read the database, because no route returns triggerers."""
        seconds = float(self._airflow.env.get("AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD", 30))
        statement = """
            SELECT id FROM job WHERE job_type = 'TriggererJob' AND state = 'running'
            AND latest_heartbeat > now() - %s * interval '1 second'
        """
        return [id_ for (id_,) in query_database(self._airflow, statement, seconds)]


def rest_of(airflow: LocalAirflow) -> Rest:
    """Return a client of an Airflow's REST API."""
    return RestV1(airflow) if isinstance(airflow, LocalAirflow2) else RestV2(airflow)
