"""Start after each load of a connection, started by another DAG, by Planasonix's own schedule or by a person."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.sdk import AssetWatcher

from planasonix_provider.triggers.planasonix import PlanasonixEventTrigger

orders_loaded = Asset(
    "orders_loaded",
    watchers=[
        AssetWatcher(
            name="planasonix",
            trigger=PlanasonixEventTrigger(
                asset="orders_loaded",
                connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1",
                events=["job.succeeded", "backfill.completed"],
            ),
        )
    ],
)


def new_events(asset: Asset, triggering_asset_events: Any, inlet_events: Any) -> list[Any]:
    """Return the events that started this run, and all later ones.

    Airflow queues a run at the first of several events, and gives it the events up to that moment. Events that come
    before the run exists start no run. They are in the database when the task runs, and among the next run's events.
    """
    started_by = [event for events in triggering_asset_events.values() for event in events]
    if not started_by:
        return []  # started by hand
    since = min(event.timestamp for event in started_by)
    events = inlet_events[asset]
    if hasattr(events, "after"):
        events = events.after(since)  # Airflow 3.3 does not read the older ones
    return [event for event in events if event.timestamp >= since]


with DAG(
    dag_id="planasonix_events",
    schedule=orders_loaded,
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task(inlets=[orders_loaded])
    def report(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[str]:
        """Print what was loaded. A job may be in two runs, so what a DAG does with it must be repeatable."""
        events = new_events(orders_loaded, triggering_asset_events, inlet_events)
        payloads = [event.extra["payload"] for event in events]
        for payload in payloads:
            print(f"{payload['event']}: {payload['metrics']}")
        return [payload.get("job_id") or payload["backfill_id"] for payload in payloads]

    report()
