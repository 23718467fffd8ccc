"""All tries of one task run at most one job or backfill at a time, and leave none behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Literal

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.simulator import Simulator
from tests.support.attempts import dates_are_ahead, list_the_oldest_backfills_first, start_earlier_backfills
from tests.system.components import kill_process_tree
from tests.system.conftest import Notes
from tests.system.edits import edit_retries
from tests.system.runs import AIRFLOW, CLEARS_RUNNING_TASKS, TaskRun, clears_running_tasks, count_polls, wait_until


def jobs_of(simulator: Simulator, connection_id: str) -> list[Job]:
    """Return all jobs of a connection, oldest first."""
    return [job for job in reversed(simulator.jobs()) if job.connection_id == connection_id]


def backfills_of(simulator: Simulator, connection_id: str) -> list[Backfill]:
    return [backfill for backfill in simulator.backfills() if backfill.connection_id == connection_id]


def count_starts(simulator: Simulator, connection_id: str) -> int:
    """Count the requests to start work on a connection, including failed ones."""
    return sum(request.method == "POST" and f"/{connection_id}/" in request.path for request in simulator.requests)


def note_log_lines(run: TaskRun, note: Notes) -> None:
    for try_number in range(1, run.details()["try_number"] + 1):
        for line in run.provider_log_lines(try_number):
            note(f"try {try_number}: {line}")


def has_no_variable(run: TaskRun) -> bool:
    """Return whether no variable holds the record. Since Airflow 3.3, the task state store keeps it instead."""
    return AIRFLOW >= (3, 3) or run.record() is None


def start_retried_sync(airflow: LocalAirflow, simulator: Simulator, connection_id: str) -> TaskRun:
    """Start a task on a worker, and wait until its job runs and its record has the job's id."""
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id)
    wait_until(lambda: run.job(simulator).status == "running", "the job runs")
    wait_until(lambda: (run.record() or {}).get("id"), "the record has the job's id")
    return run


def test_a_retry_reconnects_after_a_kill_during_the_wait(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=15)
    run = start_retried_sync(airflow, simulator, connection_id)
    run.send_sigkill()
    run.wait_for("success")
    note_log_lines(run, note)

    (job,) = jobs_of(simulator, connection_id)
    assert (job.status, job.cancel_requested_at) == ("succeeded", None)
    assert count_starts(simulator, connection_id) == 1
    assert run.details()["try_number"] == 2
    assert any(line.startswith(f"Job {job.id}, which try 1 has started, ") for line in run.provider_log_lines(2))
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (job.id, job.id)
    assert has_no_variable(run)


@pytest.mark.skipif(AIRFLOW != (3, 0), reason="only Airflow 3.0 fails the task without a retry")
def test_a_clear_cancels_the_job_of_a_task_whose_process_was_killed(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    """Airflow 3.0 fails a task without a retry if its process dies but its supervisor lives."""
    simulator.plan(connection_id, running_seconds=300)
    run = start_retried_sync(airflow, simulator, connection_id)
    os.kill(run.details()["pid"], signal.SIGKILL)
    run.wait_for("failed")
    (job,) = jobs_of(simulator, connection_id)
    assert (job.status, job.cancel_requested_at) == ("running", None)
    run.clear()
    wait_until(lambda: len(jobs_of(simulator, connection_id)) == 2, "another job is started")
    run.wait_for("success")
    note_log_lines(run, note)

    assert [job.status for job in jobs_of(simulator, connection_id)] == ["cancelled", "succeeded"]


def test_a_retry_of_a_deferred_task_starts_a_new_job_after_a_failure(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=10, outcome="failed", message="No route.")
    run = TaskRun.start(airflow, "retried_sync_deferred", connection_id=connection_id)
    run.wait_for("success")
    note_log_lines(run, note)
    assert [job.status for job in jobs_of(simulator, connection_id)] == ["failed", "succeeded"]
    assert run.details()["try_number"] == 2


def test_a_retry_reconnects_to_a_backfill_after_a_kill(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan_backfill(connection_id, jobs=3, queued_seconds=1, job_seconds=15)
    run = TaskRun.start(airflow, "retried_backfill_on_a_worker", connection_id=connection_id).task("replay")
    wait_until(lambda: run.backfill(simulator).status == "running", "the backfill runs")
    wait_until(lambda: (run.record() or {}).get("id"), "the record has the backfill's id")
    run.send_sigkill()
    run.wait_for("success")
    note_log_lines(run, note)

    (backfill,) = backfills_of(simulator, connection_id)
    jobs = jobs_of(simulator, connection_id)
    assert {job.id for job in jobs} == set(backfill.job_ids or ())
    assert [(job.status, job.cancel_requested_at) for job in jobs] == [("succeeded", None)] * 3
    assert count_starts(simulator, connection_id) == 1
    assert run.details()["try_number"] == 2
    assert any(
        line.startswith(f"Backfill {backfill.id}, which try 1 has started, ") for line in run.provider_log_lines(2)
    )
    assert (run.xcom()["backfill_id"], run.xcom("backfill_id")) == (backfill.id, backfill.id)
    assert has_no_variable(run)


@pytest.mark.parametrize("when", ["after", "before"], ids=["the response is late", "the job is late"])
def test_a_retry_finds_the_job_after_a_kill_during_the_start(
    when: Literal["after", "before"],
    airflow: LocalAirflow,
    simulator: Simulator,
    connection_id: str,
    note: Notes,
) -> None:
    simulator.plan(connection_id, running_seconds=15)
    simulator.fail("hang", route="trigger_sync", when=when, seconds=12)
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id)
    wait_until(lambda: count_starts(simulator, connection_id), "the start is sent")
    if when == "after":
        wait_until(lambda: jobs_of(simulator, connection_id), "the job exists")
    record = run.record()
    note(f"the record: {record}")
    assert record is not None
    assert record["id"] is None
    run.send_sigkill()
    assert len(jobs_of(simulator, connection_id)) == (when == "after")
    run.wait_for("success")
    note_log_lines(run, note)

    (job,) = jobs_of(simulator, connection_id)
    assert (job.status, job.cancel_requested_at) == ("succeeded", None)
    assert count_starts(simulator, connection_id) == 1
    assert "Try 1 was about to start a job when it ended; looking for that job." in run.provider_log_lines(2)
    assert any(line.startswith(f"Job {job.id}, which try 1 has started, ") for line in run.provider_log_lines(2))
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (job.id, job.id)
    assert has_no_variable(run)


@pytest.fixture
def no_idempotency(simulator: Simulator) -> Iterator[Simulator]:
    """A simulator that ignores idempotency keys and conflicts, so that a repeated request starts a second job."""
    before = simulator.workspace.settings.model_dump()
    simulator.workspace.configure(show_metadata=True, honour_idempotency=False, conflict="allowed")
    yield simulator
    simulator.workspace.configure(**before)


def test_a_lost_response_makes_one_job_despite_clock_skew(
    airflow: LocalAirflow,
    no_idempotency: Simulator,
    connection_id: str,
    note: Notes,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    dates_are_ahead(monkeypatch, 30)
    no_idempotency.fail("reset", route="trigger_sync", when="after")
    run = TaskRun.start(airflow, f"retried_sync_{way}", connection_id=connection_id)
    run.wait_for("success")
    note_log_lines(run, note)

    (job,) = jobs_of(no_idempotency, connection_id)
    assert run.xcom()["job_id"] == job.id
    assert count_starts(no_idempotency, connection_id) == 1


def test_a_lost_backfill_is_found_among_hundreds(
    airflow: LocalAirflow,
    no_idempotency: Simulator,
    connection_id: str,
    note: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    list_the_oldest_backfills_first(monkeypatch)
    start_earlier_backfills(no_idempotency, connection_id, 600)
    no_idempotency.fail("reset", route="trigger_backfill", when="after")
    run = TaskRun.start(airflow, "retried_backfill_on_a_worker", connection_id=connection_id).task("replay")
    run.wait_for("success")
    note_log_lines(run, note)

    assert len(backfills_of(no_idempotency, connection_id)) == 601
    assert run.xcom()["backfill_id"] == run.backfill(no_idempotency).id
    assert count_starts(no_idempotency, connection_id) == 1


def test_a_retry_reconnects_after_its_triggerer_and_process_died(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=10)
    run = TaskRun.start(airflow, "retried_sync_deferred", connection_id=connection_id)
    run.wait_for("deferred")
    kill_process_tree(airflow, "triggerer")
    # The resumed task requests the results of the ended job.
    simulator.fail("hang", route="get_job_results", seconds=20)
    airflow.restart("triggerer")
    job_id = run.job(simulator).id
    wait_until(
        lambda: any(request.path.endswith(f"/{job_id}/results") for request in simulator.requests),
        "the resumed process accounts for the job",
    )
    run.send_sigkill()
    run.wait_for("success")
    note_log_lines(run, note)

    (job,) = jobs_of(simulator, connection_id)
    assert (job.status, job.cancel_requested_at) == ("succeeded", None)
    assert count_starts(simulator, connection_id) == 1
    assert run.details()["try_number"] == 2
    assert f"Job {job.id}, which try 1 has started, has succeeded: this try takes it over." in run.provider_log_lines(2)
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (job.id, job.id)
    assert has_no_variable(run)


@pytest.mark.parametrize(
    ("way", "state"),
    [
        pytest.param("on_a_worker", "running", marks=clears_running_tasks),
        ("deferred", "deferred"),
        ("deferred", "success"),
    ],
)
def test_a_cleared_sync_starts_again_after_its_old_job_ended(
    way: str, state: str, airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    is_finished = state == "success"
    simulator.plan(connection_id, running_seconds=2 if is_finished else 300, cancelling_seconds=3)
    run = TaskRun.start(airflow, f"retried_sync_{way}", connection_id=connection_id)
    run.wait_for(state)
    wait_until(lambda: run.job(simulator).status == ("succeeded" if is_finished else "running"), "the job exists")
    note(f"the record at the clear: {run.record()}")
    run.clear()
    wait_until(lambda: len(jobs_of(simulator, connection_id)) == 2, "another job is started")
    run.wait_for("success")
    note_log_lines(run, note)

    old, new = jobs_of(simulator, connection_id)
    assert (old.status, new.status) == ("succeeded" if is_finished else "cancelled", "succeeded")
    assert (old.cancel_requested_at is None, new.cancel_requested_at) == (is_finished, None)
    assert old.finished_at is not None
    assert new.created_at is not None
    assert old.finished_at <= new.created_at
    assert count_starts(simulator, connection_id) == 2
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (new.id, new.id)
    assert has_no_variable(run)


@pytest.mark.skipif(CLEARS_RUNNING_TASKS, reason="only Airflow 3.0 does not rerun the cleared task")
def test_a_cleared_running_task_restarts_after_it_is_marked_failed(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id)
    wait_until(lambda: run.job(simulator).status == "running", "the job runs")
    run.clear()
    wait_until(lambda: run.job(simulator).status == "cancelled", "the job is cancelled")
    assert run.state == "restarting"
    run.mark_failed()
    # If the second clear came earlier, the scheduler could end the DAG run that it restarts.
    wait_until(lambda: run.dag_run_state == "failed", "the DAG run ends")
    run.clear()
    run.wait_for("success")
    note_log_lines(run, note)

    assert [job.status for job in jobs_of(simulator, connection_id)] == ["cancelled", "succeeded"]


def test_a_cleared_sync_with_fewer_retries_loads_again(
    way: str, airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    dag_id = f"edited_sync_{way}"
    edit_retries(airflow, dag_id, 1)
    run = TaskRun.start(airflow, dag_id, connection_id=connection_id)
    run.wait_for("success")
    before = run.details()["max_tries"]
    note(f"the record at the clear: {run.record()}")
    edit_retries(airflow, dag_id, 0)
    run.clear()
    wait_until(lambda: run.details()["try_number"] == 2, "the second try begins")
    run.wait_for("success")
    note_log_lines(run, note)

    assert (before, run.details()["max_tries"]) == (1, 1)
    old, new = jobs_of(simulator, connection_id)
    assert (old.status, new.status) == ("succeeded", "succeeded")
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (new.id, new.id)
    assert has_no_variable(run)


def test_on_conflict_wait_starts_after_the_conflicting_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    # A busy machine needs half a minute to start the task.
    simulator.plan(connection_id, running_seconds=40)
    in_the_way = simulator.workspace.start_sync(connection_id)
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id, on_conflict="wait")
    run.wait_for("success")
    note_log_lines(run, note)

    other, own = jobs_of(simulator, connection_id)
    assert other.id == in_the_way.id
    assert [(job.status, job.cancel_requested_at) for job in (other, own)] == [("succeeded", None)] * 2
    assert other.finished_at is not None
    assert own.created_at is not None
    assert other.finished_at <= own.created_at
    assert f"Job {other.id} is in the way; waiting until it is over." in run.provider_log_lines()
    assert run.details()["try_number"] == 1
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (own.id, own.id)
    assert has_no_variable(run)


def test_on_conflict_attach_never_cancels_the_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=60)
    other = simulator.workspace.start_sync(connection_id)
    attached = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id, on_conflict="attach")
    killed = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id, on_conflict="attach")
    for run in (attached, killed):
        record = wait_until(lambda run=run: (it := run.record()) and it["id"] and it, "the record has the job's id")
        assert (record["id"], record["is_own"]) == (other.id, False)
    killed.mark_failed()
    attached.send_sigkill()
    attached.wait_for("success")
    note_log_lines(attached, note)
    note_log_lines(killed, note)

    (job,) = jobs_of(simulator, connection_id)
    assert (job.id, job.status, job.cancel_requested_at) == (other.id, "succeeded", None)
    assert any(
        line.startswith(f"Job {job.id}, which try 1 has attached to, ") for line in attached.provider_log_lines(2)
    )
    assert (attached.xcom()["job_id"], attached.xcom("job_id")) == (job.id, job.id)
    assert killed.state == "failed"
    assert has_no_variable(attached)


def start_behind_another(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, *, on_conflict: str, seconds: float
) -> tuple[TaskRun, Job]:
    """Start a sync, and then another job on its connection while the request of the sync hangs."""
    simulator.plan(connection_id, running_seconds=seconds)
    simulator.fail("hang", route="trigger_sync", seconds=8)
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id, on_conflict=on_conflict)
    wait_until(lambda: count_starts(simulator, connection_id), "the start is sent")
    return run, simulator.workspace.start_sync(connection_id)


def test_a_rejected_start_does_not_adopt_the_conflicting_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    run, other = start_behind_another(airflow, simulator, connection_id, on_conflict="fail", seconds=60)
    wait_until(lambda: run.is_over, f"{run} ends")
    note_log_lines(run, note)

    assert (run.state, run.details()["try_number"]) == ("failed", 2)
    assert count_starts(simulator, connection_id) == 2
    (job,) = jobs_of(simulator, connection_id)
    assert (job.id, job.status, job.cancel_requested_at) == (other.id, "running", None)


def test_a_retry_starts_its_own_job_after_a_kill_during_a_conflict(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    run, other = start_behind_another(airflow, simulator, connection_id, on_conflict="wait", seconds=15)
    wait_until(lambda: count_polls(simulator, other.id), "the task waits for the conflicting job")
    run.send_sigkill()
    wait_until(lambda: run.is_over, f"{run} ends")
    note_log_lines(run, note)

    assert run.state == "success"
    first, own = jobs_of(simulator, connection_id)
    assert first.id == other.id
    assert [(job.status, job.cancel_requested_at) for job in (first, own)] == [("succeeded", None)] * 2
    assert (run.xcom()["job_id"], run.xcom("job_id")) == (own.id, own.id)
    assert has_no_variable(run)


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="tasks know the version of their DAG since Airflow 3.1")
def test_the_metadata_of_a_job_names_the_version_of_the_dag(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str
) -> None:
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id)
    metadata = run.job(simulator).metadata or {}
    versions = {
        version["id"]: version for version in airflow.api("GET", "dags/sync_deferred/dagVersions")["dag_versions"]
    }
    assert metadata["dag_bundle_name"] == versions[metadata["dag_version_id"]]["bundle_name"] == "dags-folder"
    # The bundle is a local folder, which has no versions.
    assert "dag_bundle_version" not in metadata
    run.wait_for("success")
