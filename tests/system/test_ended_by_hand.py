"""Tasks that a user marks as ended: their jobs are cancelled once, with or without a triggerer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from operator import methodcaller

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.components import terminate
from tests.system.conftest import Notes
from tests.system.runs import AIRFLOW, TaskRun, wait_until

#: Maximum time until the job is asked to cancel.
MAX_SECONDS = 10.0
#: After this time, no second cancel is sent.
QUIET_SECONDS = 30.0
#: The states that a user can set and that Airflow reports to listeners.
STATES = ("failed", "success", *(("skipped",) if AIRFLOW >= (3, 2) else ()))


def count_cancels(simulator: Simulator, job_id: str) -> int:
    return sum(request.path.endswith(f"/{job_id}/cancel") for request in simulator.requests)


def start_deferred(airflow: LocalAirflow, simulator: Simulator, dag_id: str = "sync_deferred") -> TaskRun:
    connection_id = f"conn_ended_{time.monotonic_ns()}"
    simulator.workspace.add_connection(connection_id)
    simulator.plan(connection_id, times=None, running_seconds=600)
    run = TaskRun.start(airflow, dag_id, connection_id=connection_id)
    run.job(simulator)
    return run


@pytest.fixture
def restarted_triggerer(airflow: LocalAirflow) -> Iterator[None]:
    """Start the triggerer again after the test."""
    yield
    airflow.restart("triggerer")


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="the webserver of Airflow 2 notifies no listeners")
@pytest.mark.usefixtures("restarted_triggerer")
def test_without_a_triggerer_the_api_server_cancels_jobs(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    acts: dict[str, Callable[[TaskRun], None]] = {state: methodcaller("mark", state) for state in STATES}
    acts["DAG run failed"] = TaskRun.mark_dag_run_failed
    runs = {name: start_deferred(airflow, simulator) for name in acts}
    left_alone = start_deferred(airflow, simulator, "sync_left_alone")
    for run in (*runs.values(), left_alone):
        run.wait_for("deferred")
    terminate(airflow, "triggerer")
    left_alone.mark_failed()
    for name, run in runs.items():
        job_id, began = run.job(simulator).id, time.monotonic()
        acts[name](run)
        answered = time.monotonic() - began
        wait_until(
            lambda run=run: run.job(simulator).cancel_requested_at, f"the job of {name} is cancelled", timeout=60
        )
        seconds = time.monotonic() - began
        note(f"marked {name}: response after {answered:.2f} s, the job was asked to cancel {seconds:.1f} s later")
        assert seconds < MAX_SECONDS
        assert count_cancels(simulator, job_id) == 1
    time.sleep(QUIET_SECONDS)
    assert [count_cancels(simulator, run.job(simulator).id) for run in runs.values()] == [1] * len(runs)
    assert count_cancels(simulator, left_alone.job(simulator).id) == 0
    assert left_alone.job(simulator).status == "running"
    assert [run.record() for run in runs.values()] == [None] * len(runs)


def test_beside_a_triggerer_only_one_of_them_cancels_the_job(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    run = start_deferred(airflow, simulator)
    wait_until(lambda: run.has_started_trigger, "a triggerer runs the trigger")
    job_id, began = run.job(simulator).id, time.monotonic()
    run.mark_failed()
    wait_until(lambda: run.job(simulator).cancel_requested_at, "the job is cancelled", timeout=60)
    note(f"the job was asked to cancel {time.monotonic() - began:.1f} s later")
    time.sleep(QUIET_SECONDS)
    assert count_cancels(simulator, job_id) == 1


@pytest.mark.usefixtures("restarted_triggerer")
def test_a_task_that_is_cleared_at_once_keeps_its_new_job(
    airflow: LocalAirflow, simulator: Simulator, note: Notes
) -> None:
    run = start_deferred(airflow, simulator)
    run.wait_for("deferred")
    terminate(airflow, "triggerer")
    old = run.job(simulator).id
    run.mark_failed()
    # If the clear came earlier, the scheduler could end the DAG run that it restarts.
    wait_until(lambda: run.dag_run_state == "failed", "the DAG run ends", timeout=4)
    run.clear()
    wait_until(lambda: len(run.jobs(simulator)) == 2, "the new try starts a job")
    (new,) = {job.id for job in run.jobs(simulator)} - {old}
    time.sleep(QUIET_SECONDS)
    assert (count_cancels(simulator, old), count_cancels(simulator, new)) == (1, 0)
