"""Cancel the jobs that run on although their tasks are over."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id="planasonix_cancel_orphans",
    schedule="*/30 * * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"older_than": "10m"},
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:
    BashOperator(
        task_id="cancel_orphans",
        # Airflow 3 hides its database from tasks. Then airflow.cfg of the worker must name it.
        bash_command="""
            case "$AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in
                airflow-db-not-allowed*)
                    unset AIRFLOW__DATABASE__SQL_ALCHEMY_CONN AIRFLOW__CORE__SQL_ALCHEMY_CONN ;;
            esac
            python -m planasonix_provider orphans --cancel --older-than "$OLDER_THAN"
        """,
        # A parameter inside the command could run any other command.
        env={"OLDER_THAN": "{{ params.older_than }}"},
        append_env=True,
    )
