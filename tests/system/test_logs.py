from __future__ import annotations

import re

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import WAYS, TaskRun


def without_names_and_figures(line: str) -> str:
    return re.sub(r"[\d,.]*\d( bytes| [kMG]B)?", "<figure>", re.sub(r"http\S+|(job|conn|req)_\w+", "<name>", line))


def test_the_log_is_the_same_on_a_worker_and_deferred(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, note: Notes
) -> None:
    told = {}
    for way in WAYS:
        warnings = [{"code": "column_type_widened", "message": "Column discount_pct coerced"}]
        simulator.plan(connection_id, queued_seconds=20, running_seconds=5, warnings=warnings)
        simulator.fail("status", route="get_job", status=502, skip=3)
        run = TaskRun.start(airflow, f"sync_{way}", connection_id=connection_id)
        run.wait_for("success")
        for line in run.provider_log_lines():
            note(f"{way}: {line}")
        told[way] = [without_names_and_figures(line) for line in run.provider_log_lines()]
    assert told["deferred"] == told["on_a_worker"]
    said = iter(told["deferred"])
    for beginning in (
        "Started job <name>",
        "Job <name> is queued",
        "No news of job <name>, still waiting",
        "Planasonix answers again",
        "Job <name> is running",
        "Job <name> succeeded",
        "Job <name> warns: column_type_widened: Column discount_pct coerced",
        "Loaded <figure> rows into <figure> table",
    ):
        assert next(said).startswith(beginning)
    assert list(said) == []


def test_each_deferred_task_has_only_its_own_log_lines(airflow: LocalAirflow, simulator: Simulator) -> None:
    for number in range(1, 6):
        simulator.plan(f"conn_demo_{number:02}", queued_seconds=10, running_seconds=15)
    tasks = TaskRun.start(airflow, "five_syncs_deferred").mapped()
    for task in tasks:
        task.wait_for("success")
    for task in tasks:
        job = task.job(simulator)
        assert set(re.findall(r"job_[0-9a-f]{32}", task.log())) == {job.id}
        _started, *states, _loaded = task.provider_log_lines()
        assert [re.match(rf"Job {job.id} (is )?(\w+)", line)[2] for line in states] == [
            "queued",
            "running",
            "succeeded",
        ]
