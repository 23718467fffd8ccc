from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.system.conftest import Notes

ROOT = Path(__file__).parent.parent.parent

#: Starts a process for each task within twenty seconds, as an executor does. The processes share no state.
FORTY_WORKERS = """
import os, random, sys, time
import pytest
from tests.support.task_runs import drive, no_variables
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

# There is no database for the records that Airflow 2 stores in variables.
no_variables(pytest.MonkeyPatch())
workers = []
for number in range(1, 41):
    if not (worker := os.fork()):
        time.sleep(random.uniform(0, 20))
        connection_id = f"conn_demo_{number:02}"
        run = drive(lambda: PlanasonixSyncOperator(task_id="sync", connection_id=connection_id, poll_interval=10))
        if run.error:
            print(f"{connection_id}: {run.error!r}", file=sys.stderr, flush=True)
        os._exit(run.error is not None)
    workers.append(worker)
sys.exit(sum(os.waitpid(worker, 0)[1] != 0 for worker in workers))
"""


@pytest.mark.timeout(1200)
def test_forty_workers_keep_to_120_requests_a_minute(tmp_path: Path, note: Notes) -> None:
    connections = [f"conn_demo_{number:02}" for number in range(1, 41)]
    with Simulator(api_key=API_KEY, job_seconds=90, connections=connections, rate_limit=120) as simulator:
        connection = json.dumps(simulator.airflow_connection())
        env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_PLANASONIX_DEFAULT": connection}
        workers = subprocess.run(
            [sys.executable, "-c", FORTY_WORKERS], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
        )
    assert workers.returncode == 0, workers.stderr
    asked = Counter(request.status for request in simulator.requests)
    note(f"{asked.total()} requests for 40 syncs, of which {asked[429]} got 429; {len(simulator.jobs())} jobs")
    assert len(simulator.jobs()) == 40
    # The share depends on when the processes start: 0 to 2.3 %. Without the rate limiter, it is 20 %.
    assert asked[429] <= 0.05 * asked.total()
