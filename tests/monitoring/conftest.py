from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import cancellation
from tests.support.airflow_tasks import AirflowTasks
from tests.support.attempts import take
from tests.support.planted_tasks import PlantedTasks
from tests.support.task_rows import TaskRows

# Airflow 2 has no page; its command line shows connections and waiting tasks only.
collect_ignore = [] if AIRFLOW_V_3_0_PLUS else ["test_history.py", "test_receivers.py", "test_tasks.py"]


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


@pytest.fixture
def task_rows(airflow_db: None) -> Iterator[TaskRows]:
    """Adds tasks to Airflow's database, which has none otherwise."""
    rows = TaskRows()
    rows.forget()
    yield rows
    rows.forget()


@pytest.fixture
async def reader(simulator: Simulator) -> AsyncIterator[ApiReader]:
    """Sends requests to the simulator."""
    reader = ApiReader(PlanasonixHook().settings)
    yield reader
    await reader.close()


@pytest.fixture
def planted(airflow_tasks: AirflowTasks, simulator: Simulator) -> PlantedTasks:
    """Adds tasks whose jobs run long."""
    take(simulator, 3600)
    simulator.workspace.configure(conflict="allowed")
    return PlantedTasks(airflow_tasks, simulator)
