"""What pages show of a job, a backfill and the task that started it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from planasonix_provider.api.models import Job, JobResults
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.simulator.model.workspace import JobSnapshot
from planasonix_provider.simulator.web.render import path_segment

#: What leads back to Airflow, by the names that the operators send.
_TASK = {"dag_id": "DAG", "task_id": "Task", "run_id": "Run", "try_number": "Try", "map_index": "Map index"}


@dataclass(frozen=True)
class JobRow:
    """A job in a list.

    :param id: its id.
    :param type: its type.
    :param status: its state.
    :param percent: how much of its work is done.
    :param rows_loaded: how many rows it has loaded.
    :param connection_id: the connection that it loads from.
    :param created_at: when it was started.
    """

    id: str
    type: str
    status: str
    percent: int
    rows_loaded: int
    connection_id: str
    created_at: datetime

    @classmethod
    def of(cls, sight: JobSnapshot) -> JobRow:
        """Show a job in short.

        :param sight: the job.
        :return: its row.
        """
        job, now, _ = sight
        return cls(
            id=job.id,
            type=job.type,
            status=job.status_at(now),
            percent=int(100 * job.progress_at(now)),
            rows_loaded=job.rows_loaded_at(now),
            connection_id=job.connection_id,
            created_at=job.created_at,
        )


@dataclass(frozen=True)
class JobView:
    """A job on its own page.

    :param row: what lists show of it.
    :param job: what the API shows of it.
    :param error_code: what it fails of, unless it is told anything else.
    :param results: what it loaded, or ``None`` while it is not over.
    :param backfill_id: the backfill that has made it, or ``None`` if it is a sync.
    """

    row: JobRow
    job: Job
    error_code: str
    results: JobResults | None
    backfill_id: str | None

    @classmethod
    def of(cls, sight: JobSnapshot) -> JobView:
        """Show all there is of a job.

        :param sight: the job.
        :return: the view.
        """
        planned, now, backfill_id = sight
        job = planned.model_at(now)
        results = planned.results_at(now) if job.status in JOB_OVER else None
        return cls(JobRow.of(sight), job, planned.plan.code, results, backfill_id)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.results is not None

    @property
    def is_settled(self) -> bool:
        """Whether its end is certain, so that nobody can change it."""
        return self.is_over or self.job.cancel_requested_at is not None


@dataclass(frozen=True)
class TaskReference:
    """The try of a task that started something, as the metadata tells.

    :param facts: what is known of it, by names for a person.
    :param url: its page in Airflow, or ``None`` where that cannot be known.
    """

    facts: Mapping[str, str]
    url: str | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None, airflow_url: str | None) -> TaskReference | None:
        """Find the task.

        :param metadata: what something was started with.
        :param airflow_url: where Airflow's pages are, or ``None`` if nobody has told.
        :return: the task, or ``None`` if the metadata names no DAG.
        """
        told = {
            name: str(value) for name, value in (metadata or {}).items() if isinstance(value, str | int) and value != ""
        }
        if "dag_id" not in told:
            return None
        if told.get("map_index") == "-1":
            told["map_index"] = "not mapped"
        return cls({label: told[name] for name, label in _TASK.items() if name in told}, _page_of(told, airflow_url))


def as_json(metadata: Mapping[str, Any] | None) -> str | None:
    """Write metadata for a person.

    :param metadata: the metadata.
    :return: the text, or ``None`` if there is none.
    """
    return json.dumps(metadata, indent=2, ensure_ascii=False, default=str) if metadata else None


def _page_of(told: Mapping[str, str], airflow_url: str | None) -> str | None:
    """Tell where Airflow 3 shows a try of a task."""
    if airflow_url is None or not {"run_id", "task_id"} <= told.keys():
        return None
    dag, run, task = (path_segment(told[name]) for name in ("dag_id", "run_id", "task_id"))
    path = f"/dags/{dag}/runs/{run}/tasks/{task}"
    if told.get("map_index", "").isdecimal():
        path += f"/mapped/{told['map_index']}"
    query = f"?{urlencode({'try_number': told['try_number']})}" if "try_number" in told else ""
    return f"{airflow_url.rstrip('/')}{path}{query}"
