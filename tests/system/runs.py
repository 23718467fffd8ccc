"""Runs of the DAGs in ``dags/``, as the REST API shows them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Job
from planasonix_provider.simulator import Simulator

T = TypeVar("T")

#: For how many seconds to wait, at the most, for what takes Airflow a few on an idle machine.
PATIENCE = 180.0

WAYS = ("on_a_worker", "deferred")
#: The state of a task that waits for its job.
WAITING = {"on_a_worker": "running", "deferred": "deferred"}

# Not all versions of Airflow keep the name of the logger.
_OURS = re.compile(r"\b[Jj]ob\b|Planasonix|^Loaded ")


def eventually(look: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Look until there is something to see, and give that."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.1)
    return seen


@dataclass(frozen=True)
class TaskRun:
    """The task ``sync`` of a DAG run; of a mapped one, the one at ``map_index``."""

    airflow: LocalAirflow
    dag_id: str
    run_id: str
    map_index: int = -1

    @classmethod
    def start(cls, airflow: LocalAirflow, dag_id: str, **conf: object) -> TaskRun:
        """Start a DAG run."""
        answer = airflow.api("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return cls(airflow, dag_id, answer["dag_run_id"])

    def mapped(self) -> list[TaskRun]:
        """The five tasks that a mapped one becomes."""
        return [replace(self, map_index=index) for index in range(5)]

    @property
    def state(self) -> str | None:
        return self.details()["state"]

    @property
    def is_over(self) -> bool:
        return self.state in ("success", "failed", "upstream_failed", "skipped", "removed")

    def details(self) -> dict[str, Any]:
        mapped = "" if self.map_index < 0 else f"/{self.map_index}"
        return self.airflow.api("GET", f"{self._path}{mapped}")

    def wait_for(self, state: str, patience: float = PATIENCE) -> None:
        """Wait until the task is in a state; one that ends in another will never be."""
        eventually(lambda: self.state == state or self.is_over, f"{self} is {state}", patience)
        assert self.state == state, self.log()

    def mark_failed(self) -> None:
        self.airflow.api("PATCH", self._path, {"new_state": "failed"})

    def xcom(self, key: str = "return_value") -> Any:
        return self.airflow.api("GET", f"{self._path}/xcomEntries/{key}?map_index={self.map_index}")["value"]

    def link(self) -> str | None:
        """Where the task's button leads."""
        answer = self.airflow.api("GET", f"{self._path}/links?map_index={self.map_index}")
        return answer["extra_links"]["Open in Planasonix"]

    def log(self) -> str:
        """The first try's log, whichever process wrote it, with the messages of exceptions."""
        errors = [error["exc_value"] for line in self._log_lines() for error in line.get("error_detail") or ()]
        return "\n".join([*(line["event"] for line in self._log_lines()), *errors])

    def our_lines(self) -> list[str]:
        """The lines of that log which this package has written."""
        return [line["event"] for line in self._log_lines() if _OURS.search(line["event"])]

    def _log_lines(self) -> list[dict[str, Any]]:
        answer = self.airflow.api("GET", f"{self._path}/logs/1?full_content=true&map_index={self.map_index}")
        return list(answer["content"])

    def jobs(self, planasonix: Simulator) -> list[Job]:
        """The jobs that the task has started, as they are now."""
        names = {"dag_id": self.dag_id, "run_id": self.run_id, "map_index": self.map_index}
        return [job for job in planasonix.jobs() if names.items() <= (job.metadata or {}).items()]

    def job(self, planasonix: Simulator) -> Job:
        """The one job that the task has started, as it is now; waits until there is one."""
        (job,) = eventually(partial(self.jobs, planasonix), f"{self} starts a job")
        return job

    @property
    def _path(self) -> str:
        return f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/sync"

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id} [{self.map_index}]"
