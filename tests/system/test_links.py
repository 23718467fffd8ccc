from __future__ import annotations

import httpx

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.runs import WAITING_STATE, TaskRun


def assert_link_leads_to_job(run: TaskRun, simulator: Simulator) -> None:
    job = run.job(simulator)
    link = run.link()
    assert link == f"{simulator.url}/jobs/{job.id}"
    page = httpx.get(link)
    assert page.status_code == 200
    assert job.id in page.text
    assert str(job.connection_id) in page.text


def test_the_link_leads_to_the_job_during_and_after_the_task(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, way: str
) -> None:
    simulator.plan(connection_id, running_seconds=20)
    run = TaskRun.start(airflow, f"sync_{way}", connection_id=connection_id)
    run.job(simulator)
    run.wait_for(WAITING_STATE[way])
    assert_link_leads_to_job(run, simulator)
    assert run.state == WAITING_STATE[way]
    run.wait_for("success")
    assert_link_leads_to_job(run, simulator)


def test_the_link_of_each_mapped_task_leads_to_its_own_job(
    airflow: LocalAirflow, simulator: Simulator, way: str
) -> None:
    for number in range(1, 6):
        simulator.plan(f"conn_demo_{number:02}", running_seconds=40)
    tasks = TaskRun.start(airflow, f"five_syncs_{way}").mapped()
    for task in tasks:
        task.job(simulator)
        task.wait_for(WAITING_STATE[way])
        assert_link_leads_to_job(task, simulator)
        assert task.state == WAITING_STATE[way]
    assert len({task.link() for task in tasks}) == 5
    for task in tasks:
        task.wait_for("success")
        assert_link_leads_to_job(task, simulator)
