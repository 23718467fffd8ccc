"""DAGs that are edited while they run: what a test changes in them is read when their file is parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dev.local_airflow import LocalAirflow
from tests.system.runs import wait_until


def _file_of(home: Path, dag_id: str) -> Path:
    return home / f"edits_of_{dag_id}.json"


def edits_of(dag_id: str) -> dict[str, Any]:
    """Return what the DAG's task has by now, in a process of Airflow that parses the DAG."""
    file = _file_of(Path(os.environ["AIRFLOW_HOME"]), dag_id)
    return dict(json.loads(file.read_text())) if file.exists() else {}


def edit(airflow: LocalAirflow, dag_id: str, **parameters: Any) -> None:
    """Edit the DAG; every process that parses it from now on sees the edit."""
    file = _file_of(airflow.home, dag_id)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(parameters))
    unfinished.replace(file)


def edit_retries(airflow: LocalAirflow, dag_id: str, retries: int) -> None:
    """Edit the retries of the DAG's task, and wait until Airflow has stored the new DAG."""
    edit(airflow, dag_id, retries=retries)
    wait_until(
        lambda: airflow.api("GET", f"dags/{dag_id}/tasks/sync")["retries"] == retries,
        f"Airflow has stored {dag_id} with retries={retries}",
    )
