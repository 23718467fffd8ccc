"""Helpers to start the DAGs in ``dags/`` and to read their runs through the REST API."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import psutil
import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.clock import utcnow
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.attempt import RECORD_KEY
from tests.system.rest import LogLine, rest_of, run_airflow

T = TypeVar("T")

#: The installed version of Airflow, such as ``(3, 3)``.
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: https://github.com/apache/airflow/issues/55045
CLEARS_RUNNING_TASKS = AIRFLOW != (3, 0)
clears_running_tasks = pytest.mark.skipif(
    not CLEARS_RUNNING_TASKS, reason="Airflow 3.0 does not rerun a task that is cleared while it runs"
)
needs_watchers = pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has no asset watchers")
needs_partitions = pytest.mark.skipif(AIRFLOW < (3, 3), reason="asset partitions need Airflow 3.3")

#: The heartbeat timeouts of tasks and triggerers in some tests, and in all on Airflow 3.0. By default, they are 300 and
#: 30 seconds.
HEARTBEAT_TIMEOUT_SECONDS = 40 if AIRFLOW == (3, 0) else 20
SHORT_TIMEOUTS = (
    {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_SECONDS),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    }
    if AIRFLOW >= (3, 0)
    else {
        "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": str(HEARTBEAT_TIMEOUT_SECONDS),
        "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
    }
) | {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEARTBEAT_TIMEOUT_SECONDS)}

#: On an idle machine, most steps of Airflow take a few seconds.
TIMEOUT_SECONDS = 180.0

#: The scheduler creates due runs about once a second.
SETTLE_SECONDS = 5

WAYS = ("on_a_worker", "deferred")
#: The state of a task that waits for its job.
WAITING_STATE = {"on_a_worker": "running", "deferred": "deferred"}

#: The modes of a sensor.
SENSOR_MODES = ("poke", "reschedule", "deferred")
#: The number of times that a task polls its work before it defers.
POLLS_BY_TASK = 1

#: A pool with one slot, which a test fills with another task.
ONE_SLOT = "one_slot"
#: The timeouts of a DAG run, and of tasks that wait on a worker or deferred.
RUN_TIMEOUT = timedelta(seconds=45)
TIME_LIMITS = {"on_a_worker": timedelta(seconds=20), "deferred": timedelta(seconds=45)}

# These patterns find the provider's lines by their texts, because not all versions of Airflow store the logger's name.
# In Airflow 2, the processes that run tasks are called jobs, too.
_OURS = re.compile(r"(.*\b([Jj]ob|[Bb]ackfill)\b|.*Planasonix|Loaded |No sync )", re.DOTALL)
_AIRFLOWS = re.compile(r"Executing <|Failed to execute job \d|Job \d+: Subtask |Running: |Trigger \S+ ")


class Clock:
    """This machine's clock. A test moves it ahead to end jobs that run for hours."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utcnow() + self.ahead


def wait_until(condition: Callable[[], T], what: str, timeout: float = TIMEOUT_SECONDS, every: float = 0.1) -> T:
    """Wait until the condition is true, and return its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(every)
    return value


def count_polls(simulator: Simulator, work_id: str) -> int:
    """Count the polls of a job or a backfill."""
    return sum(request.method == "GET" and request.path.endswith(f"/{work_id}") for request in simulator.requests)


def dag_runs(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    """Return the runs of a DAG, oldest first."""
    return list(airflow.api("GET", f"dags/{dag_id}/dagRuns?limit=200&order_by=id")["dag_runs"])


def runs_by_key(airflow: LocalAirflow, dag_id: str) -> Counter[tuple[str | None, str]]:
    """Count the runs of a DAG by partition key and state."""
    return Counter((run.get("partition_key"), run["state"]) for run in dag_runs(airflow, dag_id))


def expect_runs(airflow: LocalAirflow, dag_id: str, keys: list[str], timeout: float = TIMEOUT_SECONDS) -> None:
    """Wait until each key in ``keys`` has a successful run for each time it is listed, and no other run exists."""
    expected = Counter((key, "success") for key in keys)
    wait_until(lambda: runs_by_key(airflow, dag_id) >= expected, f"{dag_id} runs for {keys}", timeout)
    time.sleep(SETTLE_SECONDS)
    assert runs_by_key(airflow, dag_id) == expected


def create_backfill(airflow: LocalAirflow, dag_id: str, first: str, last: str, *options: str) -> None:
    """Run ``airflow backfill create`` for a period."""
    period = ["--dag-id", dag_id, "--from-date", first, "--to-date", last]
    run_airflow(airflow, "backfill", "create", *period, *options)


@dataclass(frozen=True)
class TaskRun:
    """A task instance of a DAG run."""

    airflow: LocalAirflow
    dag_id: str
    run_id: str
    map_index: int = -1
    task_id: str = "sync"

    @classmethod
    def start(cls, airflow: LocalAirflow, dag_id: str, partition_key: str | None = None, **conf: object) -> TaskRun:
        return cls(airflow, dag_id, rest_of(airflow).start_run(dag_id, conf, partition_key))

    def task(self, task_id: str) -> TaskRun:
        return replace(self, task_id=task_id)

    def mapped(self, count: int = 5) -> list[TaskRun]:
        return [replace(self, map_index=index) for index in range(count)]

    def count(self, state: str) -> int:
        """Count the DAG run's tasks in a state."""
        instances = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances"
        return int(self.airflow.api("GET", f"{instances}?limit=1&state={state}")["total_entries"])

    def indices(self, state: str) -> list[int]:
        """Return the map indices of the DAG run's tasks in a state."""
        instances = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances?limit=100&state={state}"
        return [instance["map_index"] for instance in self.airflow.api("GET", instances)["task_instances"]]

    @property
    def state(self) -> str | None:
        return self.details()["state"]

    @property
    def is_over(self) -> bool:
        return self.state in ("success", "failed", "upstream_failed", "skipped", "removed")

    def details(self) -> dict[str, Any]:
        return self.airflow.api("GET", self._instance)

    @property
    def began_at(self) -> datetime:
        """The time of the first log line: Airflow's start date changes when a sensor is rescheduled."""
        return min(line.timestamp for line in self._log_lines() if line.timestamp)

    @property
    def seconds(self) -> float:
        """The duration since the first log line."""
        return (datetime.fromisoformat(self.details()["end_date"]) - self.began_at).total_seconds()

    def wait_for(self, state: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Wait until the task is in a state. Fail if it ends in another one."""
        wait_until(lambda: self.state == state or self.is_over, f"{self} is {state}", timeout)
        assert self.state == state, self.log()

    def send_sigkill(self) -> None:
        """Kill the task's process, and its supervisor if Airflow retries the task only then."""
        process = psutil.Process(self.details()["pid"])
        for victim in (process.parent(), process) if AIRFLOW == (3, 0) else (process,):
            victim.kill()

    def mark(self, state: str) -> None:
        """Set the task's state, as the UI does."""
        rest_of(self.airflow).set_state(self._instance, state)

    def mark_failed(self) -> None:
        self.mark("failed")

    def mark_succeeded(self) -> None:
        self.mark("success")

    def mark_dag_run_failed(self) -> None:
        self.airflow.api("PATCH", f"dags/{self.dag_id}/dagRuns/{self.run_id}", {"state": "failed"})

    def clear_failed(self) -> None:
        self.clear(only_failed=True)

    def clear(self, *, only_failed: bool = False) -> None:
        rest_of(self.airflow).clear(self.dag_id, self.run_id, only_failed=only_failed)

    def dag_run(self) -> dict[str, Any]:
        return self.airflow.api("GET", f"dags/{self.dag_id}/dagRuns/{self.run_id}")

    @property
    def dag_run_state(self) -> str:
        return self.dag_run()["state"]

    @property
    def has_started_trigger(self) -> bool:
        """Whether a triggerer has started the task's trigger. Before that, Airflow cannot notify it of a kill."""
        return self.trigger_starts > 0

    @property
    def trigger_starts(self) -> int:
        """The number of times that a triggerer has started a trigger of the task."""
        if AIRFLOW < (3, 0):
            # In Airflow 2, only the triggerer's own log shows it.
            return len(re.findall(r"trigger \S+ \(ID \d+\) starting", self._triggerers_log()))
        return sum(bool(re.fullmatch(r"trigger .* starting", line.event)) for line in self._log_lines())

    @property
    def fired_events(self) -> int:
        """The number of events that triggers of the task have fired."""
        # Airflow 3 can close the log of a trigger before it has written the last lines. It then writes them to the
        # triggerer's own log.
        logs = f"{self.log()}\n{self._triggerers_log()}"
        return len(re.findall(r"Trigger (?:fired event|\S+ \(ID \d+\) fired)", logs))

    def _triggerers_log(self) -> str:
        """Return the lines about the task in the triggerers' own logs."""
        name = f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}/"
        logs = (path.read_text() for path in self.airflow.log("triggerer").parent.glob("*triggerer.log"))
        return "\n".join(line for log in logs for line in log.splitlines() if name in line)

    def triggerer(self) -> int | None:
        """Return the id of the triggerer that has the task's trigger."""
        return (self.details()["triggerer_job"] or {}).get("id")

    def xcom(self, key: str = "return_value") -> Any:
        return rest_of(self.airflow).xcom(self._path, key, self.map_index)

    def record(self) -> dict[str, Any] | None:
        """Return the stored record of the task's start."""
        if AIRFLOW >= (3, 3):
            answer = self.airflow.api("GET", f"{self._path}/state-store?map_index={self.map_index}")
            records = [entry["value"] for entry in answer["task_state_store"] if entry["key"] == RECORD_KEY]
        else:
            answer = self.airflow.api("GET", "variables?limit=1000")
            texts = [entry["value"] for entry in answer["variables"] if entry["key"].startswith(f"{RECORD_KEY}_")]
            names = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index}
            records = [record for record in map(json.loads, texts) if names.items() <= record.items()]
        assert len(records) <= 1
        return records[0] if records else None

    def events(self) -> list[dict[str, Any]]:
        """Return the asset events of the DAG run's tasks."""
        return rest_of(self.airflow).events(self.dag_id, self.run_id)

    def event_keys(self) -> list[str | None]:
        """Return the partition keys of the DAG run's asset events, with ``None`` for an event without a key."""
        return sorted((event.get("partition_key") for event in self.events()), key=str)

    def link(self) -> str | None:
        return rest_of(self.airflow).links(self._path, self.map_index)["Open in Planasonix"]

    def log(self) -> str:
        """Return the log of the first try, with messages of exceptions and the reason for a skip."""
        lines = self._log_lines()
        details = [detail for line in lines for detail in line.details]
        return "\n".join([*(line.event for line in lines), *details])

    def provider_log_lines(self, try_number: int = 1) -> list[str]:
        """Return the provider's lines in the log of a try."""
        return [line.event for line in self._log_lines(try_number) if self._is_ours(line.event)]

    @staticmethod
    def _is_ours(event: str) -> bool:
        return bool(_OURS.match(event)) and not _AIRFLOWS.match(event)

    def _log_lines(self, try_number: int = 1) -> list[LogLine]:
        return rest_of(self.airflow).log_lines(self._path, try_number, self.map_index)

    def jobs(self, simulator: Simulator) -> list[Job]:
        """Return the current state of the jobs that the task has started."""
        return [job for job in simulator.jobs() if self._has_started(job)]

    def job(self, simulator: Simulator) -> Job:
        """Wait until the task has started a job, and return the job. Fail if there are several."""
        (job,) = wait_until(partial(self.jobs, simulator), f"{self} starts a job")
        return job

    def backfill(self, simulator: Simulator) -> Backfill:
        """Wait until the task has started a backfill, and return the backfill. Fail if there are several."""
        (backfill,) = wait_until(
            lambda: [backfill for backfill in simulator.backfills() if self._has_started(backfill)],
            f"{self} starts a backfill",
        )
        return backfill

    def _has_started(self, work: Job | Backfill) -> bool:
        names = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index}
        return names.items() <= (work.metadata or {}).items()

    @property
    def _path(self) -> str:
        return f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{self.task_id}"

    @property
    def _instance(self) -> str:
        return self._path if self.map_index < 0 else f"{self._path}/{self.map_index}"

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id} {self.task_id} [{self.map_index}]"
