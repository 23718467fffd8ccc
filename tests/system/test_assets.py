from __future__ import annotations

import os
import time
from typing import Any

from dev.local_airflow import LocalAirflow
from planasonix_provider.assets.planasonix import PlanasonixTable
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.edits import edit
from tests.system.rest import rest_of
from tests.system.runs import AIRFLOW, WAITING_STATE, TaskRun, dag_runs, wait_until

#: The connections of the DAGs in ``dags/system_assets.py`` that wait on a worker or deferred.
CONNECTIONS = {"on_a_worker": ("conn_demo_06", "conn_demo_07"), "deferred": ("conn_demo_08", "conn_demo_09")}
ODD = "a/b c.d %ü"
#: The number of tables of one sync. Airflow stores their events before the task succeeds. Before Airflow 3.3, the time
#: per event grows with the number of events.
MANY = int(os.environ.get("PLANASONIX_MANY_TABLES", "300"))


def events_of(run: TaskRun) -> dict[str, dict[str, Any]]:
    """Return the asset events of a DAG run by table. Fail if a table has two."""
    events = run.events()
    by_table = {PlanasonixTable.from_uri(event["uri"]).table: event for event in events}
    assert len(by_table) == len(events)
    return by_table


def reactions_of(airflow: LocalAirflow, dag_id: str) -> list[TaskRun]:
    """Return the task ``react`` of all runs of a DAG."""
    return [TaskRun(airflow, dag_id, run["dag_run_id"], task_id="react") for run in dag_runs(airflow, dag_id)]


def started_by(airflow: LocalAirflow, dag_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Wait until all runs of a DAG are over, and return the events that started them, as tables and extras."""
    tasks = reactions_of(airflow, dag_id)
    wait_until(lambda: all(task.is_over for task in tasks), f"all runs of {dag_id} are over")
    assert all(task.state == "success" for task in tasks), [task.log() for task in tasks]
    return [(PlanasonixTable.from_uri(uri).table, extra) for task in tasks for uri, extra in task.xcom()]


def test_only_the_outlets_that_were_loaded_start_dags(
    airflow: LocalAirflow, simulator: Simulator, way: str, note: Notes
) -> None:
    connection_id, _ = CONNECTIONS[way]
    simulator.plan(connection_id, running_seconds=2, tables={"public.orders": 44_802, ODD: 3, "others": 1})
    run = TaskRun.start(airflow, f"assets_{way}")
    run.wait_for("success")
    began = time.monotonic()
    result = run.xcom()
    loaded = {table["name"]: table for table in result["tables"]}
    events = events_of(run)
    assert set(events) == {"public.orders", ODD}
    for table, event in events.items():
        assert event["extra"] == {
            "job_id": result["job_id"],
            "connection_id": connection_id,
            "table": table,
            "rows_loaded": loaded[table]["rows_loaded"],
            "checksum": loaded[table]["checksum"],
            "window": {"start_at": result["started_at"], "end_at": result["finished_at"]},
            "job_url": result["job_url"],
        }
    for dag_id, table in ((f"on_orders_{way}", "public.orders"), (f"on_odd_{way}", ODD)):
        ((told, extra),) = wait_until(lambda: started_by(airflow, dag_id), f"{dag_id} starts")  # noqa: B023
        assert (told, extra) == (table, events[table]["extra"])
    note(f"both DAGs had run {time.monotonic() - began:.1f} s after the sync")
    assert started_by(airflow, f"on_left_out_{way}") == []
    assert "No asset event for public.customers: the results do not name it." in run.log()


def test_events_name_the_loaded_connection_after_an_edit_of_the_dag(
    airflow: LocalAirflow, simulator: Simulator, way: str, note: Notes
) -> None:
    dag_id, connections = f"edited_sync_{way}", [f"conn_old_{way}", f"conn_new_{way}"]
    old, new = connections
    for connection_id in connections:
        simulator.workspace.add_connection(connection_id)
    # The job outlasts the first try of the task on a worker; the second try sees the edit.
    simulator.plan(old, running_seconds=15, tables={"public.orders": 3})
    edit(airflow, dag_id, connection_id=old, connections=connections, retries=1)

    def known() -> set[str]:
        assets = rest_of(airflow).assets("connections/conn_")
        return {PlanasonixTable.from_uri(asset["uri"]).connection_id for asset in assets}

    wait_until(lambda: known() >= set(connections), "Airflow knows both assets")
    run = TaskRun.start(airflow, dag_id)
    run.wait_for(WAITING_STATE[way])
    job = run.job(simulator)
    wait_until(lambda: (run.record() or {}).get("id"), "the record has the job's id")
    edit(airflow, dag_id, connection_id=new, connections=connections, retries=1)
    if way == "on_a_worker":
        run.send_sigkill()
    run.wait_for("success")
    for line in run.provider_log_lines(run.details()["try_number"]):
        note(line)

    assert [event["uri"].rsplit("/connections/")[1].split("/")[0] for event in events_of(run).values()] == [old]
    assert events_of(run)["public.orders"]["extra"]["connection_id"] == old
    assert [it.id for it in run.jobs(simulator)] == [job.id]
    assert run.xcom()["connection_id"] == old


def test_an_alias_gets_events_of_all_loaded_tables(
    airflow: LocalAirflow, simulator: Simulator, way: str, note: Notes
) -> None:
    _, connection_id = CONNECTIONS[way]
    simulator.plan(connection_id, running_seconds=2, tables={"public.orders": 44_802, ODD: 3})
    run = TaskRun.start(airflow, f"asset_alias_{way}")
    run.wait_for("success")
    events = events_of(run)
    assert set(events) == {"public.orders", ODD}
    extras = {table: event["extra"] for table, event in events.items()}
    dag_id = f"on_alias_{way}"
    wait_until(lambda: reactions_of(airflow, dag_id), "the DAG starts")

    if AIRFLOW != (3, 0):
        # Two events start one DAG run or two. Airflow 3.0 may pass no events to them.
        wait_until(lambda: len(started_by(airflow, dag_id)) >= 2, "the DAG has received both events")
    received = started_by(airflow, dag_id)
    note(f"the DAG received {len(received)} of 2 events")
    assert all(extras[table] == extra for table, extra in received)
    assert len(dict(received)) == len(received)


def test_each_mapped_task_sends_events_of_its_connection(airflow: LocalAirflow, simulator: Simulator, way: str) -> None:
    for rows, connection_id in enumerate(CONNECTIONS[way], start=1):
        simulator.plan(connection_id, running_seconds=2, tables={"mapped": rows})
    run = TaskRun.start(airflow, f"mapped_assets_{way}")
    tasks = run.mapped(2)
    wait_until(lambda: all(task.is_over for task in tasks), "both tasks end")
    assert [task.state for task in tasks] == ["success"] * 2
    assert sorted((event["source_map_index"], event["extra"]["connection_id"]) for event in run.events()) == [
        (0, CONNECTIONS[way][0]),
        (1, CONNECTIONS[way][1]),
    ]
    ((_, extra),) = wait_until(lambda: started_by(airflow, f"on_mapped_{way}"), "the DAG starts")
    assert extra["rows_loaded"] == 2


def test_backfill_events_count_the_rows_of_all_jobs(airflow: LocalAirflow, simulator: Simulator, way: str) -> None:
    connection_id, _ = CONNECTIONS[way]
    simulator.plan_backfill(connection_id, jobs=3, queued_seconds=1, job_seconds=1, tables={"history": 300})
    run = TaskRun.start(airflow, f"backfilled_assets_{way}")
    run.wait_for("success")
    events = events_of(run)
    assert set(events) == {"history"}
    extra = events["history"]["extra"]
    assert (extra["backfill_id"], extra["rows_loaded"]) == (run.xcom()["backfill_id"], 300)
    assert extra["window"] == {"start_at": "2024-01-01T00:00:00Z", "end_at": "2024-02-01T00:00:00Z"}
    assert wait_until(lambda: started_by(airflow, f"on_history_{way}"), "the DAG starts") == [("history", extra)]


def test_an_alias_gets_events_of_hundreds_of_tables(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    _, connection_id = CONNECTIONS["on_a_worker"]
    airflow.api("PATCH", "dags/on_alias_on_a_worker", {"is_paused": True})
    tables = {f"public.t{number}": 1 for number in range(MANY)}
    simulator.plan(connection_id, queued_seconds=0, running_seconds=1, tables=tables)
    run = TaskRun.start(airflow, "asset_alias_on_a_worker")
    run.wait_for("running")
    wait_until(lambda: run.is_over or f"{MANY:,} asset events through" in run.log(), "the task has sent its events")
    began = time.monotonic()
    run.wait_for("success")
    note(f"Airflow took {time.monotonic() - began:.1f} s to write {MANY:,} events")
    assert len(run.events()) == MANY
