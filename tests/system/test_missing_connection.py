"""Waits survive if their Airflow connection is deleted and created again some seconds later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dev.local_airflow import LocalAirflow, LocalAirflowError, add_connection
from planasonix_provider.simulator import Simulator
from tests.system.components import kill_process_tree
from tests.system.conftest import Notes
from tests.system.runs import WAYS, TaskRun, wait_until
from tests.system.test_attempts import jobs_of, note_log_lines
from tests.system.test_deaths import wait_until_waiting

CONN_ID = "planasonix_recreated"
#: The seconds for which the connection is missing.
MISSING = 6.0


class Recreated:
    """An Airflow connection that can be deleted and created again."""

    def __init__(self, airflow: LocalAirflow, simulator: Simulator) -> None:
        self._airflow = airflow
        self._fields = simulator.airflow_connection()

    def create(self) -> None:
        add_connection(self._airflow, CONN_ID, self._fields)

    def delete(self) -> None:
        self._airflow.api("DELETE", f"connections/{CONN_ID}")


@pytest.fixture
def connection(airflow: LocalAirflow, simulator: Simulator) -> Iterator[Recreated]:
    connection = Recreated(airflow, simulator)
    connection.create()
    yield connection
    # A failed test may have deleted it.
    with suppress(LocalAirflowError):
        connection.delete()


def start(airflow: LocalAirflow, simulator: Simulator, connection_id: str, seconds: float) -> dict[str, TaskRun]:
    """Start a task on a worker and a deferred one. Return both when they wait."""
    runs = {}
    for way in WAYS:
        simulator.workspace.add_connection(f"{connection_id}_{way}")
        simulator.plan(f"{connection_id}_{way}", running_seconds=seconds)
        conf = {"connection_id": f"{connection_id}_{way}", "planasonix_conn_id": CONN_ID}
        runs[way] = TaskRun.start(airflow, f"sync_{way}", **conf)
    for run in runs.values():
        wait_until_waiting(run, simulator)
    return runs


def assert_both_succeed_with_one_job(
    runs: dict[str, TaskRun], simulator: Simulator, connection_id: str, note: Notes
) -> None:
    for way, run in runs.items():
        run.wait_for("success")
        note_log_lines(run, note)
        (job,) = jobs_of(simulator, f"{connection_id}_{way}")
        assert (job.status, job.cancel_requested_at) == ("succeeded", None)
        assert (run.details()["try_number"], run.xcom()["job_id"]) == (1, job.id)


def test_waits_continue_without_their_connection_after_a_triggerer_restart(
    airflow: LocalAirflow, simulator: Simulator, connection: Recreated, connection_id: str, note: Notes
) -> None:
    runs = start(airflow, simulator, connection_id, seconds=60)
    connection.delete()
    before = runs["deferred"].trigger_starts
    kill_process_tree(airflow, "triggerer")
    airflow.restart("triggerer")
    wait_until(lambda: runs["deferred"].trigger_starts > before, "the trigger starts again")
    time.sleep(MISSING)
    connection.create()
    assert_both_succeed_with_one_job(runs, simulator, connection_id, note)


def test_jobs_that_end_while_the_connection_is_missing_are_reported(
    airflow: LocalAirflow, simulator: Simulator, connection: Recreated, connection_id: str, note: Notes
) -> None:
    runs = start(airflow, simulator, connection_id, seconds=25)
    connection.delete()
    deleted = time.monotonic()
    wait_until(lambda: all(not has_active_job(simulator, f"{connection_id}_{way}") for way in WAYS), "the jobs end")
    time.sleep(MISSING)
    connection.create()
    note(f"the connection was missing for {time.monotonic() - deleted:.0f} s")
    assert_both_succeed_with_one_job(runs, simulator, connection_id, note)


def has_active_job(simulator: Simulator, connection_id: str) -> bool:
    return any(not job.is_over for job in jobs_of(simulator, connection_id))


def test_waits_survive_a_connection_that_is_deleted_and_created_again(
    airflow: LocalAirflow, simulator: Simulator, connection: Recreated, connection_id: str, note: Notes
) -> None:
    """Automation may rotate a key in this way: the old key is revoked while the connection is missing."""
    old = simulator.workspace.keys.add("plnx_test_before_the_deletion").value
    add_connection(airflow, CONN_ID, simulator.airflow_connection() | {"password": old})
    runs = start(airflow, simulator, connection_id, seconds=30)
    connection.delete()
    simulator.workspace.keys.revoke(old)
    time.sleep(MISSING)
    connection.create()
    assert_both_succeed_with_one_job(runs, simulator, connection_id, note)
