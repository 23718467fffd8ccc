from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.components import kill_process_tree, terminate
from tests.system.conftest import Notes
from tests.system.runs import POLLS_BY_TASK, TaskRun, count_polls, wait_until


@pytest.mark.parametrize(
    ("stop", "job_seconds"),
    [(kill_process_tree, 15), (kill_process_tree, 60), (terminate, 15)],
    ids=["SIGKILL, the job ends first", "SIGKILL, the job continues", "SIGTERM"],
)
def test_a_deferred_task_survives_a_restart_of_the_triggerer(
    stop: Callable[[LocalAirflow, str], None],
    job_seconds: float,
    airflow: LocalAirflow,
    simulator: Simulator,
    connection_id: str,
    note: Notes,
) -> None:
    simulator.plan(connection_id, running_seconds=job_seconds)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id)
    run.wait_for("deferred")
    job_id = run.job(simulator).id
    wait_until(lambda: count_polls(simulator, job_id) > POLLS_BY_TASK, "the triggerer polls the job")
    looks = count_polls(simulator, job_id)
    began = time.monotonic()
    stop(airflow, "triggerer")
    note(f"the triggerer ended in {time.monotonic() - began:.1f} s")
    status = run.job(simulator).status
    airflow.restart("triggerer")  # even if the test fails: other tests need it
    assert status in ("queued", "running")
    wait_until(lambda: count_polls(simulator, job_id) > looks, "the new triggerer polls the job")
    note(f"first poll by the new one {time.monotonic() - began:.1f} s later")
    run.wait_for("success")
    note(f"success {time.monotonic() - began:.1f} s later")

    job = run.job(simulator)
    assert (job.status, job.cancel_requested_at) == ("succeeded", None)
    result = run.xcom()
    assert (result["job_id"], result["job_url"]) == (job_id, f"{simulator.url}/jobs/{job_id}")
    assert (result["status"], result["connection_id"]) == ("succeeded", connection_id)
    assert [(table["name"], table["rows_loaded"]) for table in result["tables"]] == [("public.orders", 44_802)]
    assert run.xcom("job_id") == job_id


def test_a_deferred_task_at_its_deadline_cancels_its_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id, timeout=8)
    run.wait_for("failed")
    job = run.job(simulator)
    assert job.status in ("cancelling", "cancelled")
    assert job.cancel_requested_at is not None
    seconds = (job.cancel_requested_at - run.began_at).total_seconds()
    note(f"cancelled {seconds:.1f} s after the task's start")
    assert 8 < seconds < 60
    log = run.log()
    assert f"Job {job.id} was not over by " in log
    assert "It was asked to cancel." in log


@pytest.mark.parametrize("job_seconds", [2, 3, 4])
def test_deferred_tasks_with_short_jobs_all_succeed(
    job_seconds: float, airflow: LocalAirflow, simulator: Simulator
) -> None:
    for number in range(1, 6):
        simulator.plan(f"conn_demo_{number:02}", queued_seconds=0.5, running_seconds=job_seconds - 0.5 + number / 5)
    tasks = TaskRun.start(airflow, "five_syncs_deferred").mapped()
    wait_until(lambda: all(task.is_over for task in tasks), "all five tasks end")
    assert [task.state for task in tasks] == ["success"] * 5
