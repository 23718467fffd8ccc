from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider import windows
from planasonix_provider.api.models import Backfill, BackfillBody
from planasonix_provider.simulator import Simulator
from tests.system.components import kill_process_tree, terminate
from tests.system.conftest import Notes
from tests.system.runs import AIRFLOW, POLLS_BY_TASK, TaskRun, count_polls, wait_until


def backfills_of(simulator: Simulator, connection_id: str) -> list[Backfill]:
    return [backfill for backfill in simulator.backfills() if backfill.connection_id == connection_id]


def is_asked_to_cancel(simulator: Simulator, backfill: Backfill) -> bool:
    return any(simulator.job(job_id).cancel_requested_at for job_id in backfill.job_ids or ())


# Airflow takes half a minute to assign the triggers of a killed triggerer to another one.
@pytest.mark.parametrize(
    ("stops", "seconds"),
    [([kill_process_tree] * 2, 60), ([terminate], 30)],
    ids=["SIGKILL twice", "SIGTERM"],
)
def test_a_backfill_survives_a_restart_of_the_triggerer(
    stops: Sequence[Callable[[LocalAirflow, str], None]],
    seconds: float,
    airflow: LocalAirflow,
    simulator: Simulator,
    connection_id: str,
    note: Notes,
) -> None:
    simulator.plan_backfill(connection_id, jobs=8, running_seconds=seconds)
    run = TaskRun.start(airflow, "backfill_deferred", connection_id=connection_id).task("replay")
    run.wait_for("deferred")
    backfill_id = run.backfill(simulator).id
    looks = POLLS_BY_TASK
    for stop in stops:
        wait_until(lambda: count_polls(simulator, backfill_id) > looks, "the triggerer polls the backfill")  # noqa: B023
        began = time.monotonic()
        stop(airflow, "triggerer")
        looks = count_polls(simulator, backfill_id)
        backfill = simulator.backfill(backfill_id)
        assert backfill.status in ("queued", "running")
        note(f"the triggerer ended in {time.monotonic() - began:.1f} s, {backfill.progress_percent:.0f} % were done")
        airflow.restart("triggerer")
        wait_until(lambda: count_polls(simulator, backfill_id) > looks, "the new triggerer polls the backfill")  # noqa: B023
        note(f"first poll by the new one {time.monotonic() - began:.1f} s later")
    run.wait_for("success")

    (backfill,) = backfills_of(simulator, connection_id)
    assert (backfill.id, backfill.status) == (backfill_id, "completed")
    assert len(backfill.job_ids or ()) == 8
    assert not is_asked_to_cancel(simulator, backfill)
    result = run.xcom()
    assert (result["backfill_id"], result["status"]) == (backfill_id, "completed")
    assert [job["job_id"] for job in result["jobs"]] == backfill.job_ids
    assert {job["status"] for job in result["jobs"]} == {"succeeded"}
    assert (result["jobs_total"], result["rows_loaded"]) == (8, backfill.rows_processed)
    assert run.xcom("backfill_id") == backfill_id


def test_clearing_the_failed_month_reloads_only_this_month(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan_backfill(connection_id, times=4)
    simulator.plan_backfill(connection_id, failing_jobs=[1])
    run = TaskRun.start(airflow, "twelve_backfills", connection_id=connection_id).task("replay")
    months = run.mapped(12)
    began = time.monotonic()
    most = 0

    def is_over() -> bool:
        nonlocal most
        most = max(most, sum(not backfill.is_over for backfill in backfills_of(simulator, connection_id)))
        return run.dag_run_state in ("success", "failed")

    wait_until(is_over, "the DAG run is over")
    note(f"twelve months over after {time.monotonic() - began:.1f} s, at most {most} of them at a time")
    states = [month.state for month in months]
    assert sorted(states) == ["failed", *["success"] * 11]
    if AIRFLOW >= (3, 3):
        # In older versions, max_active_tis_per_dag does not count deferred tasks.
        assert most <= 4
    first = {backfill.id: backfill for backfill in backfills_of(simulator, connection_id)}
    assert len(first) == 12
    ids = [month.xcom("backfill_id") for month in months]
    assert set(ids) == set(first)
    assert [(first[id_].start_at, first[id_].end_at) for id_ in ids] == [
        (datetime.fromisoformat(window["start_at"]), datetime.fromisoformat(window["end_at"]))
        for window in windows.split("2024-01-01", "2025-01-01", every="month")
    ]

    failed = months[states.index("failed")]
    assert first[ids[failed.map_index]].status == "failed"
    for line in failed.log().splitlines():
        if "failed" in line:
            note(line)
    began = time.monotonic()
    failed.clear_failed()
    wait_until(lambda: run.dag_run_state == "success", "the DAG run succeeds")
    note(f"success {time.monotonic() - began:.1f} s after the clear")

    everything = backfills_of(simulator, connection_id)
    assert len(everything) == 13
    assert not any(is_asked_to_cancel(simulator, backfill) for backfill in everything)
    for month in months:
        is_new = month == failed
        assert month.details()["try_number"] == (2 if is_new else 1)
        assert (month.xcom("backfill_id") == ids[month.map_index]) != is_new
        assert month.xcom()["status"] == "completed"
    (again,) = {backfill.id for backfill in everything} - set(first)
    assert failed.xcom("backfill_id") == again
    assert simulator.backfill(again).start_at == first[ids[failed.map_index]].start_at


def test_the_log_of_a_backfill(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    runs = {}
    for name, failing in (("completed", []), ("failed", [3, 5])):
        simulator.workspace.add_connection(f"conn_{name}")
        simulator.plan_backfill(
            f"conn_{name}", jobs=8, running_seconds=40, failing_jobs=failing, code="disk_full", message="No space left."
        )
        runs[name] = TaskRun.start(airflow, "backfill_deferred", connection_id=f"conn_{name}").task("replay")
    for name, run in runs.items():
        run.wait_for("success" if name == "completed" else "failed")
        for line in run.provider_log_lines():
            note(f"{name}: {line}")
        backfill = run.backfill(simulator)
        started, *states = run.provider_log_lines()
        assert started.startswith(f"Started backfill {backfill.id} on connection conn_{name}")
        assert any("jobs so far done" in line for line in states)
        assert any(line.startswith(f"Backfill {backfill.id} {name}, ") for line in states)
        if name == "completed":
            assert states[-1] == "Loaded 5,000,000 rows into 2 tables by 8 jobs."
            continue
        lines = [line for line in run.log().splitlines() if "2 of 8 jobs failed" in line]
        # Airflow 2.11 and 3.2 also log the event of the trigger.
        reason = next(line for line in lines if not line.startswith("Trigger "))
        note(f"failed: {reason}")
        for number in (3, 5):
            assert f"{(backfill.job_ids or [])[number]}: disk_full: No space left" in reason


def test_the_cancel_operator_cancels_a_backfill(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan_backfill(connection_id, jobs=12, job_seconds=300, jobs_after_cancel=2, cancelling_seconds=4)
    window = {"start_at": datetime(2024, 1, 1, tzinfo=UTC), "end_at": datetime(2024, 4, 1, tzinfo=UTC)}
    backfill_id = simulator.workspace.start_backfill(connection_id, BackfillBody(**window)).id
    wait_until(lambda: simulator.backfill(backfill_id).status == "running", "the backfill runs")
    run = TaskRun.start(airflow, "cancel", backfill_id=backfill_id).task("stop")
    run.wait_for("success")
    backfill = simulator.backfill(backfill_id)
    assert backfill.status == "cancelled"
    jobs = [simulator.job(job_id) for job_id in backfill.job_ids or ()]
    assert [job.status for job in jobs] == ["cancelled"] * 6
    assert (run.xcom()["backfill_id"], run.xcom()["status"]) == (backfill_id, "cancelled")
    for line in run.provider_log_lines():
        note(line)
