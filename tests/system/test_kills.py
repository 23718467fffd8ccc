from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import POLLS_BY_TASK, TaskRun, count_polls, wait_until


def mark_failed(run: TaskRun, _pid: int) -> None:
    run.mark_failed()


def send_sigterm(_run: TaskRun, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kill", [mark_failed, send_sigterm], ids=["marked failed", "SIGTERM"])
def test_a_killed_task_on_a_worker_cancels_its_job(
    kill: Callable[[TaskRun, int], None],
    airflow: LocalAirflow,
    simulator: Simulator,
    connection_id: str,
    note: Notes,
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "sync_on_a_worker", connection_id=connection_id)
    wait_until(lambda: run.job(simulator).status == "running", "the job runs")
    pid = run.details()["pid"]
    assert not has_ended(pid)
    began = time.monotonic()
    kill(run, pid)
    wait_until(lambda: run.job(simulator).status in ("cancelling", "cancelled"), "the job is cancelled", timeout=60)
    note(f"the job was asked to cancel {time.monotonic() - began:.1f} s later")
    wait_until(lambda: has_ended(pid), "the task's process ends", timeout=60)
    note(f"the task's process had ended {time.monotonic() - began:.1f} s later")
    run.wait_for("failed")
    note(f"the task was failed {time.monotonic() - began:.1f} s later")
    wait_until(lambda: run.job(simulator).status == "cancelled", "the job has ended")
    assert f"The task was killed. Job {run.job(simulator).id} was asked to cancel." in run.provider_log_lines()


def on_kill_problems(airflow: LocalAirflow) -> list[str]:
    """Return the triggerer's log lines about failed calls of ``on_kill``."""
    lines = airflow.log("triggerer").read_text().splitlines()
    return [line for line in lines if re.search(r"on_kill\(\) (raised|timed out|was cancelled)", line)]


def test_deferred_tasks_marked_failed_cancel_their_work(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    runs, looked_at = {}, {}
    for dag_id in ("sync_deferred", "sync_left_alone", "backfill_deferred", "backfill_left_alone"):
        connection_id = f"conn_killed_{dag_id}"
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, running_seconds=300)
        simulator.plan_backfill(connection_id, jobs=40, job_seconds=300, cancelling_seconds=4, jobs_after_cancel=2)
        run = TaskRun.start(airflow, dag_id, connection_id=connection_id)
        runs[dag_id] = run if dag_id.startswith("sync") else run.task("replay")
    for dag_id, run in runs.items():
        work = run.job(simulator) if dag_id.startswith("sync") else run.backfill(simulator)
        looked_at[dag_id] = work.id
        wait_until(lambda id_=work.id: count_polls(simulator, id_) > POLLS_BY_TASK, "the triggerer polls")
        assert run.state == "deferred"
    began = time.monotonic()
    for run in runs.values():
        run.mark_failed()

    def wait_for_cancels(dag_id: str, count: int) -> None:
        wait_until(
            lambda: sum(bool(job.cancel_requested_at) for job in runs[dag_id].jobs(simulator)) == count,
            f"{count} jobs of {dag_id} are asked to cancel",
            timeout=60,
        )
        note(f"{dag_id}: {count} jobs asked to cancel within {time.monotonic() - began:.1f} s")

    wait_for_cancels("sync_deferred", 1)
    wait_for_cancels("backfill_deferred", 4)
    # The backfill creates two more jobs after the first cancel.
    wait_for_cancels("backfill_deferred", 6)
    backfill = runs["backfill_deferred"].backfill(simulator)
    wait_until(lambda: simulator.backfill(backfill.id).status == "cancelled", "the backfill ends", timeout=60)
    note(f"backfill_deferred: cancelled after {time.monotonic() - began:.1f} s")
    jobs = runs["backfill_deferred"].jobs(simulator)
    assert [job.status for job in jobs] == ["cancelled"] * 6
    (job,) = runs["sync_deferred"].jobs(simulator)
    assert job.status in ("cancelling", "cancelled")

    for dag_id in ("sync_left_alone", "backfill_left_alone"):
        looks = count_polls(simulator, looked_at[dag_id])
        time.sleep(5)
        assert count_polls(simulator, looked_at[dag_id]) == looks, "its trigger still runs"
        assert not any(job.cancel_requested_at for job in runs[dag_id].jobs(simulator))
    assert [run.state for run in runs.values()] == ["failed"] * 4
    assert on_kill_problems(airflow) == []
    last_words = (
        "The task was marked failed, by hand or with its DAG run, so its backfill is cancelled. "
        f"Backfill {backfill.id} was asked to cancel: it is cancelled."
    )
    # On Python 3.11, the triggerer waits for two seconds at most, and then closes the task's log.
    logs = {"the task's": runs["backfill_deferred"].log(), "the triggerer's": airflow.log("triggerer").read_text()}
    told = [name for name, log in logs.items() if last_words in log]
    assert told
    note(f"the end of the backfill's cancel is in {' and in '.join(told)} log")
    for dag_id, run in runs.items():
        for line in run.provider_log_lines():
            note(f"{dag_id}: {line}")


def test_a_deferred_task_marked_success_logs_why_its_job_is_cancelled(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id)
    work = run.job(simulator)
    wait_until(lambda: count_polls(simulator, work.id) > POLLS_BY_TASK, "the triggerer polls")
    run.mark_succeeded()
    wait_until(lambda: bool(run.job(simulator).cancel_requested_at), "the job is asked to cancel", timeout=60)
    reason = f"The task was marked success by hand, so its job is cancelled. Job {work.id}"
    wait_until(
        lambda: any(reason in log for log in (run.log(), airflow.log("triggerer").read_text())),
        "the log says why",
        timeout=60,
    )
    assert run.state == "success"


def test_only_the_mapped_task_marked_failed_cancels_its_job(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    for number in range(1, 6):
        simulator.plan(f"conn_demo_{number:02}", queued_seconds=10, running_seconds=40)
    tasks = TaskRun.start(airflow, "five_syncs_deferred").mapped()
    for task in tasks:
        task.wait_for("deferred")
        # Wait for the triggerer's log line, because it may list all five jobs instead of polling each. The task itself
        # has logged the state "queued".
        wait_until(
            lambda task=task: any(" is running" in line for line in task.provider_log_lines()), "the triggerer polls"
        )
    killed = tasks[2]
    began = time.monotonic()
    killed.mark_failed()
    wait_until(lambda: killed.job(simulator).cancel_requested_at, "its job is asked to cancel", timeout=60)
    note(f"asked to cancel {time.monotonic() - began:.1f} s later")
    for task in tasks:
        task.wait_for("failed" if task == killed else "success")
        assert (task.job(simulator).cancel_requested_at is not None) == (task == killed)
    assert on_kill_problems(airflow) == []
