"""A separate Airflow with its own database for the tests of all DAGs."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

# Airflow reads these variables when it is imported, so set them before any import of Airflow.
HOME = TemporaryDirectory(prefix="airflow-tests-")
os.environ["AIRFLOW_HOME"] = HOME.name
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parent.parent / "example_dags")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


@pytest.fixture(scope="session", autouse=True)
def _airflow_database() -> None:
    """Create the database, as ``airflow db migrate`` does."""
    from airflow.utils.db import initdb

    initdb()
