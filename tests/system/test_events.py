"""Asset watchers in a running Airflow."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.api.models import SyncBody
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.components import kill_process_tree
from tests.system.conftest import Notes
from tests.system.rest import query_database
from tests.system.runs import AIRFLOW, TaskRun, needs_watchers, wait_until

pytestmark = needs_watchers

#: The number of watchers of the Airflow connection ``planasonix_events``.
WATCHERS = 6
#: The number of jobs in the test that kills the triggerer twice.
MANY = 1_000
#: The seconds for which fifty idle watchers are observed, and their poll interval.
OBSERVED_SECONDS, INTERVAL = 60, 5
#: Maximum seconds to wait for a triggerer that was killed.
TIMEOUT_SECONDS = 400.0


@pytest.fixture(scope="module")
def watched(airflow: LocalAirflow) -> Iterator[Simulator]:
    """The simulator that the watchers poll. Until this fixture, they run without their Airflow connection."""
    names = ("conn_events_react", "conn_events_many", "conn_events_own", "conn_events_twin", "conn_events_together")
    with Simulator(api_key=API_KEY, connections=names, rate_limit=1_000_000) as simulator:
        simulator.workspace.configure(conflict="allowed", show_metadata=True)
        add_connection(airflow, "planasonix_events", simulator.airflow_connection())
        if AIRFLOW < (3, 3):
            # Each watcher reports jobs from its own first scan on. After it, the watcher stores its cursor.
            wait_until(
                lambda: count_cursors(airflow) >= WATCHERS, "each watcher has scanned the lists", TIMEOUT_SECONDS
            )
        yield simulator


def count_cursors(airflow: LocalAirflow) -> int:
    """Count the cursors of watchers. Airflow 3.3 and later do not store them in variables."""
    ((count,),) = query_database(airflow, "SELECT count(*) FROM variable WHERE key LIKE %s", "planasonix_events_%")
    return int(count)


def wait_until_watched(simulator: Simulator) -> None:
    """Wait for two more scans: then every watcher that had started has seen what existed before."""
    before = count_scans(simulator)
    wait_until(lambda: count_scans(simulator) >= before + 2, "the lists are scanned", TIMEOUT_SECONDS)


def count_scans(simulator: Simulator) -> int:
    return sum(request.route == "list_jobs" for request in simulator.requests)


def payloads(airflow: LocalAirflow, name: str) -> list[dict[str, Any]]:
    """Return the payloads of an asset's events, oldest first.

    They are read from the database, because the REST API returns 500 while a DAG run of an event is queued.
    """
    statement = """
        SELECT asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_event.asset_id
        WHERE asset.name = %s ORDER BY asset_event.timestamp, asset_event.id
    """
    return [extra["payload"] for (extra,) in query_database(airflow, statement, name)]


def count_events(airflow: LocalAirflow, name: str) -> int:
    return len(payloads(airflow, name))


def runs(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    return list(airflow.api("GET", f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"])


@pytest.mark.timeout(900)
def test_a_job_of_another_system_starts_the_dag_once(airflow: LocalAirflow, watched: Simulator, note: Notes) -> None:
    wait_until_watched(watched)
    job = watched.workspace.start_sync("conn_events_react", SyncBody(pipeline_id="pl_1", metadata={"by": "a person"}))
    ended = time.monotonic() + 2.2
    wait_until(lambda: runs(airflow, "events_react"), "the DAG starts")
    note(f"the DAG run was created {time.monotonic() - ended:.1f} s after the job's end, at an interval of 3 s")
    wait_until_watched(watched)
    (payload,) = payloads(airflow, "events_react")
    (run,) = runs(airflow, "events_react")
    assert run["run_type"] == "asset_triggered"
    task = TaskRun(airflow, "events_react", run["dag_run_id"], task_id="react")
    task.wait_for("success")
    assert task.xcom() == [job.id]
    assert payload == {
        "event": "job.succeeded",
        "type": "connection_sync",
        "job_id": job.id,
        "connection_id": "conn_events_react",
        "pipeline_id": "pl_1",
        "status": "succeeded",
        "created_at": payload["created_at"],
        "finished_at": payload["finished_at"],
        "error": None,
        "window": payload["window"],
        "metrics": payload["metrics"],
        "metadata": {"by": "a person"},
        "job_url": payload["job_url"],
    }
    assert payload["metrics"]["rows_loaded"] == 44802
    assert payload["job_url"].endswith(f"/jobs/{job.id}")


@pytest.mark.timeout(900)
def test_a_dag_that_watches_its_own_connection_ignores_its_own_jobs(airflow: LocalAirflow, watched: Simulator) -> None:
    wait_until_watched(watched)
    theirs = watched.workspace.start_sync("conn_events_own", SyncBody(metadata={"by": "a person"}))
    wait_until(lambda: runs(airflow, "events_own"), "the DAG starts")
    wait_until(lambda: runs(airflow, "events_own")[0]["state"] == "success", "the DAG's own sync is over")
    wait_until_watched(watched)
    wait_until_watched(watched)
    assert [payload["job_id"] for payload in payloads(airflow, "events_own")] == [theirs.id]
    assert len(runs(airflow, "events_own")) == 1
    assert len([job for job in watched.jobs() if job.connection_id == "conn_events_own"]) == 2


def set_paused(airflow: LocalAirflow, dag_id: str, *, is_paused: bool) -> None:
    """Pause or unpause a DAG, and wait until it is parsed: only then its assets lose or get their watchers."""
    began = datetime.now(UTC)
    airflow.api("PATCH", f"dags/{dag_id}", {"is_paused": is_paused})
    wait_until(
        lambda: datetime.fromisoformat(airflow.api("GET", f"dags/{dag_id}")["last_parsed_time"]) > began,
        f"{dag_id} is parsed",
    )


@pytest.mark.timeout(900)
def test_equal_watchers_both_get_events_while_one_dag_is_paused(
    airflow: LocalAirflow, watched: Simulator, note: Notes
) -> None:
    wait_until_watched(watched)
    first = watched.workspace.start_sync("conn_events_twin")
    for name in ("events_twin_one", "events_twin_other"):
        wait_until(lambda name=name: count_events(airflow, name), f"{name} has the first event")
    wait_until_watched(watched)
    set_paused(airflow, "events_twin_other", is_paused=True)
    wait_until_watched(watched)
    second = watched.workspace.start_sync("conn_events_twin")
    wait_until(lambda: count_events(airflow, "events_twin_one") == 2, "the watched asset has the second event")
    wait_until_watched(watched)
    assert [payload["job_id"] for payload in payloads(airflow, "events_twin_other")] == [first.id]
    set_paused(airflow, "events_twin_other", is_paused=False)
    began = time.monotonic()
    wait_until(lambda: count_events(airflow, "events_twin_other") == 2, "the other asset has the second event")
    note(f"event {time.monotonic() - began:.1f} s after the unpaused DAG was parsed")
    for name in ("events_twin_one", "events_twin_other"):
        assert [payload["job_id"] for payload in payloads(airflow, name)] == [first.id, second.id]


@pytest.mark.timeout(900)
def test_a_run_reads_all_events_that_arrived_together(airflow: LocalAirflow, watched: Simulator, note: Notes) -> None:
    wait_until_watched(watched)
    watched.plan("conn_events_together", times=None, queued_seconds=0, running_seconds=5)
    jobs = [watched.workspace.start_sync("conn_events_together").id for _ in range(12)]
    wait_until(lambda: count_events(airflow, "events_together") == len(jobs), "all events exist")
    wait_until_watched(watched)
    started_by: list[list[str]] = []
    read: set[str] = set()
    for run in runs(airflow, "events_together"):
        for task_id in ("react", "read"):
            task = TaskRun(airflow, "events_together", run["dag_run_id"], task_id=task_id)
            task.wait_for("success")
            if task_id == "react":
                started_by.append(task.xcom())
            else:
                read |= set(task.xcom())
    note(f"{len(jobs)} events started {len(started_by)} runs, by {[len(ids) for ids in started_by]} events each")
    left_out = set(jobs).difference(*started_by)
    note(f"{len(left_out)} events wait for the next one of the asset")
    assert len(started_by) < len(jobs)
    assert read == set(jobs)

    # The waiting events are among those that start the next run.
    later = watched.workspace.start_sync("conn_events_together").id
    wait_until(lambda: len(runs(airflow, "events_together")) > len(started_by), "the next run exists")
    newest = max(runs(airflow, "events_together"), key=lambda run: run["run_after"])
    task = TaskRun(airflow, "events_together", newest["dag_run_id"], task_id="react")
    task.wait_for("success")
    assert set(task.xcom()) == {*left_out, later}


@pytest.mark.timeout(1800)
def test_a_thousand_events_survive_two_kills_of_the_triggerer(
    airflow: LocalAirflow, watched: Simulator, note: Notes
) -> None:
    wait_until_watched(watched)
    chance = random.Random(7)
    before = len(watched.requests)
    for _ in range(MANY):
        outcome = chance.choice(["succeeded", "succeeded", "failed"])
        watched.plan("conn_events_many", queued_seconds=0, running_seconds=chance.uniform(0, 90), outcome=outcome)
        watched.workspace.start_sync("conn_events_many")
    jobs = {job.id for job in watched.jobs() if job.connection_id == "conn_events_many"}
    assert len(jobs) == MANY
    began = time.monotonic()
    for number in (100, 400):
        wait_until(
            lambda number=number: count_events(airflow, "events_many") >= number,
            f"{number} events exist",
            TIMEOUT_SECONDS,
        )
        kill_process_tree(airflow, "triggerer")
        note(f"killed when {count_events(airflow, 'events_many')} events existed ({time.monotonic() - began:.0f} s)")
        time.sleep(5)
        airflow.restart("triggerer")
    wait_until(
        lambda: {p["job_id"] for p in payloads(airflow, "events_many")} == jobs,
        "every job has an event",
        TIMEOUT_SECONDS,
        every=2,
    )
    counts = Counter(payload["job_id"] for payload in payloads(airflow, "events_many"))
    note(f"all {MANY} events after {time.monotonic() - began:.0f} s, {sum(counts.values()) - MANY} repeated")
    note(f"{len(watched.requests) - before} requests of {MANY} jobs")
    assert {p["event"] for p in payloads(airflow, "events_many")} == {"job.succeeded", "job.failed"}

    # Without kills, each job has one event.
    watched.plan("conn_events_many", times=None, queued_seconds=0, running_seconds=5)
    late = {watched.workspace.start_sync("conn_events_many").id for _ in range(150)}
    wait_until(
        lambda: late <= {p["job_id"] for p in payloads(airflow, "events_many")},
        "every job has an event",
        TIMEOUT_SECONDS,
        every=2,
    )
    wait_until_watched(watched)
    new_counts = Counter(payload["job_id"] for payload in payloads(airflow, "events_many")) - counts
    assert new_counts == Counter(late)


@pytest.mark.timeout(900)
def test_fifty_watchers_cost_the_requests_of_one(airflow: LocalAirflow, note: Notes) -> None:
    with Simulator(api_key=API_KEY, rate_limit=1_000_000) as simulator:
        add_connection(airflow, "planasonix_fifty", simulator.airflow_connection())
        wait_until_watched(simulator)
        wait_until_watched(simulator)
        note(f"{len(simulator.requests)} requests until all fifty watched")
        before = len(simulator.requests)
        time.sleep(OBSERVED_SECONDS)
        idle = simulator.requests[before:]
        note(f"{len(idle)} requests of fifty idle watchers in {OBSERVED_SECONDS} s, at an interval of {INTERVAL} s")
        assert {request.route for request in idle} == {"list_jobs"}
        assert abs(len(idle) - OBSERVED_SECONDS / INTERVAL) <= 1
        job = simulator.workspace.start_sync("conn_demo_01", SyncBody(pipeline_id="pl_17"))
        wait_until(lambda: count_events(airflow, "events_fifty_17"), "the watcher of its pipeline has an event")
        assert [payload["job_id"] for payload in payloads(airflow, "events_fifty_17")] == [job.id]
        assert not count_events(airflow, "events_fifty_18")
