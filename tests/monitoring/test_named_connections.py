from __future__ import annotations

from collections.abc import Callable

import pytest

from planasonix_provider.monitoring.named_connections import read_named_conn_ids
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.task_rows import TaskRows


@pytest.fixture(autouse=True)
def _two_connections(secrets_backend: Callable[..., None]) -> None:
    """Two connections in a secrets backend, one of which is not of the type Planasonix."""
    secrets_backend(planasonix_vault={"conn_type": "planasonix"}, postgres_vault={"conn_type": "postgres"})


def test_a_waiting_task_names_its_connection(task_rows: TaskRows) -> None:
    assert read_named_conn_ids() == frozenset()
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1", planasonix_conn_id="planasonix_vault"))
    assert read_named_conn_ids() == {"planasonix_vault"}


@pytest.mark.parametrize("state", ["running", "up_for_retry", "failed"])
def test_a_record_names_its_connection(airflow_tasks: AirflowTasks, state: str) -> None:
    key = airflow_tasks.add(key_of(), state)
    airflow_tasks.store(record_of(key, "job_1", planasonix_conn_id="planasonix_vault"))
    assert read_named_conn_ids() == {"planasonix_vault"}


def test_the_record_of_a_job_that_must_run_on_names_nothing(airflow_tasks: AirflowTasks) -> None:
    key = airflow_tasks.add(key_of(), "failed")
    airflow_tasks.store(record_of(key, "job_1", planasonix_conn_id="planasonix_vault", cancel_on_kill=False))
    assert read_named_conn_ids() == frozenset()


@pytest.mark.parametrize("conn_id", ["postgres_vault", "missing", "planasonix_default"])
def test_only_planasonix_connections_that_cannot_be_listed_are_named(task_rows: TaskRows, conn_id: str) -> None:
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1", planasonix_conn_id=conn_id))
    assert read_named_conn_ids() == frozenset()
