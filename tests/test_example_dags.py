from __future__ import annotations

import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from planasonix_provider.keepers import keeper
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.conftest import DAGS_FOLDER

ORDERS = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
DEMO = [f"conn_demo_{number:02}" for number in range(1, 11)]

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(autouse=True)
def _no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "SETTLING", timedelta(0))


def runs_to_its_end(name: str) -> None:
    dag: Any = runpy.run_path(str(DAGS_FOLDER / f"{name}.py"))["dag"]
    assert dag.dag_id == name
    run = dag.test()
    assert str(getattr(run.state, "value", run.state)) == "success"


def at_once(planasonix: Simulator, *connections: str) -> None:
    """One deferred task shows as much as ten, which would wait one after the other here."""
    for connection_id in connections:
        planasonix.plan(connection_id, queued_seconds=0, running_seconds=0)
        planasonix.plan_backfill(connection_id, times=None, queued_seconds=0, job_seconds=0)


def test_every_example_is_run_here() -> None:
    run = {name.removeprefix("test_") for name in globals() if name.startswith("test_planasonix_")}
    assert {path.stem for path in Path(__file__).parent.parent.glob("example_dags/*.py")} == run


def test_planasonix_nightly_sync(planasonix: Simulator) -> None:
    runs_to_its_end("planasonix_nightly_sync")
    (job,) = planasonix.jobs()
    assert (job.connection_id, job.status) == (ORDERS, "succeeded")
    assert (job.metadata or {})["dag_id"] == "planasonix_nightly_sync"


def test_planasonix_mapped_syncs(planasonix: Simulator) -> None:
    at_once(planasonix, *DEMO)
    runs_to_its_end("planasonix_mapped_syncs")
    assert sorted(job.connection_id or "" for job in planasonix.jobs()) == DEMO
    assert {job.status for job in planasonix.jobs()} == {"succeeded"}


def test_planasonix_backfill_by_month(planasonix: Simulator) -> None:
    at_once(planasonix, ORDERS)
    runs_to_its_end("planasonix_backfill_by_month")
    windows = sorted((backfill.start_at, backfill.end_at) for backfill in planasonix.backfills())
    assert len(windows) == 12
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert {backfill.status for backfill in planasonix.backfills()} == {"completed"}


def test_planasonix_wait_for_others(planasonix: Simulator) -> None:
    theirs = planasonix.world.start_sync(ORDERS)
    runs_to_its_end("planasonix_wait_for_others")
    ours, _ = planasonix.jobs()
    assert (ours.connection_id, ours.status) == ("conn_demo_01", "succeeded")
    assert planasonix.job(theirs.id).cancel_requested_at is None


def test_planasonix_webhook(planasonix: Simulator) -> None:
    place = keeper("variable:planasonix_webhook_secret")
    for _ in range(2):
        runs_to_its_end("planasonix_webhook")
        (webhook,) = planasonix.world.webhooks.all()
        kept = place.kept()
        assert kept is not None
        assert kept.webhook_id == webhook.id
    assert len(kept.secrets) == 2
    assert sum(request.route == "create_webhook" for request in planasonix.requests) == 1
    assert sum(request.route == "rotate_webhook_secret" for request in planasonix.requests) == 1
