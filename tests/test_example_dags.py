from __future__ import annotations

import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.conftest import DAGS_FOLDER

EXAMPLES = sorted(DAGS_FOLDER.glob("planasonix_*.py"))
CONNECTIONS = {
    "planasonix_nightly_sync": ["conn_01jq8k2m3n4p5q6r7s8t9u0v1"],
    "planasonix_mapped_syncs": [f"conn_demo_{number:02}" for number in range(1, 11)],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("airflow_db")
def test_runs_to_its_end(path: Path, planasonix: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "SETTLING", timedelta(0))
    for connection_id in CONNECTIONS[path.stem][1:]:
        # One deferred task shows as much as ten, which would wait one after the other here.
        planasonix.plan(connection_id, queued_seconds=0, running_seconds=0)
    dag: Any = runpy.run_path(str(path))["dag"]
    assert dag.dag_id == path.stem
    run = dag.test()
    assert str(getattr(run.state, "value", run.state)) == "success"
    jobs = planasonix.jobs()
    assert sorted(job.connection_id or "" for job in jobs) == CONNECTIONS[path.stem]
    assert {job.status for job in jobs} == {"succeeded"}
    assert {(job.metadata or {})["dag_id"] for job in jobs} == {path.stem}
