"""DAGs of the system tests that start when jobs end in Planasonix, including jobs of other clients."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import AssetWatcher

from example_dags.planasonix_events import new_events
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.triggers.planasonix import PlanasonixEventTrigger

settings: dict[str, Any] = {"is_paused_upon_creation": False, "max_active_runs": 16}


def watched(name: str, **wanted: Any) -> Asset:
    """Return an asset with a watcher for ended work."""
    trigger = PlanasonixEventTrigger(planasonix_conn_id="planasonix_events", poll_interval=3, **wanted)
    return Asset(name, watchers=[AssetWatcher(name="planasonix", trigger=trigger)])


@task
def react(triggering_asset_events: Any = None) -> list[str]:
    """Return the ids of the jobs whose events started the run."""
    payloads = [event.extra["payload"] for events in triggering_asset_events.values() for event in events]
    return [payload["job_id"] for payload in payloads]


with DAG(dag_id="events_react", schedule=watched("events_react", connection_id="conn_events_react"), **settings):
    react()
with DAG(
    dag_id="events_many",
    schedule=watched("events_many", connection_id="conn_events_many", events=["job.succeeded", "job.failed"]),
    **settings,
):
    EmptyOperator(task_id="react")
with DAG(
    dag_id="events_own",
    schedule=watched("events_own", connection_id="conn_events_own", ignore_own=True),
    **settings,
):
    PlanasonixSyncOperator(
        task_id="sync", connection_id="conn_events_own", planasonix_conn_id="planasonix_events", poll_interval=1
    )
for twin in ("events_twin_one", "events_twin_other"):
    with DAG(dag_id=twin, schedule=watched(twin, connection_id="conn_events_twin", asset=twin), **settings):
        EmptyOperator(task_id="react")
together = watched("events_together", connection_id="conn_events_together")
with DAG(dag_id="events_together", schedule=together, **settings):

    @task(inlets=[together])
    def read(triggering_asset_events: Any = None, inlet_events: Any = None) -> list[str]:
        """Return the ids of all jobs with new events for this run."""
        events = new_events(together, triggering_asset_events, inlet_events)
        return [event.extra["payload"]["job_id"] for event in events]

    react()
    read()
FIFTY = [
    Asset(
        f"events_fifty_{number:02}",
        watchers=[
            AssetWatcher(
                name="planasonix",
                trigger=PlanasonixEventTrigger(
                    planasonix_conn_id="planasonix_fifty",
                    poll_interval=5,
                    pipeline_id=f"pl_{number:02}",
                    events=["job.succeeded"],
                ),
            )
        ],
    )
    for number in range(50)
]
with DAG(dag_id="events_fifty", schedule=reduce(or_, FIFTY), **settings):
    EmptyOperator(task_id="react")
