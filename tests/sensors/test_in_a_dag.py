"""Sensors as Airflow itself runs them, with its guards and its own handling of deferral and of skips."""

from __future__ import annotations

from typing import Any

import pytest

from planasonix_provider.simulator import Simulator
from tests.conftest import DAGS_FOLDER

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"

DAG_FILE = """
from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.sensors.planasonix import PlanasonixJobSensor

with DAG("sensors", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    for name, how in {ways}.items():
        PlanasonixJobSensor(task_id=name, poke_interval=1, **how)
"""


@pytest.mark.usefixtures("airflow_db")
def test_each_way_ends_as_wanted_and_no_guard_complains(
    planasonix: Simulator, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    job_id = planasonix.world.start_sync(CONNECTION).id
    ways = {
        "poke": {"job_id": job_id},
        "reschedule": {"job_id": job_id, "mode": "reschedule"},
        "deferred": {"job_id": job_id, "deferrable": True},
        "skipped": {"job_id": "job_unknown", "deferrable": True, "soft_fail": True},
    }
    path = DAGS_FOLDER / "sensors.py"
    path.write_text(DAG_FILE.format(ways=ways))
    try:
        names: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), names)
        run = names["dag"].test()
    finally:
        path.unlink()
    assert str(getattr(run.state, "value", run.state)) == "success"
    told = "".join([*capfd.readouterr(), caplog.text])
    assert "cannot be called outside" not in told
