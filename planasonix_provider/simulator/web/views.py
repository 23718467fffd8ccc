"""The values that the templates show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from planasonix_provider.api.models import Job, JobResults
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.simulator.web.render import path_segment
from planasonix_provider.simulator.workspace import JobSnapshot

#: The labels of the metadata that operators send.
_TASK_LABELS = {"dag_id": "DAG", "task_id": "Task", "run_id": "Run", "try_number": "Try", "map_index": "Map index"}


@dataclass(frozen=True)
class JobRow:
    """A job in a list."""

    id: str
    type: str
    status: str
    percent: int
    rows_loaded: int
    connection_id: str
    created_at: datetime

    @classmethod
    def of(cls, snapshot: JobSnapshot) -> JobRow:
        """Return the row of a job."""
        job, now, _ = snapshot
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

    ``error_code`` is that of its plan; ``results`` are ``None`` while it is active.
    """

    row: JobRow
    job: Job
    error_code: str
    results: JobResults | None
    backfill_id: str | None

    @classmethod
    def of(cls, snapshot: JobSnapshot) -> JobView:
        """Return the view of a job."""
        simulated, now, backfill_id = snapshot
        job = simulated.model_at(now)
        results = simulated.results_at(now) if job.status in JOB_OVER else None
        return cls(JobRow.of(snapshot), job, simulated.plan.code, results, backfill_id)

    @property
    def has_ended(self) -> bool:
        return self.results is not None

    @property
    def can_change(self) -> bool:
        """Whether the job can be cancelled, made to fail or slowed."""
        return not self.has_ended and self.job.cancel_requested_at is None


@dataclass(frozen=True)
class TaskReference:
    """The Airflow task in some metadata: its values by label, and the URL of its page if that is known."""

    facts: Mapping[str, str]
    url: str | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None, airflow_url: str | None) -> TaskReference | None:
        """Return the task; ``None`` if the metadata has no DAG."""
        values = {
            name: str(value) for name, value in (metadata or {}).items() if isinstance(value, str | int) and value != ""
        }
        if "dag_id" not in values:
            return None
        if values.get("map_index") == "-1":
            values["map_index"] = "not mapped"
        facts = {label: values[name] for name, label in _TASK_LABELS.items() if name in values}
        return cls(facts, _task_url(values, airflow_url))


def format_metadata(metadata: Mapping[str, Any] | None) -> str | None:
    """Return metadata as indented JSON; ``None`` if there is none."""
    return json.dumps(metadata, indent=2, ensure_ascii=False, default=str) if metadata else None


def check_airflow_url(url: str | None) -> str | None:
    """Return Airflow's URL, or raise ``ValueError`` if it is not one of HTTP: it becomes a link."""
    try:
        parts = urlsplit(url) if url is not None else None
    except ValueError:
        parts = urlsplit("")
    if parts is not None and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError(f"airflow_url: got {url!r}, allowed is an http or https URL.")
    return url


def _task_url(values: Mapping[str, str], airflow_url: str | None) -> str | None:
    """Return the URL of a task's try in Airflow 3."""
    if airflow_url is None or not {"run_id", "task_id"} <= values.keys():
        return None
    dag, run, task = (path_segment(values[name]) for name in ("dag_id", "run_id", "task_id"))
    path = f"/dags/{dag}/runs/{run}/tasks/{task}"
    if values.get("map_index", "").isdecimal():
        path += f"/mapped/{values['map_index']}"
    query = f"?{urlencode({'try_number': values['try_number']})}" if "try_number" in values else ""
    return f"{airflow_url.rstrip('/')}{path}{query}"
