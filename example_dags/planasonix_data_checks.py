"""Fail if an expected table got no rows, or if Planasonix reports a warning that needs a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

EXPECTED_TABLES = {"public.orders", "public.order_items"}
SERIOUS_WARNINGS = {"column_dropped", "column_type_widened"}

with DAG(
    dag_id="planasonix_data_checks",
    schedule="@daily",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    load = PlanasonixSyncOperator(task_id="load", connection_id="conn_demo_40", retries=2, deferrable=True)

    @task
    def check(job: dict[str, Any]) -> None:
        """Raise an error that names each problem. A retry would load nothing else, so there is none."""
        filled = {table["name"] for table in job["tables"] if table["rows_loaded"]}
        problems = [f"table {name} got no rows" for name in sorted(EXPECTED_TABLES - filled)]
        problems += [
            f"warning {warning['code']}: {warning['message']}"
            for warning in job["warnings"]
            if warning["code"] in SERIOUS_WARNINGS
        ]
        if problems:
            raise AirflowFailException(f"{job['job_url']}: {'; '.join(problems)}")

    check(load.output)
