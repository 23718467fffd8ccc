"""Load the shop's tables, then build the dbt models that read them: two DAGs that an asset connects."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator

from planasonix_provider.assets.planasonix import DEFAULT_HOST, planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

CONNECTION = "conn_demo_38"
HOST = os.environ.get("PLANASONIX_HOST", DEFAULT_HOST)

orders = planasonix_asset(connection_id=CONNECTION, table="public.orders", host=HOST)
customers = planasonix_asset(connection_id=CONNECTION, table="public.customers", host=HOST)

with DAG(
    dag_id="planasonix_sync_then_dbt",
    schedule="@daily",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    PlanasonixSyncOperator(
        task_id="load_shop",
        connection_id=CONNECTION,
        outlets=[orders, customers],  # an event for each table that the sync has loaded
        retries=2,
        deferrable=True,
    )

with DAG(
    dag_id="planasonix_dbt_build",
    schedule=[orders, customers],  # after both tables were loaded
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as build:
    DbtCloudRunJobOperator(
        task_id="build_models",
        dbt_cloud_conn_id="dbt_cloud_default",
        job_id=1234,
        check_interval=10,
        deferrable=True,
    )
