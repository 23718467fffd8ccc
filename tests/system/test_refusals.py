"""Errors of a proxy for some seconds end no wait, and do not count as the API's response that a job is gone."""

from __future__ import annotations

import time

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.clock import utcnow
from planasonix_provider.simulator import Simulator
from tests.support.proxy import REFUSALS, Proxy
from tests.system.conftest import Notes
from tests.system.runs import WAYS, TaskRun, wait_until
from tests.system.test_attempts import count_starts, jobs_of, note_log_lines
from tests.system.test_deaths import assert_starts_after_end, wait_for_cancel, wait_until_waiting

PROXIED = "planasonix_proxied"
#: The seconds for which the proxy responds with one kind of error.
A_WHILE = 5.0


def start_in_each_way(
    airflow: LocalAirflow, simulator: Simulator, connection_id: str, seconds: float
) -> tuple[dict[str, TaskRun], dict[str, str]]:
    """Start a task on a worker and a deferred one. Return them with their jobs when both wait."""
    runs, jobs = {}, {}
    for way in WAYS:
        connection = f"{connection_id}_{way}"
        simulator.workspace.add_connection(connection)
        simulator.plan(connection, running_seconds=seconds)
        runs[way] = TaskRun.start(airflow, f"sync_{way}", connection_id=connection, planasonix_conn_id=PROXIED)
    for way, run in runs.items():
        jobs[way] = wait_until_waiting(run, simulator)
    return runs, jobs


def test_proxy_errors_end_neither_waits_nor_results(
    airflow: LocalAirflow, simulator: Simulator, proxy: Proxy, connection_id: str, note: Notes
) -> None:
    runs, jobs = start_in_each_way(airflow, simulator, connection_id, seconds=40)
    for how in REFUSALS:
        proxy.refuse("reads", how, A_WHILE)
        proxy.refuse("writes", how, A_WHILE)
        time.sleep(A_WHILE)
        assert proxy.counts[f"reads refused: {how}"], "no request met this error"
    # The jobs end while the proxy returns errors, so that requests for their results meet them, too.
    over = time.monotonic() + 120
    while not all(simulator.job(job_id).status == "succeeded" for job_id in jobs.values()):
        assert time.monotonic() < over
        proxy.refuse("reads", "404 html", A_WHILE)
        time.sleep(1)
    time.sleep(A_WHILE)
    for way, run in runs.items():
        run.wait_for("success")
        note_log_lines(run, note)
        assert run.details()["try_number"] == 1
        (job,) = jobs_of(simulator, f"{connection_id}_{way}")
        assert (job.id, job.status, job.cancel_requested_at) == (jobs[way], "succeeded", None)
        assert run.xcom()["job_id"] == job.id
    note(str(dict(proxy.counts)))


def test_a_cancel_survives_a_proxy_error(
    airflow: LocalAirflow, simulator: Simulator, proxy: Proxy, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "sync_deferred", connection_id=connection_id, planasonix_conn_id=PROXIED)
    job_id = wait_until_waiting(run, simulator)
    for which in ("reads", "writes"):
        proxy.refuse(which, "403 html", 12)
    given_up_at = utcnow()
    run.mark_failed()
    wait_until(lambda: proxy.counts["writes refused: 403 html"], "the cancel is refused")
    note(f"asked to cancel {wait_for_cancel(simulator, job_id, given_up_at):.1f} s later: {dict(proxy.counts)}")
    wait_until(lambda: simulator.job(job_id).status == "cancelled", "the job is cancelled")


@pytest.mark.parametrize("how", ["404 html", "404 text"])
def test_two_proxy_errors_at_a_retry_start_no_second_job(
    how: str, airflow: LocalAirflow, simulator: Simulator, proxy: Proxy, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=30)
    run = TaskRun.start(airflow, "retried_sync_on_a_worker", connection_id=connection_id, planasonix_conn_id=PROXIED)
    wait_until(lambda: run.job(simulator).status == "running", "the job runs")
    wait_until(lambda: (run.record() or {}).get("id"), "the record has the job's id")
    run.send_sigkill()
    proxy.refuse("reads", how, 600)
    wait_until(lambda: run.details()["try_number"] == 2, "the retry begins")
    before = proxy.counts[f"reads refused: {how}"]
    wait_until(lambda: proxy.counts[f"reads refused: {how}"] >= before + 2, "the retry meets two refusals")
    proxy.calm()
    run.wait_for("success")
    note_log_lines(run, note)

    (job,) = jobs_of(simulator, connection_id)
    assert (job.status, job.cancel_requested_at) == ("succeeded", None)
    assert count_starts(simulator, connection_id) == 1
    assert any(line.startswith(f"Job {job.id}, which try 1 has started, ") for line in run.provider_log_lines(2))
    assert run.xcom()["job_id"] == job.id


def test_a_cleared_task_cancels_its_old_job_despite_a_proxy_error(
    airflow: LocalAirflow, simulator: Simulator, proxy: Proxy, connection_id: str, note: Notes
) -> None:
    simulator.plan(connection_id, running_seconds=300)
    run = TaskRun.start(airflow, "retried_sync_deferred", connection_id=connection_id, planasonix_conn_id=PROXIED)
    wait_until_waiting(run, simulator)
    for which in ("reads", "writes"):
        proxy.refuse(which, "404 html", 600)
    run.clear()
    wait_until(lambda: run.details()["try_number"] == 2, "the cleared task begins")
    before = proxy.counts["reads refused: 404 html"]
    wait_until(lambda: proxy.counts["reads refused: 404 html"] >= before + 2, "the task meets two refusals")
    proxy.calm()
    wait_until(lambda: len(jobs_of(simulator, connection_id)) == 2, "another job is started")
    run.wait_for("success")
    note_log_lines(run, note)
    assert_starts_after_end(simulator, *(job.id for job in jobs_of(simulator, connection_id)))
