from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import TaskRun, eventually


def mark_failed(run: TaskRun, _pid: int) -> None:
    run.mark_failed()


def send_sigterm(_run: TaskRun, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def runs_no_more(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kill", [mark_failed, send_sigterm], ids=["marked failed", "SIGTERM"])
def test_a_task_that_is_killed_on_a_worker_cancels_its_job_and_ends(
    kill: Callable[[TaskRun, int], None],
    airflow: LocalAirflow,
    planasonix: Simulator,
    connection_id: str,
    note: Notes,
) -> None:
    planasonix.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "sync_on_a_worker", connection_id=connection_id)
    eventually(lambda: run.job(planasonix).status == "running", "the job runs")
    pid = run.details()["pid"]
    assert not runs_no_more(pid)
    began = time.monotonic()
    kill(run, pid)
    eventually(lambda: run.job(planasonix).status in ("cancelling", "cancelled"), "the job is cancelled", patience=60)
    note(f"the job was asked to cancel {time.monotonic() - began:.1f} s later")
    eventually(lambda: runs_no_more(pid), "the task's process ends", patience=60)
    note(f"the task's process was gone {time.monotonic() - began:.1f} s later")
    run.wait_for("failed")
    note(f"the task was failed {time.monotonic() - began:.1f} s later")
    eventually(lambda: run.job(planasonix).status == "cancelled", "the job's end")
    assert f"The task was killed. Job {run.job(planasonix).id} was asked to cancel." in run.our_lines()
