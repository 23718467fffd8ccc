from __future__ import annotations

import time
from datetime import UTC, datetime

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.components import terminate
from tests.system.conftest import Notes
from tests.system.runs import POLLS_BY_TASK, SENSOR_MODES, TaskRun, count_polls, wait_until

#: The expected state of each task of the DAGs.
STATES = {"good": "success", "bad": "failed", "bad_but_soft": "skipped", "late": "failed", "late_but_soft": "skipped"}
#: The timeout of the late sensors in seconds.
TIMEOUT = 12.0


def count_list_requests(simulator: Simulator, connection_id: str) -> int:
    """Count the requests for the list of a connection's successful syncs."""
    wanted = {f"connection_id={connection_id}", "status=succeeded"}
    return sum(wanted <= set(request.query.split("&")) for request in simulator.requests)


def test_a_sync_sensor_sees_a_sync_that_ended_without_a_triggerer(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    early = simulator.workspace.start_sync(connection_id).id
    wait_until(lambda: simulator.job(early).is_over, "the early sync is over")
    since = datetime.now(UTC).isoformat()
    run = TaskRun.start(airflow, "sync_sensor", connection_id=connection_id, since=since).task("fresh")
    run.wait_for("deferred")
    wait_until(lambda: count_list_requests(simulator, connection_id) > POLLS_BY_TASK, "the triggerer polls")
    terminate(airflow, "triggerer")
    sync = simulator.workspace.start_sync(connection_id).id
    wait_until(lambda: simulator.job(sync).status == "succeeded", "the sync is over")
    assert run.state == "deferred"
    began = time.monotonic()
    airflow.restart("triggerer")
    run.wait_for("success")
    note(f"success {time.monotonic() - began:.1f} s after the new triggerer's start")
    assert run.xcom()["job_id"] == sync
    assert run.link() == f"{simulator.url}/jobs/{sync}"
    for line in run.provider_log_lines():
        note(line)


def test_a_job_sensor_behaves_the_same_in_every_mode(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    runs: dict[str, TaskRun] = {}
    jobs: list[str] = []
    silent: list[str] = []
    for mode in SENSOR_MODES:
        conf = {}
        for name, outcome, seconds in (("good", "succeeded", 60), ("bad", "failed", 60), ("long", "succeeded", 300)):
            connection_id = f"conn_{name}_for_{mode}"
            simulator.workspace.add_connection(connection_id)
            simulator.plan(connection_id, outcome=outcome, running_seconds=seconds)
            conf[name] = simulator.workspace.start_sync(connection_id).id
        jobs += conf.values()
        runs[mode] = TaskRun.start(airflow, f"job_sensor_{mode}", **conf)
    for mode, run in runs.items():
        for task_id, state in STATES.items():
            task = run.task(task_id)
            task.wait_for(state)
            note(f"{mode}: {task_id} {state} after {task.seconds:.1f} s")
            for line in task.provider_log_lines():
                note(f"{mode}: {task_id}: {line}")
            assert task.details()["try_number"] == 1
            if task_id.startswith("late"):
                assert TIMEOUT - 1 < task.seconds < TIMEOUT + 50
                if "was not over by" not in task.log():
                    silent.append(f"{mode}: {task_id}")
    for job_id in jobs:
        assert count_polls(simulator, job_id) > 1
        assert simulator.job(job_id).cancel_requested_at is None
    assert silent == [], "their logs do not say why they ended"
