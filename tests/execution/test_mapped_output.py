"""Lists from a mapped task, which are Airflow's own kind of sequence."""

from __future__ import annotations

import pytest

from planasonix_provider.testing import Planasonix
from tests.support.dags_folder import load_dags, run_dag
from tests.support.scenarios import CONNECTION

DAG_FILE = f"""
from airflow.providers.common.compat.sdk import DAG, task

from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator

with DAG("mapped_output", schedule=None) as dag:

    @task
    def table(number):
        return f"public.part_{{number}}"

    tables = table.expand(number=[1, 2, 3])
    PlanasonixBackfillOperator(
        task_id="replay",
        connection_id="{CONNECTION}",
        start_at="2025-01-01T00:00:00Z",
        end_at="2025-02-01T00:00:00Z",
        tables=tables,
        metadata={{"parts": tables}},
    )
"""


@pytest.mark.slow("runs a whole DAG")
@pytest.mark.dag
@pytest.mark.usefixtures("dags_folder")
def test_tables_and_metadata_come_from_a_mapped_task(planasonix: Planasonix) -> None:
    planasonix.add_connections(CONNECTION)
    assert run_dag(load_dags("mapped_output", DAG_FILE)["dag"]) == "success"
    parts = ["public.part_1", "public.part_2", "public.part_3"]
    planasonix.assert_started(CONNECTION, kind="backfill", tables=parts, metadata={"parts": parts})
