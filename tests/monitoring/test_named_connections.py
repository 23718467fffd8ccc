from __future__ import annotations

import pytest

from planasonix_provider.monitoring.named_connections import read_named_conn_ids
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.task_rows import TaskRows


def test_a_waiting_task_names_its_connection(task_rows: TaskRows) -> None:
    assert read_named_conn_ids() == frozenset()
    task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1", planasonix_conn_id="planasonix_vault"))
    assert read_named_conn_ids() == {"planasonix_vault"}


@pytest.mark.parametrize(
    ("state", "is_named"), [("running", True), ("up_for_retry", True), ("failed", False), ("success", False)]
)
def test_a_record_names_its_connection_until_the_task_is_over(
    airflow_tasks: AirflowTasks, state: str, is_named: bool
) -> None:
    key = airflow_tasks.add(key_of(), state)
    airflow_tasks.store(record_of(key, "job_1", planasonix_conn_id="planasonix_vault"))
    assert bool(read_named_conn_ids()) is is_named
