"""Start when a connection was loaded, whoever has started that: another DAG, Planasonix's own schedule, a person."""

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

with DAG(
    dag_id="planasonix_events",
    schedule=orders_loaded,
    catchup=False,
    tags=["planasonix", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def report(triggering_asset_events: Any = None) -> list[str]:
        """Say what was loaded; two ends that come quickly may have started one run."""
        payloads = [event.extra["payload"] for events in triggering_asset_events.values() for event in events]
        for payload in payloads:
            print(f"{payload['event']}: {payload['metrics']}")
        return [payload.get("job_id") or payload["backfill_id"] for payload in payloads]

    report()
