"""Run downstream DAGs for each day that was loaded, no matter who has started the load."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, Asset, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow.sdk import AssetWatcher

from planasonix_provider import windows
from planasonix_provider.triggers.planasonix import PlanasonixEventTrigger

watched = Asset(
    "orders_loaded_by_anybody",
    watchers=[
        AssetWatcher(
            name="planasonix",
            trigger=PlanasonixEventTrigger(
                asset="orders_loaded_by_anybody", connection_id="conn_demo_50", poll_interval=5
            ),
        )
    ],
)
orders = Asset("orders_by_day")

if AIRFLOW_V_3_3_PLUS:
    from airflow.sdk import PartitionedAssetTimetable

    each_day: Any = PartitionedAssetTimetable(assets=orders)
else:
    # Before Airflow 3.3, the second DAG runs once, and not once for each day.
    each_day = [orders]


def days_of(payload: dict[str, Any]) -> list[str]:
    """Return the keys of the days that a backfill has loaded, or of the day on which a sync has ended."""
    if payload["type"] == "backfill":
        window = payload["window"]
        days = windows.partitions(window["start_at"], window["end_at"], every="day", partial="include")
        return [day["partition_key"] for day in days]
    return [windows.partition_key(payload["finished_at"], every="day")]


with DAG(
    dag_id="planasonix_events_by_day",
    schedule=watched,
    catchup=False,
    max_active_runs=1,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task(inlets=[watched], outlets=[orders])
    def send_days(triggering_asset_events: Any = None, inlet_events: Any = None, outlet_events: Any = None) -> None:
        """Send an event for each day. Also read the events that came after the one that started this run."""
        started_by = [event for events in triggering_asset_events.values() for event in events]
        if not started_by:
            raise AirflowSkipException("This run was started by hand, so no event says what was loaded.")
        since = min(event.timestamp for event in started_by)
        events = [event for event in inlet_events[watched] if event.timestamp >= since]
        days = sorted({day for event in events for day in days_of(event.extra["payload"])})
        if hasattr(outlet_events[orders], "add_partitions"):  # Airflow 3.3
            outlet_events[orders].add_partitions(days)
        print(f"Loaded: {', '.join(days)}")

    send_days()

with DAG(
    dag_id="planasonix_events_by_day_report",
    schedule=each_day,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as report:

    @task
    def print_day(dag_run: Any = None) -> None:
        """Print the day; a real DAG would transform its rows."""
        print(f"The orders of {getattr(dag_run, 'partition_key', None) or 'some day'} were loaded")

    print_day()
