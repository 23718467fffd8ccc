from __future__ import annotations

from collections.abc import Iterator

import pytest

from planasonix_provider.waiting import cancellation
from tests.support.airflow_tasks import AirflowTasks


@pytest.fixture
def airflow_tasks(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowTasks]:
    """A database without tasks and records."""
    # Airflow 3 reads connections and variables from its database only in server processes, and in the command line.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    tasks = AirflowTasks()
    yield tasks
    tasks.forget()


@pytest.fixture(autouse=True)
def _frequent_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often, because the simulator's jobs are short."""
    monkeypatch.setattr(cancellation, "CANCEL_POLL_INTERVAL_SECONDS", 0.05)
