"""The recipes of docs/asset-partitions.md. Their files are in ``example_dags/``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import BackfillBody
from planasonix_provider.simulator import Simulator
from tests.system.components import kill_process_tree
from tests.system.conftest import Notes
from tests.system.runs import (
    AIRFLOW,
    SETTLE_SECONDS,
    TaskRun,
    create_backfill,
    dag_runs,
    expect_runs,
    needs_partitions,
    runs_by_key,
    wait_until,
)

REPLAYED = [f"2024-{day}" for day in ("02-26", "02-27", "02-28", "02-29", "03-01", "03-02", "03-03")]
WEEK = [f"2024-03-{day:02}T00:00:00" for day in range(4, 11)]
#: The duration of each job of a backfill during which the triggerer is killed.
KILLED_SECONDS = 15


def unpause(airflow: LocalAirflow, *dag_ids: str) -> None:
    for dag_id in dag_ids:
        airflow.api("PATCH", f"dags/{dag_id}", {"is_paused": False})


def wait_for_end(run: TaskRun) -> None:
    wait_until(lambda: run.dag_run_state in ("success", "failed"), f"{run.dag_id} ends")
    assert run.dag_run_state == "success"


def kill_triggerer_when(airflow: LocalAirflow, is_deferred: Callable[[], bool]) -> None:
    wait_until(is_deferred, "the tasks are deferred")
    kill_process_tree(airflow, "triggerer")
    airflow.restart("triggerer")


@needs_partitions
def test_a_replay_runs_the_daily_dag_once_per_day(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    replay, report = "planasonix_replay_by_day", "planasonix_replay_by_day_report"
    unpause(airflow, replay, report)
    plain = runs_by_key(airflow, "on_any_replay")
    for number in (1, 2):
        if number == 2:
            simulator.plan_backfill("conn_demo_43", times=2, running_seconds=KILLED_SECONDS)
        run = TaskRun.start(airflow, replay)
        if number == 2:
            kill_triggerer_when(airflow, lambda: run.count("deferred") == 2)  # noqa: B023
        wait_for_end(run)
        assert run.event_keys() == [f"{day}T00:00:00" for day in REPLAYED]
        expect_runs(airflow, report, REPLAYED * number)
        note(f"round {number}: {report}: {sorted(runs_by_key(airflow, report).items())}")
    days = [TaskRun(airflow, report, it["dag_run_id"], task_id="print_day") for it in dag_runs(airflow, report)]
    printed = Counter(line for day in days for line in day.log().splitlines() if "loaded again" in line)
    assert printed == Counter(f"The orders of {day} were loaded again" for day in REPLAYED * 2)
    assert runs_by_key(airflow, "on_any_replay") == plain, "an event with a key starts no DAG of the plain asset"
    assert len([it for it in simulator.backfills() if it.connection_id == "conn_demo_43"]) == 4


@needs_partitions
def test_the_reload_of_a_day_runs_downstream_for_this_day_only(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    reload, report = "planasonix_reload_day", "planasonix_reload_day_report"
    unpause(airflow, reload, report)
    for number, day in enumerate(("2024-03-10", "2024-03-12"), start=1):
        if number == 2:
            simulator.plan_backfill("conn_demo_45", running_seconds=KILLED_SECONDS)
        run = TaskRun.start(airflow, reload, partition_key=day).task("reload")
        if number == 2:
            kill_triggerer_when(airflow, lambda: run.state == "deferred")  # noqa: B023
        wait_for_end(run)
        backfill = run.backfill(simulator)
        assert f"{backfill.start_at:%Y-%m-%d %H:%M}" == f"{day} 00:00"
        assert (backfill.end_at - backfill.start_at).days == 1
        assert run.event_keys() == [day]
        expect_runs(airflow, report, ["2024-03-10", "2024-03-12"][:number])
        note(f"round {number}: {report}: {sorted(runs_by_key(airflow, report).items())}")


@needs_partitions
def test_a_dag_that_needs_two_connections_runs_once_per_day(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    load, report = "planasonix_two_sources", "planasonix_two_sources_report"
    unpause(airflow, load, report)
    days = ["2024-03-01", "2024-03-02", "2024-03-03"]
    for number in (1, 2):
        # One connection is slower, so that the events of the other one must wait.
        seconds = KILLED_SECONDS * number
        simulator.plan_backfill("conn_demo_47", running_seconds=seconds)
        run = TaskRun.start(airflow, load)
        first, second = run.task("load_conn_demo_46"), run.task("load_conn_demo_47")
        if number == 2:
            kill_triggerer_when(airflow, lambda: second.state == "deferred")  # noqa: B023
        first.wait_for("success")
        if second.state == "deferred":
            assert runs_by_key(airflow, report).total() == 3 * (number - 1), "one connection is not enough"
        wait_for_end(run)
        assert run.event_keys() == sorted(f"{day}T00:00:00" for day in days * 2)
        expect_runs(airflow, report, days * number)
        note(f"round {number}: {report}: {sorted(runs_by_key(airflow, report).items())}")


@needs_partitions
def test_a_weekly_rollup_runs_when_all_seven_days_have_events(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    daily, report = "planasonix_weekly_rollup", "planasonix_weekly_rollup_report"
    unpause(airflow, daily, report)
    # The schedule starts a run for yesterday, whose week is not complete.
    (scheduled,) = wait_until(lambda: dag_runs(airflow, daily), f"{daily} starts by its schedule")
    wait_for_end(TaskRun(airflow, daily, scheduled["dag_run_id"]))
    for day in WEEK[:-1]:
        run = TaskRun.start(airflow, daily, partition_key=day)
        wait_for_end(run)
        assert run.event_keys() == [day]
    time.sleep(SETTLE_SECONDS)
    assert dag_runs(airflow, report) == [], "six days are not enough"
    wait_for_end(TaskRun.start(airflow, daily, partition_key=WEEK[-1]))
    expect_runs(airflow, report, ["2024-03-04 (W10)"])
    note(f"round 1: {report}: {sorted(runs_by_key(airflow, report).items())}")
    week = TaskRun(airflow, report, dag_runs(airflow, report)[0]["dag_run_id"], task_id="print_week")
    assert "All days of the week 2024-03-04 (W10) were synced" in week.log()

    # In the second round, Airflow's backfill creates the runs, and the triggerer is killed.
    simulator.plan("conn_demo_44", running_seconds=KILLED_SECONDS)
    options = ("--reprocess-behavior", "completed", "--max-active-runs", "1")
    create_backfill(airflow, daily, "2024-03-04", "2024-03-10", *options)
    kill_triggerer_when(
        airflow,
        lambda: any(
            TaskRun(airflow, daily, it["dag_run_id"]).state == "deferred"
            for it in dag_runs(airflow, daily)
            if it["state"] == "running"
        ),
    )
    expect_runs(airflow, report, ["2024-03-04 (W10)"] * 2, timeout=400)
    note(f"round 2: {report}: {sorted(runs_by_key(airflow, report).items())}")
    keys = [it["partition_key"] for it in dag_runs(airflow, daily) if it["run_type"] == "backfill"]
    assert keys == WEEK
    note(f"{daily}: {sorted((it['run_type'], it['partition_key'], it['state']) for it in dag_runs(airflow, daily))}")


@needs_partitions
def test_events_through_an_alias_have_the_key_of_the_run(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    simulator.plan("conn_demo_48", times=2, tables={"public.orders": 44_802, "public.items": 3})
    days = ["2024-03-30T00:00:00", "2024-03-31T00:00:00"]
    for day in days:
        run = TaskRun.start(airflow, "partitioned_alias", partition_key=day)
        wait_for_end(run)
        # The sync has loaded two tables.
        assert run.event_keys() == [day] * 2
    expect_runs(airflow, "on_partitioned_alias", days)
    note(f"on_partitioned_alias: {sorted(runs_by_key(airflow, 'on_partitioned_alias').items())}")


@needs_partitions
def test_a_backfill_of_another_client_runs_the_daily_dag_for_its_days(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    relay, report = "planasonix_events_by_day", "planasonix_events_by_day_report"
    unpause(airflow, report)
    simulator.plan_backfill("conn_demo_50", times=2, running_seconds=30)
    window = {"start_at": datetime(2024, 2, 28, tzinfo=UTC), "end_at": datetime(2024, 3, 2, tzinfo=UTC)}
    days = [f"2024-{day}T00:00:00" for day in ("02-28", "02-29", "03-01")]
    for number in (1, 2):
        backfill = simulator.workspace.start_backfill("conn_demo_50", BackfillBody(**window))
        if number == 1:
            # A new watcher reports only backfills that are still running.
            unpause(airflow, relay)
        else:
            kill_process_tree(airflow, "triggerer")
            airflow.restart("triggerer")
        wait_until(lambda: simulator.backfill(backfill.id).is_over, "the backfill ends")  # noqa: B023
        expect_runs(airflow, report, days * number)
        note(f"round {number}: {report}: {sorted(runs_by_key(airflow, report).items())}")
    assert runs_by_key(airflow, relay) == {(None, "success"): 2}


@pytest.mark.skipif(AIRFLOW >= (3, 3), reason="Airflow 3.3 has asset partitions")
def test_before_airflow_3_3_the_recipes_send_plain_events(airflow: LocalAirflow, note: Notes) -> None:
    replay = "planasonix_replay_by_day"
    unpause(airflow, replay, f"{replay}_report")
    run = TaskRun.start(airflow, replay).task("replay")
    wait_for_end(run)
    assert run.event_keys() == [None] * 2, "one event for each of the two months"
    for month in run.mapped(2):
        assert month.log().count("partition_by has no effect: asset partitions need Airflow 3.3.") == 1
        assert month.xcom()["partition_keys"]
    for dag_id in (f"{replay}_report", "on_any_replay"):
        wait_until(lambda: runs_by_key(airflow, dag_id)[(None, "success")], f"{dag_id} runs")  # noqa: B023
        # Two events start one run or two.
        note(f"{dag_id}: {sorted(runs_by_key(airflow, dag_id).items())}")
    for recipe in ("reload_day", "two_sources", "weekly_rollup"):
        dag_id, report = f"planasonix_{recipe}", f"planasonix_{recipe}_report"
        unpause(airflow, dag_id, report)
        wait_for_end(TaskRun.start(airflow, dag_id))
        wait_until(lambda: runs_by_key(airflow, report)[(None, "success")], f"{report} runs")  # noqa: B023
        note(f"{report}: {sorted(runs_by_key(airflow, report).items())}")
