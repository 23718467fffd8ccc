"""Jobs of tasks that are ended early, and of tasks whose process, triggerer or API server dies or hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import httpx
import psutil
import pytest

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.clock import utcnow
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.components import freeze, kill_process_tree, resume, second_process
from tests.system.conftest import Notes
from tests.system.rest import rest_of
from tests.system.runs import (
    AIRFLOW,
    CLEARS_RUNNING_TASKS,
    HEARTBEAT_TIMEOUT_SECONDS,
    ONE_SLOT,
    RUN_TIMEOUT,
    SHORT_TIMEOUTS,
    TIME_LIMITS,
    WAYS,
    Clock,
    TaskRun,
    wait_until,
)

#: Maximum seconds from the end of a task to the cancel of its job. Airflow notifies a worker in the response to a
#: heartbeat, which it sends every five seconds. A trigger first asks Airflow whether the task was killed.
SOON = 30
#: The same for a task that reaches its own deadline: it needs no notification.
AT_ONCE = 2


@contextmanager
def many_connections(airflow: LocalAirflow, name: str, count: int, clock: Clock) -> Iterator[Simulator]:
    """Run a simulator with a connection for each task of a DAG. Jobs run for an hour."""
    connections = [f"conn_{name}_{number:02}" for number in range(1, count + 1)]
    with Simulator(api_key=API_KEY, connections=connections, clock=clock, rate_limit=1_000_000) as simulator:
        for connection_id in connections:
            simulator.plan(connection_id, times=None, queued_seconds=0, running_seconds=3600, cancelling_seconds=2)
        add_connection(airflow, f"planasonix_{name}", simulator.airflow_connection())
        try:
            yield simulator
        finally:
            # Otherwise, the search for orphans in a later test retries requests to a server that has ended.
            airflow.api("DELETE", f"connections/planasonix_{name}")


@pytest.fixture(scope="module")
def impatient_airflow(airflow: LocalAirflow) -> Iterator[LocalAirflow]:
    """An Airflow with short heartbeat timeouts."""
    patient = dict(airflow.env)
    airflow.env |= SHORT_TIMEOUTS
    for component in ("scheduler", "triggerer"):
        airflow.restart(component)
    yield airflow
    airflow.env = patient
    for component in ("scheduler", "triggerer"):
        airflow.restart(component)


def wait_for_cancel(simulator: Simulator, job_id: str, since: datetime) -> float:
    """Wait until a job is asked to cancel. Return the seconds since ``since``, and fail after ``SOON`` seconds."""
    left = SOON - (utcnow() - since).total_seconds()
    asked = wait_until(lambda: simulator.job(job_id).cancel_requested_at, f"{job_id} is asked to cancel", left)
    return (asked - since).total_seconds()


def jobs_of(simulator: Simulator, connection_id: str) -> list[str]:
    """Return the ids of all jobs of a connection, oldest first."""
    return [job.id for job in reversed(simulator.jobs()) if job.connection_id == connection_id]


def wait_until_waiting(run: TaskRun, simulator: Simulator) -> str:
    """Wait until a task waits for its job, on a worker or in a triggerer. Return the job's id."""
    job_id = run.job(simulator).id
    if run.dag_id.endswith("deferred"):
        run.wait_for("deferred")
        wait_until(lambda: run.has_started_trigger, "a triggerer runs its trigger")
    else:
        wait_until(lambda: simulator.job(job_id).status == "running", "the job runs")
    return job_id


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def assert_starts_after_end(simulator: Simulator, old_id: str, new_id: str) -> None:
    """Assert that the old job was cancelled and over before the new one started, and that the new one succeeded."""
    old, new = simulator.job(old_id), simulator.job(new_id)
    assert (old.status, new.status, new.cancel_requested_at) == ("cancelled", "succeeded", None)
    assert old.finished_at is not None
    assert new.created_at is not None
    assert old.finished_at <= new.created_at


# --- Tasks that end early ---

GIVING_UP: dict[str, tuple[Callable[[TaskRun], None], str]] = {
    "marked succeeded": (TaskRun.mark_succeeded, "success"),
    "DAG run marked failed": (TaskRun.mark_dag_run_failed, "failed"),
    "cleared": (TaskRun.clear, "success"),
}


def test_a_task_that_ends_early_cancels_its_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    late = "DAG run out of time"
    runs, jobs, given_up_at = {}, {}, {}
    for how in (late, *GIVING_UP):
        for way in WAYS:
            if (way, how) == ("on_a_worker", "cleared") and not CLEARS_RUNNING_TASKS:
                continue
            connection = f"{connection_id}_{len(runs)}"
            simulator.workspace.add_connection(connection)
            simulator.plan(connection, running_seconds=300, cancelling_seconds=2)
            dag_id = f"sync_in_a_short_run_{way}" if how == late else f"sync_{way}"
            runs[way, how] = TaskRun.start(airflow, dag_id, connection_id=connection)
    for which, run in runs.items():
        jobs[which] = wait_until_waiting(run, simulator)
    for (way, how), run in runs.items():
        assert not simulator.job(jobs[way, how]).cancel_requested_at
        if how == late:
            given_up_at[way, how] = datetime.fromisoformat(run.dag_run()["start_date"]) + RUN_TIMEOUT
        else:
            given_up_at[way, how] = utcnow()
            GIVING_UP[how][0](run)
    for which, since in sorted(given_up_at.items(), key=lambda item: item[1]):
        lag = wait_for_cancel(simulator, jobs[which], since)
        note(f"{' '.join(which)}: asked to cancel {lag:.1f} s later")
        assert lag > 0

    for (way, how), run in runs.items():
        run.wait_for("skipped" if how == late else GIVING_UP[how][1])
        job_ids = jobs_of(simulator, simulator.job(jobs[way, how]).connection_id)
        assert job_ids[0] == jobs[way, how]
        wait_until(lambda job_id=job_ids[0]: simulator.job(job_id).status == "cancelled", "the job is cancelled")
        assert len(job_ids) == 1 + (how == "cleared")
        if how == "cleared":
            assert_starts_after_end(simulator, *job_ids)
        elif way == "on_a_worker":
            assert f"The task was killed. Job {job_ids[0]} was asked to cancel" in run.log()


def test_a_task_that_ends_before_the_start_response_cancels_its_job(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    simulator.fail("hang", route="trigger_sync", when="after", seconds=60)
    run = TaskRun.start(airflow, "sync_on_a_worker", connection_id=connection_id)
    job_id = run.job(simulator).id
    given_up_at = utcnow()
    run.mark_failed()
    note(f"asked to cancel {wait_for_cancel(simulator, job_id, given_up_at):.1f} s later")
    wait_until(lambda: simulator.job(job_id).status == "cancelled", "the job is cancelled")
    assert run.state == "failed"
    assert jobs_of(simulator, connection_id) == [job_id]


def test_a_task_marked_failed_as_it_defers_is_cancelled_before_the_next_start(
    airflow: LocalAirflow, note: Notes
) -> None:
    with many_connections(airflow, "ten", 10, clock := Clock()) as simulator:
        run = TaskRun.start(airflow, "ten_syncs")
        tasks = run.mapped(10)
        marked: dict[int, str] = {}
        deadline = time.monotonic() + 180
        while len(marked) < len(tasks):
            assert time.monotonic() < deadline, marked
            for index in set(run.indices("deferred")) - set(marked):
                tasks[index].mark_failed()
                marked[index] = tasks[index].job(simulator).id
        wait_until(lambda: run.dag_run_state == "failed", "the run ends")
        # Triggers that ran cancel their jobs within this time.
        quiet_since = utcnow()
        wait_until(lambda: (utcnow() - quiet_since).total_seconds() > 10, "Airflow has had time to notify all triggers")
        left = [index for index, job_id in marked.items() if not simulator.job(job_id).cancel_requested_at]
        note(f"{10 - len(left)} of 10 jobs were cancelled; the others belong to the tasks {left}")
        run.clear()
        wait_until(lambda: len(simulator.jobs()) == 20, "all jobs are started again")
        wait_until(lambda: run.count("deferred") == 10, "all tasks wait again")
        clock.ahead += timedelta(hours=1)
        wait_until(lambda: run.dag_run_state == "success", "the run ends")
        for index, old_id in marked.items():
            job_ids = jobs_of(simulator, f"conn_ten_{index + 1:02}")
            assert job_ids[0] == old_id
            assert_starts_after_end(simulator, *job_ids)


# --- Deadlines ---


def test_tasks_at_their_deadline_cancel_without_a_free_worker(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    airflow.create("pools", {"name": ONE_SLOT, "slots": 1, "include_deferred": False})
    runs, jobs, deadlines = {}, {}, {}
    limits = ("timeout", "execution_timeout")
    for way in WAYS:
        for limit in limits:
            simulator.workspace.add_connection(f"{connection_id}_{way}_{limit}")
            simulator.plan(f"{connection_id}_{way}_{limit}", running_seconds=300)
        run = TaskRun.start(airflow, f"hurried_syncs_{way}", connection_id=f"{connection_id}_{way}")
        runs |= {(way, limit): run.task(limit) for limit in limits}
    for (way, limit), task in runs.items():
        job_id = jobs[way, limit] = wait_until_waiting(task, simulator)
        given = TIME_LIMITS[way]
        created_at = simulator.job(job_id).created_at
        assert created_at is not None
        # execution_timeout starts with the process, and the provider reserves its last tenth for the cancel.
        began = datetime.fromisoformat(task.details()["start_date"])
        deadlines[way, limit] = began + given * 0.9 if limit == "execution_timeout" else created_at + given
    simulator.plan(connection_id, running_seconds=300)
    blocker = TaskRun.start(airflow, "sync_in_the_one_slot", connection_id=connection_id)
    blocker.job(simulator)
    slot_taken_at = utcnow()
    assert slot_taken_at < min(deadline for (way, _), deadline in deadlines.items() if way == "deferred")

    for which, deadline in sorted(deadlines.items(), key=lambda item: item[1]):
        lag = wait_for_cancel(simulator, jobs[which], deadline)
        note(f"{' '.join(which)}: asked to cancel {lag:.1f} s after the deadline")
        assert -1 < lag < AT_ONCE
    for limit in limits:
        wait_until(
            lambda limit=limit: runs["deferred", limit].state in ("scheduled", "queued"), "the task waits for a worker"
        )
    assert blocker.state == "running"
    blocker.mark_failed()
    for (way, limit), task in runs.items():
        task.wait_for("failed")
        log = task.log()
        assert f"Job {jobs[way, limit]} was not over by " in log
        assert "It was asked to cancel." in log


# --- Triggerers ---


@pytest.fixture
def twenty(impatient_airflow: LocalAirflow) -> Iterator[Twenty]:
    with many_connections(impatient_airflow, "twenty", 20, clock := Clock()) as simulator:
        yield Twenty(simulator, clock, TaskRun.start(impatient_airflow, "twenty_syncs"))


class Twenty:
    """A run of twenty deferred tasks, each with its own job."""

    def __init__(self, simulator: Simulator, clock: Clock, run: TaskRun) -> None:
        self.planasonix = simulator
        self.clock = clock
        self.run = run
        self.tasks = run.mapped(20)

    def wait_until_all_wait(self) -> None:
        wait_until(lambda: self.run.count("deferred") == 20, "all tasks wait")
        wait_until(lambda: all(task.has_started_trigger for task in self.tasks), "a triggerer runs all triggers")

    def wait_for_common_triggerer(self, is_right: Callable[[int], bool]) -> int:
        """Wait until one triggerer that ``is_right`` accepts has all triggers and polls their jobs. Return its id."""

        def common_triggerer() -> int | None:
            (has_them, *others) = {task.triggerer() for task in self.tasks}
            return has_them if has_them and not others and is_right(has_them) else None

        triggerer = wait_until(common_triggerer, "one triggerer has all triggers")
        asked = len(self.planasonix.requests)
        wait_until(lambda: "list_jobs" in {request.route for request in self.planasonix.requests[asked:]}, "it polls")
        assert triggerer
        return triggerer

    def assert_nothing_was_cancelled(self) -> None:
        assert not [job for job in self.planasonix.jobs() if job.cancel_requested_at]
        assert self.run.count("deferred") == 20

    @property
    def left_alone(self) -> int:
        """The number of triggers that ended and found their tasks still deferred."""
        return sum(any(line.endswith("is not cancelled.") for line in task.provider_log_lines()) for task in self.tasks)


def newest_triggerer(airflow: LocalAirflow) -> int:
    return max(rest_of(airflow).alive_triggerers(), default=0)


def test_twenty_waits_survive_kills_and_freezes_of_their_triggerers(
    impatient_airflow: LocalAirflow, twenty: Twenty, note: Notes
) -> None:
    airflow = impatient_airflow
    twenty.wait_until_all_wait()
    ended = twenty.wait_for_common_triggerer(bool)
    triggerer = psutil.Process(airflow.processes["triggerer"].pid)
    children = triggerer.children(recursive=True)
    began = time.monotonic()
    os.killpg(triggerer.pid, signal.SIGTERM)
    wait_until(lambda: not any(map(is_alive, children)), "the process of the triggers ends")
    seconds = time.monotonic() - began
    note(f"by SIGTERM, the process of the triggers ended in {seconds:.1f} s")
    assert seconds < 5
    wait_until(lambda: not is_alive(triggerer), "the triggerer ends")
    # Airflow notices the end of that process at once, or after ten seconds.
    note(f"by SIGTERM, the triggerer ended in {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 20
    airflow.restart("triggerer")
    first = twenty.wait_for_common_triggerer(lambda number: number != ended)
    note(f"the next triggerer had all triggers {time.monotonic() - began:.1f} s later")
    twenty.assert_nothing_was_cancelled()

    with second_process(airflow, "triggerer") as other:
        second = wait_until(lambda: (number := newest_triggerer(airflow)) > first and number, "another triggerer")
        began = time.monotonic()
        freeze(airflow, "triggerer")
        twenty.wait_for_common_triggerer(lambda number: number == second)
        note(f"frozen: another triggerer had all triggers {time.monotonic() - began:.1f} s later")
        resume(airflow, "triggerer")
        if AIRFLOW >= (3, 3):
            # In older versions, the log of a trigger is closed by then.
            wait_until(lambda: twenty.left_alone == 20, "the first triggerer has ended all its triggers")
        twenty.wait_for_common_triggerer(lambda number: number == second)
        twenty.assert_nothing_was_cancelled()

        began = time.monotonic()
        kill_process_tree(airflow, other)
        twenty.wait_for_common_triggerer(lambda number: number == first)
        note(f"killed: the triggerer that was frozen had all triggers {time.monotonic() - began:.1f} s later")
        twenty.assert_nothing_was_cancelled()

    killed = twenty.tasks[7]
    given_up_at = utcnow()
    killed.mark_failed()
    lag = wait_for_cancel(twenty.planasonix, killed.job(twenty.planasonix).id, given_up_at)
    note(f"marked failed afterwards: asked to cancel {lag:.1f} s later")
    twenty.clock.ahead += timedelta(hours=1)
    wait_until(lambda: twenty.run.dag_run_state == "failed", "the run ends")
    assert (twenty.run.count("success"), twenty.run.count("failed")) == (19, 1)
    assert len(twenty.planasonix.jobs()) == 20
    for task in set(twenty.tasks) - {killed}:
        job = task.job(twenty.planasonix)
        assert (job.status, job.cancel_requested_at) == ("succeeded", None)
        assert task.xcom()["job_id"] == job.id
        assert task.fired_events == 1


# --- Workers ---


def processes_of(run: TaskRun) -> list[psutil.Process]:
    """Return the supervisor and the process of a running task."""
    process = psutil.Process(run.details()["pid"])
    return [process.parent(), process]


def test_a_task_without_heartbeats_keeps_its_job(
    impatient_airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    airflow = impatient_airflow
    runs, jobs = {}, {}
    for death in ("killed", "frozen", "frozen and marked failed"):
        connection = f"{connection_id}_{len(runs)}"
        simulator.workspace.add_connection(connection)
        simulator.plan(connection, running_seconds=300)
        runs[death] = TaskRun.start(airflow, "sync_tried_again", connection_id=connection)
    for death, run in runs.items():
        jobs[death] = wait_until_waiting(run, simulator)
        wait_until(lambda run=run: (run.record() or {}).get("id"), "the record has the job's id")
    began = time.monotonic()
    processes = {death: processes_of(run) for death, run in runs.items()}
    for death in ("killed", "frozen", "frozen and marked failed"):
        for process in processes[death]:
            process.send_signal(signal.SIGKILL if death == "killed" else signal.SIGSTOP)
    runs["frozen and marked failed"].mark_failed()
    for death in ("killed", "frozen"):
        wanted = f"Job {jobs[death]}, which try 1 has started, still runs: this try goes on with it."
        run = runs[death]
        wait_until(lambda run=run: run.details()["try_number"] == 2, "the next try begins")
        wait_until(lambda run=run, wanted=wanted: wanted in run.provider_log_lines(2), "it continues with the job")
        note(f"{death}: the next try continued with the job {time.monotonic() - began:.1f} s later")
    wait_until(lambda: time.monotonic() - began > HEARTBEAT_TIMEOUT_SECONDS + 5, "the heartbeats time out")
    thawed_at = utcnow()
    for death in ("frozen", "frozen and marked failed"):
        for process in processes[death]:
            process.resume()
    # In Airflow 2.11, the resumed process of a replaced try waits beside the next try.
    ending = ("frozen", "frozen and marked failed") if AIRFLOW >= (3, 0) else ("frozen and marked failed",)
    for death in ending:
        wait_until(lambda death=death: not is_alive(processes[death][1]), "the resumed process ends", SOON)
        note(f"{death}: the process ended {(utcnow() - thawed_at).total_seconds():.1f} s after it was resumed")
        note(f"{death}, at the end of try 1: {runs[death].provider_log_lines()[-1]}")
    lag = wait_for_cancel(simulator, jobs["frozen and marked failed"], thawed_at)
    note(f"frozen and marked failed: asked to cancel {lag:.1f} s after it was resumed")
    for death in ("killed", "frozen"):
        assert not simulator.job(jobs[death]).cancel_requested_at
        assert runs[death].state == "running"
        given_up_at = utcnow()
        runs[death].mark_failed()
        lag = wait_for_cancel(simulator, jobs[death], given_up_at)
        note(f"{death}: marked failed afterwards, asked to cancel {lag:.1f} s later")
    assert [len(jobs_of(simulator, f"{connection_id}_{number}")) for number in range(3)] == [1, 1, 1]


# --- The API server ---


@pytest.fixture
def restarted_api_server(airflow: LocalAirflow) -> Iterator[None]:
    """Restart the API server if a test fails before it does so."""
    yield
    if airflow.processes["api-server"].poll() is not None:
        airflow.restart("api-server")


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="tasks of Airflow 2 use no API server")
@pytest.mark.usefixtures("restarted_api_server")
def test_a_retry_reconnects_after_an_outage_of_the_api_server(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=240)
    run = TaskRun.start(airflow, "sync_tried_again_later", connection_id=connection_id)
    job_id = wait_until_waiting(run, simulator)
    wait_until(lambda: (run.record() or {}).get("id"), "the record has the job's id")
    task = processes_of(run)[1]
    began = time.monotonic()
    kill_process_tree(airflow, "api-server")
    if AIRFLOW >= (3, 1):
        wait_until(lambda: not is_alive(task), "Airflow kills the task")
        note(f"the task's process ended {time.monotonic() - began:.1f} s after the API server")
    else:
        # In Airflow 3.0, the supervisor fails, and the task's process continues without it.
        given_up = f"Marking task as UP_FOR_RETRY. dag_id={run.dag_id}"
        wait_until(lambda: given_up in airflow.log("scheduler").read_text(), "the scheduler schedules a retry")
    assert not simulator.job(job_id).cancel_requested_at
    airflow.restart("api-server")
    wait_until(lambda: is_served(airflow), "the API server responds")
    wait_until(lambda: run.details()["try_number"] == 2, "the next try begins", timeout=600)
    note(f"the next try began {time.monotonic() - began:.1f} s after the API server was killed")
    run.wait_for("success")
    assert f"Job {job_id}, which try 1 has started," in "\n".join(run.provider_log_lines(2))
    assert jobs_of(simulator, connection_id) == [job_id]
    assert not simulator.job(job_id).cancel_requested_at
    if AIRFLOW >= (3, 1):
        told = [line for line in run.provider_log_lines() if "does not answer" in line]
        note(f"at the end of try 1: {told}")
        assert f"Job {job_id} is left to the retry" in told[0]


def is_served(airflow: LocalAirflow) -> bool:
    try:
        return bool(airflow.api("GET", "dags?limit=1"))
    except httpx.TransportError:
        return False
