"""Edits of DAGs while they run. A test writes new parameters, and the DAG file reads them when it is parsed."""

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
    """Return the edited parameters of a DAG's task, in an Airflow process that parses the DAG."""
    file = _file_of(Path(os.environ["AIRFLOW_HOME"]), dag_id)
    return dict(json.loads(file.read_text())) if file.exists() else {}


def edit(airflow: LocalAirflow, dag_id: str, **parameters: Any) -> None:
    """Edit a DAG. Every process that parses it later sees the edit."""
    file = _file_of(airflow.home, dag_id)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(parameters))
    unfinished.replace(file)


def edit_retries(airflow: LocalAirflow, dag_id: str, retries: int) -> None:
    """Edit the retries of a DAG's task, and wait until Airflow has stored the new DAG."""
    edit(airflow, dag_id, retries=retries)
    wait_until(
        lambda: airflow.api("GET", f"dags/{dag_id}/tasks/sync")["retries"] == retries,
        f"Airflow has stored {dag_id} with retries={retries}",
    )
