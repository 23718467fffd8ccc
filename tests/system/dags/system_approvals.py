"""The unchanged example with an approval."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if AIRFLOW_V_3_1_PLUS:
    from example_dags.planasonix_approved_backfill import dag

    # Airflow finds this DAG because it is a global name of this file.
    dag.is_paused_upon_creation = False
