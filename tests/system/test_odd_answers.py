"""Responses with values that PostgreSQL cannot store, or with unreadable rows, do not affect other tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.api.models import SyncBody
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.conftest import Notes
from tests.system.runs import WAYS, TaskRun, needs_watchers, wait_until
from tests.system.test_events import payloads, wait_until_watched

NAMES = ("conn_nul_patient", "conn_nul_failed", "conn_nul_loaded")
#: The seconds for which the other task waits. If a response ends the triggerer, that happens earlier.
PATIENT_SECONDS = 25
#: A message that PostgreSQL rejects, that UTF-8 cannot encode, and that is too long to store.
MESSAGE = "disk\0full\ud800" + "x" * 7_000_000
#: Airflow's deserialization would treat this as an object to create.
FOREIGN = {"__classname__": "builtins.dict", "__data__": {"a": "\0"}, "__version__": 1, "__type": "set", "__var": [1]}


@pytest.fixture
def odd(airflow: LocalAirflow) -> Iterator[Simulator]:
    with Simulator(api_key=API_KEY, connections=NAMES, rate_limit=1_000_000) as simulator:
        simulator.workspace.configure(show_metadata=True)
        add_connection(airflow, "planasonix_odd", simulator.airflow_connection())
        yield simulator


def start(airflow: LocalAirflow, way: str, connection_id: str) -> TaskRun:
    return TaskRun.start(airflow, f"sync_{way}", connection_id=connection_id, planasonix_conn_id="planasonix_odd")


def test_a_nul_in_a_response_does_not_end_the_triggerer(airflow: LocalAirflow, odd: Simulator, note: Notes) -> None:
    odd.plan("conn_nul_patient", running_seconds=PATIENT_SECONDS)
    patient = start(airflow, "deferred", "conn_nul_patient")
    patient.wait_for("deferred")
    triggerer = wait_until(patient.triggerer, "a triggerer has the other task")

    odd.plan("conn_nul_failed", outcome="failed", code="disk\0full", message="The disk is\0full.", running_seconds=3)
    failed = start(airflow, "deferred", "conn_nul_failed")
    wait_until(lambda: failed.jobs(odd), "the task has started its job")
    odd.fail("odd", route="get_job", times=None, fields={"metadata": {"mine": "\0", **FOREIGN}, **FOREIGN})
    failed.wait_for("failed")
    odd.faults.clear()
    assert "Job failed: disk\ufffdfull: The disk is\ufffdfull (job" in failed.log()

    odd.plan("conn_nul_failed", outcome="failed", running_seconds=3)
    long = start(airflow, "deferred", "conn_nul_failed")
    wait_until(lambda: long.jobs(odd), "the task has started its job")
    odd.fail("odd", route="get_job", times=None, fields={"error": {"message": MESSAGE, **FOREIGN}})
    long.wait_for("failed")
    odd.faults.clear()
    assert "failed: disk\ufffdfull\ufffdxxx" in long.log()
    assert len(long.log()) < 50_000
    note(f"the log of a job with a message of 7 MB has {len(long.log()):,} characters")

    patient.wait_for("success")
    assert patient.triggerer() in (None, triggerer)
    assert airflow.processes["triggerer"].poll() is None


@needs_watchers
@pytest.mark.timeout(900)
def test_an_unreadable_row_does_not_stop_a_watcher(airflow: LocalAirflow, note: Notes) -> None:
    with Simulator(api_key=API_KEY, connections=["conn_events_react"], rate_limit=1_000_000) as simulator:
        simulator.fail("odd", route="list_jobs", times=None, fields={"id": "job_odd", "error": {"message": 7}})
        add_connection(airflow, "planasonix_events", simulator.airflow_connection())
        wait_until_watched(simulator)
        before = len(payloads(airflow, "events_react"))
        job = simulator.workspace.start_sync("conn_events_react", SyncBody(pipeline_id="pl_1"))
        later = wait_until(lambda: payloads(airflow, "events_react")[before:], "the asset has an event of the job")
        assert [payload["job_id"] for payload in later] == [job.id]
        looks = [request for request in simulator.requests if request.path.endswith("/job_odd")]
        wait_until_watched(simulator)
        note(f"{len(looks)} polls of the job in the unreadable row")
    log = airflow.log("triggerer").read_text()
    assert log.count("rows cannot be read and are left out") <= 2
    assert "A scan for finished work in Planasonix broke" not in log


@pytest.mark.parametrize("way", WAYS)
def test_a_nul_in_results_does_not_fail_the_task(airflow: LocalAirflow, odd: Simulator, way: str) -> None:
    odd.plan(
        "conn_nul_loaded",
        running_seconds=2,
        tables={"public.or\0ders": 7},
        warnings=[{"code": "odd", "message": "Column \0 is odd."}],
    )
    odd.fail("odd", route="get_job", times=None, fields={"metrics": {"rows_loaded": 7, **FOREIGN}})
    run = start(airflow, way, "conn_nul_loaded")
    run.wait_for("success")
    result = run.xcom()
    assert [table["name"] for table in result["tables"]] == ["public.or\ufffdders"]
    assert result["warnings"] == [{"code": "odd", "message": "Column \ufffd is odd."}]
    assert result["metrics"] == {"rows_extracted": None, "rows_loaded": 7, "bytes_read": None}
    assert "__" not in str(result)
