"""DAGs of the system tests with asset partitions. The recipes themselves are in ``example_dags/``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AssetAlias, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from planasonix_provider.assets.planasonix import planasonix_asset
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator

HOST = os.environ["PLANASONIX_HOST"]
#: The schedules start no runs by themselves, because their period has passed.
PAST: dict[str, Any] = {
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "end_date": datetime(2024, 12, 31, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
}
replayed = planasonix_asset(connection_id="conn_demo_43", table="public.orders", host=HOST)

start_date = PAST["start_date"]  # needed by Airflow 2
with DAG(
    dag_id="on_any_replay", schedule=[replayed], start_date=start_date, is_paused_upon_creation=False, catchup=False
):

    @task
    def react() -> None:
        """Do nothing. Events with partition keys must not start this DAG."""

    react()

LATER_DAY = "{{ data_interval_end - macros.timedelta(days=1) }}", "{{ data_interval_end }}"
SCHEDULES: dict[str, tuple[Any, tuple[str, str]]] = {"backfilled_days": ("@daily", LATER_DAY)}
if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import CronPartitionTimetable, PartitionedAssetTimetable

    each_day = CronPartitionTimetable("0 0 * * *", timezone="Europe/Berlin")
    window = "macros.planasonix.of_partition(partition_key, every='day', timezone='Europe/Berlin')"
    SCHEDULES["backfilled_partitions"] = each_day, (f"{{{{ {window}.start_at }}}}", f"{{{{ {window}.end_at }}}}")

    alias = AssetAlias("loaded_by_day")
    with DAG(dag_id="partitioned_alias", schedule=each_day, **PAST):
        PlanasonixSyncOperator(
            task_id="sync", connection_id="conn_demo_48", poll_interval=1, deferrable=True, outlets=[alias]
        )
    with DAG(dag_id="on_partitioned_alias", schedule=PartitionedAssetTimetable(assets=alias), **PAST):

        @task
        def print_day(dag_run: Any = None) -> None:
            """Print the day."""
            print(f"Loaded {dag_run.partition_key}")

        print_day()

for dag_id, (schedule, (start_at, end_at)) in SCHEDULES.items():
    with DAG(dag_id=dag_id, schedule=schedule, **PAST):
        PlanasonixBackfillOperator(
            task_id="replay",
            connection_id=f"conn_{dag_id}",
            start_at=start_at,
            end_at=end_at,
            tables=["public.orders"],
            poll_interval=1,
            deferrable=True,
            outlets=[planasonix_asset(connection_id=f"conn_{dag_id}", table="public.orders", host=HOST)],
        )
