"""Three hundred deferred syncs in one triggerer, which is killed. The same with a naive trigger, for comparison."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from math import nan

import httpx
import pytest

from dev.local_airflow import LocalAirflow, add_connection
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.components import cpu_seconds, kill_process_tree, megabytes
from tests.system.conftest import Notes
from tests.system.runs import Clock, TaskRun, wait_until

SYNCS = 300
#: The number of jobs that end before the others. The triggerer is killed when it has reported the first of them.
FIRST = 100
#: The seconds between two polls: the operator's default.
INTERVAL = 10
#: The seconds for which the triggerer is observed.
WATCHED = 40
#: Maximum seconds to wait for three hundred tasks on a machine with two cores.
TIMEOUT_SECONDS = 400.0


@pytest.fixture(scope="module")
def bills() -> Iterator[dict[str, dict[str, float]]]:
    """The costs of the waits of each DAG; the summary shows them as a table."""
    bills: dict[str, dict[str, float]] = {}
    yield bills
    note = Notes(f"{SYNCS} deferred syncs")
    note(" " * 60 + "".join(f"{name:>20}" for name in bills))
    for what in {what: None for bill in bills.values() for what in bill}:
        note(f"{what:60}" + "".join(f"{bill.get(what, nan):20,.1f}" for bill in bills.values()))


@pytest.mark.timeout(5 * TIMEOUT_SECONDS)
@pytest.mark.parametrize("dag_id", ["many_syncs", "many_syncs_naive"])
def test_three_hundred_syncs_survive_a_kill_of_the_triggerer(
    dag_id: str, airflow: LocalAirflow, bills: dict[str, dict[str, float]]
) -> None:
    clock, connections = Clock(), [f"conn_many_{number:03}" for number in range(SYNCS)]
    bill = bills[dag_id] = {}
    # The naive triggers send thirty requests a second, so the rate limit must be higher.
    with Simulator(api_key=API_KEY, connections=connections, clock=clock, rate_limit=1_000_000) as simulator:
        for number, connection_id in enumerate(connections):
            hours = 1 if number < FIRST else 2
            simulator.plan(connection_id, queued_seconds=0, running_seconds=timedelta(hours=hours).total_seconds())
        add_connection(airflow, "planasonix_many", simulator.airflow_connection())
        # With a new process, memory that earlier tests needed does not hide the memory of this test.
        airflow.restart("triggerer")
        wait_until(lambda: airflow.health()["triggerer"]["status"] == "healthy", "the triggerer is healthy")
        time.sleep(2 * INTERVAL)
        computed = cpu_seconds(airflow, "triggerer")
        time.sleep(WATCHED)
        cpu = cpu_seconds(airflow, "triggerer")
        bill[f"triggerer's CPU, s, in {WATCHED} s without triggers"] = cpu - computed
        bill["triggerer's memory, MB, without triggers"] = megabytes(airflow, "triggerer")

        began = time.monotonic()
        run = TaskRun.start(airflow, dag_id)
        wait_until(lambda: run.count("deferred") == SYNCS, "all tasks wait", TIMEOUT_SECONDS, every=1)
        bill["s until all tasks wait"] = time.monotonic() - began

        # Wait until the triggerer has started even the last trigger.
        time.sleep(2 * INTERVAL)
        asked, computed = len(simulator.requests), cpu_seconds(airflow, "triggerer")
        time.sleep(WATCHED)
        watched = simulator.requests[asked:]
        bill[f"requests in {WATCHED} s while all tasks wait"] = len(watched)
        bill[f"triggerer's CPU, s, in {WATCHED} s while all tasks wait"] = cpu_seconds(airflow, "triggerer") - computed
        bill["triggerer's memory, MB, while all tasks wait"] = megabytes(airflow, "triggerer")

        clock.ahead += timedelta(hours=1)
        wait_until(lambda: run.count("deferred") < SYNCS, "the first tasks resume")
        bill["triggerer's CPU, s, from the run's start until it is killed"] = cpu_seconds(airflow, "triggerer") - cpu
        kill_process_tree(airflow, "triggerer")
        bill["tasks that have resumed by then"] = SYNCS - run.count("deferred")
        airflow.restart("triggerer")
        wait_until(lambda: run.count("success") == FIRST, f"{FIRST} succeed", TIMEOUT_SECONDS, every=1)

        clock.ahead += timedelta(hours=1)
        ended = time.monotonic()
        wait_until(lambda: run.count("deferred") == 0, "the other tasks resume", TIMEOUT_SECONDS, every=1)
        bill["s from the last job's end until no task waits"] = time.monotonic() - ended
        wait_until(lambda: run.dag_run_state in ("success", "failed"), "the run ends", TIMEOUT_SECONDS, every=1)
        bill["s from the last job's end to the run's end"] = time.monotonic() - ended
        bill["the new triggerer's CPU, s, from its start to the run's end"] = cpu_seconds(airflow, "triggerer")
        counts = httpx.get(f"{simulator.url}/_simulator/state").json()["data"]["counts"]
        bill["requests in total"] = sum(counts.values())
        bill["s in total"] = time.monotonic() - began

        assert run.count("success") == SYNCS
        assert sorted(job.connection_id for job in simulator.jobs()) == connections
        assert {job.status for job in simulator.jobs()} == {"succeeded"}
        assert counts["trigger_sync"] == SYNCS
        looks = Counter(request.path for request in watched)
        lists = looks.pop("/api/v1/jobs", 0)
    if dag_id == "many_syncs":
        assert lists <= SYNCS / PAGE_SIZE * (WATCHED / INTERVAL + 1)
        # Besides, each job is polled at most once in four minutes.
        assert max(looks.values(), default=0) <= 1
    else:
        assert len(looks) == SYNCS
