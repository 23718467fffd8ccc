from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS

from planasonix_provider.hooks.webhook_receiver import PlanasonixReceiverHook
from planasonix_provider.secret_stores import secret_store
from planasonix_provider.testing import Planasonix
from planasonix_provider.triggers.events import HAS_WATCHERS
from tests.conftest import DAGS_FOLDER
from tests.support.dag_processor import make_assets_known

ORDERS = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
DEMO = [f"conn_demo_{number:02}" for number in range(1, 11)]

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(autouse=True)
def _assets_of_the_simulator(planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANASONIX_HOST", planasonix.simulator.url.removeprefix("http://"))


def runs_to_its_end(name: str, *followers: str, state: str = "success") -> None:
    """Run the DAG of a file, and those that it lets start; each run must end in a state."""
    dags: Any = runpy.run_path(str(DAGS_FOLDER / f"{name}.py"))
    assert dags["dag"].dag_id == name
    if followers:
        make_assets_known(dags["DAG"], [dags[follower] for follower in ("dag", *followers)])
    for dag in ("dag", *followers):
        run = dags[dag].test()
        assert str(getattr(run.state, "value", run.state)) == state


def test_every_example_is_run_here() -> None:
    run = {name.removeprefix("test_") for name in globals() if name.startswith("test_planasonix_")}
    assert {path.stem for path in Path(__file__).parent.parent.glob("example_dags/*.py")} == run


def test_planasonix_nightly_sync(planasonix: Planasonix) -> None:
    runs_to_its_end("planasonix_nightly_sync")
    assert planasonix.assert_started(ORDERS).status == "succeeded"
    (job,) = planasonix.simulator.jobs()
    assert (job.metadata or {})["dag_id"] == "planasonix_nightly_sync"


def test_planasonix_mapped_syncs(planasonix: Planasonix) -> None:
    runs_to_its_end("planasonix_mapped_syncs")
    assert sorted(start.connection_id for start in planasonix.started()) == DEMO
    assert {start.status for start in planasonix.started()} == {"succeeded"}


def test_planasonix_backfill_by_month(planasonix: Planasonix) -> None:
    runs_to_its_end("planasonix_backfill_by_month")
    backfills = planasonix.simulator.backfills()
    windows = sorted((backfill.start_at, backfill.end_at) for backfill in backfills)
    assert len(windows) == 12
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert {backfill.status for backfill in backfills} == {"completed"}


def test_planasonix_wait_for_others(planasonix: Planasonix) -> None:
    planasonix.simulator.workspace.start_sync(ORDERS)
    runs_to_its_end("planasonix_wait_for_others")
    assert planasonix.assert_started("conn_demo_01").status == "succeeded"
    assert not planasonix.assert_started(ORDERS).is_cancelled


@pytest.mark.parametrize(
    ("seconds", "end"),
    [pytest.param(60, "failed", id="job fails"), pytest.param(7200, "cancelled", id="wait ends first")],
)
def test_the_run_of_planasonix_wait_for_others_fails_with_the_wait(
    planasonix: Planasonix, seconds: float, end: str
) -> None:
    planasonix.simulator.workspace.start_sync(ORDERS)
    planasonix.will_fail("conn_demo_01", takes=seconds)
    runs_to_its_end("planasonix_wait_for_others", state="failed")
    assert planasonix.assert_started("conn_demo_01").status == end


@pytest.mark.parametrize("is_lost", [False, True], ids=["job fails", "no retry can help"])
def test_planasonix_failure_callback(
    planasonix: Planasonix, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    if is_lost:
        planasonix.simulator.fail("status", route="get_job_results", status=403, times=None)
    else:
        planasonix.will_fail(ORDERS, code="source_unreachable")
    dags: Any = runpy.run_path(str(DAGS_FOLDER / "planasonix_failure_callback.py"))
    run = dags["dag"].test()
    assert str(getattr(run.state, "value", run.state)) == "failed"
    (job,) = planasonix.simulator.jobs()
    if AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_3_PLUS:
        pytest.skip("dag.test() of Airflow 3.0 to 3.2 gives a callback no exception")
    code = "forbidden" if is_lost else "source_unreachable"
    url = f"{planasonix.simulator.url}/jobs/{job.id}"
    # Airflow 3 logs what a task prints.
    assert f"load_orders: job {job.id} failed with code {code}. {url}" in capfd.readouterr().out + caplog.text


def test_planasonix_assets(capfd: pytest.CaptureFixture[str]) -> None:
    runs_to_its_end("planasonix_assets", "report")
    assert "public.orders: 44,802 rows up to 20" in "".join(capfd.readouterr())


def test_planasonix_asset_alias(capfd: pytest.CaptureFixture[str]) -> None:
    runs_to_its_end("planasonix_asset_alias", "check")
    # Which of the two is the last one is up to Airflow.
    assert re.search(r"conn_demo_0[12] has loaded 44,802 rows into public\.orders", "".join(capfd.readouterr()))


@pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 2 has no watchers")
def test_planasonix_events() -> None:
    # What its asset hears, and that it starts the DAG, is seen in tests/system/test_events.py.
    runs_to_its_end("planasonix_events")


@pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 2 has no watchers")
@pytest.mark.parametrize("can_filter", [False, True], ids=["before Airflow 3.3", "Airflow 3.3"])
def test_a_run_of_planasonix_events_that_was_given_one_event_reads_those_that_came_with_it(can_filter: bool) -> None:
    class Filtered(list[Any]):
        def after(self, time: Any) -> list[Any]:
            return [event for event in self if event.timestamp >= time]

    new_events: Any = runpy.run_path(str(DAGS_FOLDER / "planasonix_events.py"))["new_events"]
    before, first, second, third = (SimpleNamespace(timestamp=number) for number in range(4))
    known = (Filtered if can_filter else list)([before, first, second, third])
    assert new_events("asset", {"asset": [second, first]}, {"asset": known}) == [first, second, third]
    assert new_events("asset", {}, {"asset": known}) == []


def test_planasonix_webhook(planasonix: Planasonix) -> None:
    place = secret_store("variable:planasonix_webhook_secret")
    for _ in range(2):
        runs_to_its_end("planasonix_webhook")
        (webhook,) = planasonix.simulator.workspace.webhooks.all()
        kept = place.load()
        assert kept is not None
        assert kept.webhook_id == webhook.id
    assert len(kept.secrets) == 2
    assert sum(request.route == "create_webhook" for request in planasonix.simulator.requests) == 1
    assert sum(request.route == "rotate_webhook_secret" for request in planasonix.simulator.requests) == 1


def test_planasonix_receiver(planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"asset": "orders_ready", "kept_in": "variable:planasonix_orders_secret", "events": "job.succeeded"}
    connection = json.dumps({"conn_type": "planasonix_webhook", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_ORDERS", connection)
    for known in (1, 2):
        runs_to_its_end("planasonix_receiver")
        receiver = PlanasonixReceiverHook("planasonix_orders").get_receiver()
        assert receiver is not None
        assert len(receiver.secrets) == known
    (webhook,) = planasonix.simulator.workspace.webhooks.all()
    assert webhook.url.endswith("/planasonix/webhook/planasonix_orders")
    report: Any = runpy.run_path(str(DAGS_FOLDER / "planasonix_receiver.py"))["report"]
    assert str(getattr(report.test().state, "value", None)) == "success"
