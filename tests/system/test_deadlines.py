"""The deadline alert of a late DAG run reports the state of its job."""

from __future__ import annotations

import re
import time

import pytest

from dev.local_airflow import LocalAirflow
from planasonix_provider.simulator import Simulator
from tests.system.conftest import Notes
from tests.system.runs import AIRFLOW, TaskRun, wait_until

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 1), reason="deadline alerts need Airflow 3.1")

CONNECTION = "conn_demo_48"


def test_a_late_run_is_reported_with_its_job(airflow: LocalAirflow, simulator: Simulator, note: Notes) -> None:
    simulator.plan(CONNECTION, running_seconds=600)
    began = time.monotonic()
    run = TaskRun.start(airflow, "late_sync")
    pattern = rf"DAG run {re.escape(run.run_id)} of late_sync is late\. (.*?/jobs/job_\w+|[^\[\n]*)"
    report = wait_until(lambda: re.search(pattern, airflow.log("triggerer").read_text()), "the run is reported")
    note(f"reported {time.monotonic() - began:.0f} s after the run was started: {report[0]}")
    (job,) = (job for job in simulator.jobs() if job.connection_id == CONNECTION)
    url = f"{simulator.url}/jobs/{job.id}"
    assert re.fullmatch(rf"Job {job.id} is (queued|running), [\d,]+ rows loaded: {re.escape(url)}", report[1])
    # The alert does not cancel the job.
    assert not job.is_over
    run.mark_failed()
    wait_until(lambda: run.is_over, "the task ends")
