"""``airflow backfill create`` for DAGs with a ``PlanasonixBackfillOperator``."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Backfill
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import AIRFLOW, TaskRun, create_backfill, dag_runs, needs_partitions, wait_until

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 0), reason="the scheduler of Airflow 2 runs no backfills")

DAYS = [datetime(2024, 3, day, tzinfo=UTC) for day in range(1, 6)]
PERIOD = ("2024-03-02", "2024-03-06")


def backfills_of(simulator: Simulator, connection_id: str) -> list[Backfill]:
    """Return the backfills of a connection, oldest first."""
    found = (it for it in simulator.backfills() if it.connection_id == connection_id)
    return sorted(found, key=lambda backfill: backfill.created_at or datetime.max.replace(tzinfo=UTC))


def wait_for_backfill(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    """Wait until Airflow's newest backfill of a DAG is complete, and return the DAG's runs."""

    def newest() -> dict[str, Any]:
        return max(airflow.api("GET", f"backfills?dag_id={dag_id}")["backfills"], key=lambda it: it["id"])

    wait_until(lambda: newest()["completed_at"], f"the backfill of {dag_id} is complete", timeout=400, every=1)
    return dag_runs(airflow, dag_id)


def max_concurrent(backfills: list[Backfill], simulator: Simulator) -> int:
    """Return the largest number of backfills that ran at the same time."""
    jobs = {it.id: [simulator.job(job_id) for job_id in it.job_ids or ()] for it in backfills}
    ends = {it.id: max(job.finished_at for job in jobs[it.id] if job.finished_at) for it in backfills}
    return max(sum(it.created_at <= one.created_at < ends[it.id] for it in backfills) for one in backfills)


def test_each_day_gets_a_backfill_and_reprocessing_starts_a_new_one(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    dag_id, connection_id = "backfilled_days", "conn_backfilled_days"
    simulator.workspace.add_connection(connection_id)
    simulator.plan_backfill(connection_id, times=5, running_seconds=8)
    create_backfill(airflow, dag_id, *PERIOD, "--run-backwards", "--max-active-runs", "2")
    runs = wait_for_backfill(airflow, dag_id)
    assert Counter(run["state"] for run in runs) == {"success": 5}
    first = backfills_of(simulator, connection_id)
    windows = [(it.start_at, it.end_at) for it in first]
    assert sorted(windows) == [(day, day + timedelta(days=1)) for day in DAYS]
    assert max_concurrent(first, simulator) == 2
    # Airflow starts two at the same time, in any order.
    starts = [it.start_at.day for it in first]
    assert set(starts[:2]) == {5, 4}
    assert starts[-1] == 1
    note(f"--run-backwards --max-active-runs 2: {starts}")

    create_backfill(airflow, dag_id, *PERIOD)
    wait_for_backfill(airflow, dag_id)
    assert len(backfills_of(simulator, connection_id)) == 5, "by default, existing runs stay as they are"

    # The third day fails this time.
    simulator.plan_backfill(connection_id, times=2)
    simulator.plan_backfill(connection_id, failing_jobs=[0])
    create_backfill(airflow, dag_id, *PERIOD, "--reprocess-behavior", "completed", "--max-active-runs", "1")
    runs = wait_for_backfill(airflow, dag_id)
    second = backfills_of(simulator, connection_id)[5:]
    assert [(it.start_at, it.status) for it in second] == [
        (day, "failed" if day.day == 3 else "completed") for day in DAYS
    ]
    assert len(runs) == 5, "Airflow clears the run of a day without a partition"
    failed = next(run for run in runs if run["state"] == "failed")
    note(f"--reprocess-behavior completed: {[(it.start_at.day, it.status) for it in second]}")
    log = TaskRun(airflow, dag_id, failed["dag_run_id"], task_id="replay")
    assert log.details()["try_number"] == 2

    create_backfill(airflow, dag_id, *PERIOD, "--reprocess-behavior", "failed")
    runs = wait_for_backfill(airflow, dag_id)
    (third,) = backfills_of(simulator, connection_id)[10:]
    assert (third.start_at, third.status) == (DAYS[2], "completed")
    assert Counter(run["state"] for run in runs) == {"success": 5}
    note(f"--reprocess-behavior failed: {[third.start_at.day]}")


@needs_partitions
def test_a_reprocessed_partition_is_loaded_again_under_its_key(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    dag_id, connection_id = "backfilled_partitions", "conn_backfilled_partitions"
    simulator.workspace.add_connection(connection_id)
    # In Berlin, the second day has 23 hours.
    keys = [f"2024-{day}T00:00:00" for day in ("03-30", "03-31", "04-01")]
    expected = {
        keys[0]: ("2024-03-29T23:00:00Z", "2024-03-30T23:00:00Z"),
        keys[1]: ("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"),
        keys[2]: ("2024-03-31T22:00:00Z", "2024-04-01T22:00:00Z"),
    }
    options = ("--run-backwards", "--max-active-runs", "1")
    for number, reprocess in enumerate(((), ("--reprocess-behavior", "completed")), start=1):
        create_backfill(airflow, dag_id, "2024-03-30", "2024-04-01", *options, *reprocess)
        runs = wait_for_backfill(airflow, dag_id)
        assert Counter((run["partition_key"], run["state"]) for run in runs) == dict.fromkeys(
            ((key, "success") for key in keys), number
        )
        started = backfills_of(simulator, connection_id)[3 * (number - 1) :]
        windows = [(f"{it.start_at:%Y-%m-%dT%H:%M:%SZ}", f"{it.end_at:%Y-%m-%dT%H:%M:%SZ}") for it in started]
        assert windows == [expected[key] for key in reversed(keys)]
        note(f"{' '.join((*options, *reprocess))}: {windows}")
    for run in runs:
        task = TaskRun(airflow, dag_id, run["dag_run_id"], task_id="replay")
        assert task.event_keys() == [run["partition_key"]]
        assert (task.xcom()["start_at"], task.xcom()["end_at"]) == expected[run["partition_key"]]

    # Unlike Airflow's reprocessing, a clear keeps the run and its key.
    cleared = TaskRun(airflow, dag_id, runs[-1]["dag_run_id"], task_id="replay")
    cleared.clear()
    wait_until(lambda: cleared.details()["try_number"] == 2 and cleared.state == "success", "the cleared run ends")
    assert len(backfills_of(simulator, connection_id)) == 7
    assert cleared.event_keys() == [runs[-1]["partition_key"]] * 2
