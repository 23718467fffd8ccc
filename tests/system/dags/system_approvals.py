"""The example with an approval, as it is."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if AIRFLOW_V_3_1_PLUS:
    from example_dags.planasonix_approved_backfill import dag

    # Airflow finds the DAGs of a file by its global names.
    dag.is_paused_upon_creation = False
