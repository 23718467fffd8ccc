"""Every file in example_dags/ runs to its end; the loaded data of some is checked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_3_PLUS,
)

from dev.other_services import OtherServices
from example_plugins.planasonix_late_sync import report_late_sync
from planasonix_provider.airflow_compat import NO_PARTITIONS_WARNING
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.webhook_receiver import PlanasonixReceiverHook
from planasonix_provider.secret_stores import secret_store
from planasonix_provider.testing import Planasonix
from planasonix_provider.triggers.events import HAS_WATCHERS
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.airflow_users import simple_auth_manager
from tests.support.approvals import person_who_chooses
from tests.support.dags_folder import load_example, register_assets, run_dag

ORDERS = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
ROOT = Path(__file__).parent.parent
DEMO = [f"conn_demo_{number:02}" for number in range(1, 31)]
#: DAGs with tests of their own, which prepare them.
PREPARED = {
    "planasonix_approved_backfill",
    "planasonix_cancel_orphans",
    "planasonix_dag_factory",
    "planasonix_data_checks",
    "planasonix_deadline_alert",
    "planasonix_failure_callback",
    "planasonix_freshness_alert",
    "planasonix_receiver",
    "planasonix_slack_alert",
    "planasonix_sync_then_dbt",
    "planasonix_wait_for_others",
}
EXAMPLES = {path.stem for path in ROOT.glob("example_dags/*.py")} - PREPARED
#: DAGs in the same file that are started by the assets of the first one.
FOLLOWERS = {
    "planasonix_assets": ["report"],
    "planasonix_asset_alias": ["check"],
    "planasonix_events_by_day": ["report"],
    "planasonix_reload_day": ["report"],
    "planasonix_replay_by_day": ["report"],
    "planasonix_two_sources": ["report"],
    "planasonix_weekly_rollup": ["report"],
}

NO_VARIABLES_FOR_SECRETS = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS
VARIABLE_REASON = "a task of Airflow 3.0 stores no secret in a variable"
NO_EXCEPTION = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_3_PLUS

pytestmark = [pytest.mark.usefixtures("dags_folder"), pytest.mark.slow("runs whole DAGs"), pytest.mark.dag]
needs_watchers = pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 2 has no watchers")


@pytest.fixture(autouse=True)
def _assets_of_the_simulator(planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANASONIX_HOST", planasonix.simulator.url.removeprefix("http://"))


def run_example(name: str, *, state: str = "success", **attributes: object) -> None:
    """Run the DAG of a file, and those that it starts by assets; each run must end in a state."""
    dags = load_example(name)
    for attribute, value in attributes.items():
        setattr(dags["dag"], attribute, value)
    followers = FOLLOWERS.get(name, [])
    assert dags["dag"].dag_id == name
    if followers:
        register_assets(dags["DAG"], [dags[follower] for follower in ("dag", *followers)])
    for dag in ("dag", *followers):
        ended = run_dag(dags[dag])
        assert ended == state, (
            f"{name} ended as {ended}; an example that waits for the work of others belongs in PREPARED"
        )


def check_nightly_sync(planasonix: Planasonix, printed: str) -> None:
    assert planasonix.assert_started(ORDERS).status == "succeeded"
    (job,) = planasonix.simulator.jobs()
    metadata = job.metadata or {}
    assert metadata["dag_id"] == "planasonix_nightly_sync"
    if AIRFLOW_V_3_1_PLUS:
        from airflow.models.dag_version import DagVersion

        version = DagVersion.get_latest_version("planasonix_nightly_sync")
        assert version is not None
        assert metadata["dag_version_id"] == str(version.id)


def check_nightly_syncs(planasonix: Planasonix, printed: str) -> None:
    assert sorted(start.connection_id for start in planasonix.started()) == DEMO
    assert {start.status for start in planasonix.started()} == {"succeeded"}


def check_backfill_by_month(planasonix: Planasonix, printed: str) -> None:
    backfills = planasonix.simulator.backfills()
    windows = sorted((backfill.start_at, backfill.end_at) for backfill in backfills)
    assert len(windows) == 12
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert {backfill.status for backfill in backfills} == {"completed"}


def check_replay_by_day(planasonix: Planasonix, printed: str) -> None:
    windows = sorted((f"{it.start_at:%m-%d}", f"{it.end_at:%m-%d}") for it in planasonix.simulator.backfills())
    assert windows == [("02-26", "03-01"), ("03-01", "03-04")]
    # One for each month.
    assert printed.count(NO_PARTITIONS_WARNING) >= 2 or AIRFLOW_V_3_3_PLUS
    if AIRFLOW_V_3_3_PLUS:
        assert NO_PARTITIONS_WARNING not in printed
        days = {event.partition_key[:10] for event in partitioned_events() if "conn_demo_43" in event.asset.uri}
        assert sorted(days) == [
            f"2024-{day}" for day in ("02-26", "02-27", "02-28", "02-29", "03-01", "03-02", "03-03")
        ]


def check_two_sources(planasonix: Planasonix, printed: str) -> None:
    assert sorted(start.connection_id for start in planasonix.started()) == ["conn_demo_46", "conn_demo_47"]
    assert (NO_PARTITIONS_WARNING in printed) != AIRFLOW_V_3_3_PLUS


def check_reload_day(planasonix: Planasonix, printed: str) -> None:
    (backfill,) = planasonix.simulator.backfills()
    assert f"{backfill.start_at:%Y-%m-%d} {backfill.end_at:%Y-%m-%d}" == "2024-03-10 2024-03-11"


def partitioned_events() -> list[Any]:
    """Return the asset events that have a partition key."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    query = select(AssetEvent).where(AssetEvent.partition_key.is_not(None)).options(joinedload(AssetEvent.asset))
    with create_session() as session:
        events = list(session.scalars(query))
        session.expunge_all()
    return events


def check_assets(planasonix: Planasonix, printed: str) -> None:
    assert "public.orders: 44,802 rows up to 20" in printed


def check_asset_alias(planasonix: Planasonix, printed: str) -> None:
    # Airflow decides which of the two is the last one.
    assert re.search(r"conn_demo_3[12] has loaded 44,802 rows into public\.orders", printed)


def check_webhook(planasonix: Planasonix, printed: str) -> None:
    store = secret_store("variable:planasonix_webhook_secret")
    (webhook,) = planasonix.simulator.workspace.webhooks.all()
    for secrets in (1, 2):
        stored = store.load()
        assert stored is not None
        assert (stored.webhook_id, len(stored.secrets)) == (webhook.id, secrets)
        run_example("planasonix_webhook")
    assert [one.id for one in planasonix.simulator.workspace.webhooks.all()] == [webhook.id]
    routes = [request.route for request in planasonix.simulator.requests]
    assert (routes.count("create_webhook"), routes.count("rotate_webhook_secret")) == (1, 2)


#: The check of each file after its run; it gets the printed output.
CHECKS: dict[str, Callable[[Planasonix, str], None]] = {
    "planasonix_asset_alias": check_asset_alias,
    "planasonix_assets": check_assets,
    "planasonix_backfill_by_month": check_backfill_by_month,
    "planasonix_reload_day": check_reload_day,
    "planasonix_replay_by_day": check_replay_by_day,
    "planasonix_two_sources": check_two_sources,
    "planasonix_nightly_syncs": check_nightly_syncs,
    "planasonix_nightly_sync": check_nightly_sync,
    "planasonix_webhook": check_webhook,
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(
    name: str, planasonix: Planasonix, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    if name.startswith("planasonix_events") and not HAS_WATCHERS:
        pytest.skip("Airflow 2 has no watchers")
    if name == "planasonix_webhook" and NO_VARIABLES_FOR_SECRETS:
        pytest.skip(VARIABLE_REASON)
    run_example(name)
    if check := CHECKS.get(name):
        # Airflow 3 logs what a task prints.
        check(planasonix, "".join(capfd.readouterr()) + caplog.text)


class TestWaitForOthers:
    NAME = "planasonix_wait_for_others"

    def test_starts_a_job_after_the_job_of_another(self, planasonix: Planasonix) -> None:
        planasonix.simulator.workspace.start_sync(ORDERS)
        run_example(self.NAME)
        assert planasonix.assert_started("conn_demo_37").status == "succeeded"
        assert not planasonix.assert_started(ORDERS).is_cancelled

    @pytest.mark.parametrize(
        ("seconds", "end"),
        [pytest.param(60, "failed", id="job fails"), pytest.param(7200, "cancelled", id="wait ends first")],
    )
    def test_fails_with_the_wait(self, planasonix: Planasonix, seconds: float, end: str) -> None:
        planasonix.simulator.workspace.start_sync(ORDERS)
        planasonix.will_fail("conn_demo_37", takes=seconds)
        run_example(self.NAME, state="failed")
        assert planasonix.assert_started("conn_demo_37").status == end


@pytest.mark.parametrize("is_lost", [False, True], ids=["job fails", "no retry can help"])
def test_failure_callback(
    planasonix: Planasonix, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    if is_lost:
        planasonix.simulator.fail("status", route="get_job_results", status=403, times=None)
    else:
        planasonix.will_fail("conn_demo_35", code="source_unreachable")
    run_example("planasonix_failure_callback", state="failed")
    (job,) = planasonix.simulator.jobs()
    if NO_EXCEPTION:
        pytest.skip("dag.test() of Airflow 3.0 to 3.2 passes no exception to a callback")
    code = "forbidden" if is_lost else "source_unreachable"
    url = f"{planasonix.simulator.url}/jobs/{job.id}"
    # Airflow 3 logs what a task prints.
    assert f"load_orders: job {job.id} failed with code {code}. {url}" in capfd.readouterr().out + caplog.text


class TestDataChecks:
    NAME = "planasonix_data_checks"
    CONNECTION = "conn_demo_40"

    def test_passes_if_all_tables_got_rows(self, planasonix: Planasonix) -> None:
        planasonix.will_succeed(self.CONNECTION, tables={"public.orders": 1, "public.order_items": 2})
        run_example(self.NAME)

    @pytest.mark.parametrize(
        ("tables", "warnings", "problem"),
        [
            pytest.param(
                {"public.orders": 1, "public.order_items": 0}, {}, "public.order_items got no rows", id="empty"
            ),
            pytest.param({"public.orders": 1}, {}, "public.order_items got no rows", id="missing"),
            pytest.param(
                {"public.orders": 1, "public.order_items": 2},
                {"column_dropped": "discount_pct"},
                "warning column_dropped: discount_pct",
                id="warning",
            ),
        ],
    )
    def test_names_the_problem(
        self,
        planasonix: Planasonix,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
        tables: dict[str, int],
        warnings: dict[str, str],
        problem: str,
    ) -> None:
        planasonix.will_succeed(self.CONNECTION, tables=tables, warnings=warnings)
        run_example(self.NAME, state="failed")
        assert problem in "".join(capfd.readouterr()) + caplog.text


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="dag.test() before Airflow 3.3 does not wait for a person")
@pytest.mark.parametrize(("option", "count"), [("Approve", 6), ("Reject", 0)])
def test_approved_backfill(
    planasonix: Planasonix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, count: int
) -> None:
    # tests/system/test_approvals.py shows the same with a scheduler.
    name = "planasonix_approved_backfill"
    simple_auth_manager(tmp_path, monkeypatch)
    with person_who_chooses(option, name, "approve"):
        run_example(name)
    assert [backfill.status for backfill in planasonix.simulator.backfills()] == ["completed"] * count


class TestDeadlineAlert:
    # tests/system/test_deadlines.py shows that Airflow calls the function.
    CONNECTION = "conn_demo_48"

    def test_runs(self, planasonix: Planasonix) -> None:
        # dag.test() of Airflow 3.3.2 raises after the last task of a DAG with a deadline.
        run_example("planasonix_deadline_alert", deadline=None)
        assert planasonix.assert_started(self.CONNECTION).status == "succeeded"

    def report(self, caplog: pytest.LogCaptureFixture) -> str:
        queued_at = (utcnow() - timedelta(minutes=30)).isoformat()
        dag_run = {"dag_id": "planasonix_deadline_alert", "dag_run_id": "run", "queued_at": queued_at}
        asyncio.run(report_late_sync(self.CONNECTION, {"dag_run": dag_run}))
        (record,) = [record for record in caplog.records if record.name.endswith("planasonix_late_sync")]
        return record.getMessage()

    def test_names_the_job_of_the_run(self, planasonix: Planasonix, caplog: pytest.LogCaptureFixture) -> None:
        workspace = planasonix.simulator.workspace
        workspace.start_sync(self.CONNECTION)
        planasonix.advance(timedelta(hours=1))
        planasonix.simulator.plan(self.CONNECTION, running_seconds=3600)
        job = workspace.start_sync(self.CONNECTION)
        planasonix.advance(timedelta(minutes=25))
        report = self.report(caplog)
        assert re.fullmatch(
            rf"DAG run run of planasonix_deadline_alert is late\. Job {job.id} is running, [1-9][\d,]+ rows loaded: "
            rf"{planasonix.simulator.url}/jobs/{job.id}",
            report,
        ), report

    def test_reports_that_there_is_no_job(self, planasonix: Planasonix, caplog: pytest.LogCaptureFixture) -> None:
        assert self.report(caplog).endswith("is late. No job of the connection was created since the run was queued.")

    def test_alerts_without_planasonix(self, planasonix: Planasonix, caplog: pytest.LogCaptureFixture) -> None:
        planasonix.simulator.fail("status", status=403, times=None)
        assert "is late. The state of its job is unknown: GET /api/v1/jobs" in self.report(caplog)


class TestFreshnessAlert:
    NAME = "planasonix_freshness_alert"

    def test_passes_after_a_sync(self, planasonix: Planasonix) -> None:
        planasonix.simulator.workspace.start_sync(ORDERS)
        run_example(self.NAME)

    def test_alerts_without_a_sync(
        self, planasonix: Planasonix, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        run_example(self.NAME, state="failed")
        assert "the orders are older than six hours" in capfd.readouterr().out + caplog.text


@pytest.fixture
def other_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherServices]:
    with OtherServices(tmp_path) as services:
        for name, value in services.environment.items():
            monkeypatch.setenv(name, value)
        # From Python 3.12 on, the opener keeps the certificates of its first use in the process.
        monkeypatch.setattr(urllib.request, "_opener", None)
        yield services


def test_cancel_orphans(planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
    # The operator runs the first Python in the path.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    tasks, workspace = AirflowTasks(), planasonix.simulator.workspace
    planasonix.simulator.plan(ORDERS, times=2, running_seconds=3600)
    workspace.configure(conflict="allowed")
    jobs = {}
    for state in ("failed", "deferred"):
        jobs[state] = workspace.start_sync(ORDERS).id
        key = tasks.add(key_of(state), state, datetime.now(UTC) - timedelta(minutes=11))
        tasks.store(record_of(key, jobs[state]))
    run_example("planasonix_cancel_orphans")
    assert workspace.job(jobs["failed"]).status in ("cancelling", "cancelled")
    assert workspace.job(jobs["deferred"]).cancel_requested_at is None
    tasks.forget()


def test_sync_then_dbt(planasonix: Planasonix, other_services: OtherServices) -> None:
    planasonix.will_succeed("conn_demo_38", tables={"public.orders": 1, "public.customers": 1})
    dags = load_example("planasonix_sync_then_dbt")
    register_assets(dags["DAG"], [dags["dag"], dags["build"]])
    for dag in (dags["dag"], dags["build"]):
        assert run_dag(dag) == "success"
    assert other_services.dbt_runs == [1234]


@pytest.mark.skipif(NO_EXCEPTION, reason="dag.test() of Airflow 3.0 to 3.2 passes no exception to a callback")
def test_slack_alert(planasonix: Planasonix, other_services: OtherServices) -> None:
    planasonix.will_fail("conn_demo_39", code="source_unreachable")
    run_example("planasonix_slack_alert", state="failed")
    (message,) = other_services.messages
    job = planasonix.assert_started("conn_demo_39")
    assert f"{planasonix.simulator.url}/jobs/{job.id}" in message
    assert "source_unreachable" in message


def test_dag_factory(planasonix: Planasonix) -> None:
    dags = load_example("planasonix_dag_factory")
    for name in ("planasonix_yaml_shop", "planasonix_yaml_crm"):
        assert run_dag(dags[name]) == "success"
    assert {start.connection_id for start in planasonix.started()} == {"conn_demo_41", "conn_demo_42"}
    planasonix.assert_started("conn_demo_42", priority="high", metadata={"team": "sales"})


@needs_watchers
@pytest.mark.parametrize("can_filter", [False, True], ids=["before Airflow 3.3", "Airflow 3.3"])
def test_events_reads_all_events_of_one_batch(can_filter: bool) -> None:
    # tests/system/test_events.py shows that the asset starts the DAG.
    class Filtered(list[Any]):
        def after(self, time: Any) -> list[Any]:
            return [event for event in self if event.timestamp >= time]

    new_events = load_example("planasonix_events")["new_events"]
    before, first, second, third = (SimpleNamespace(timestamp=number) for number in range(4))
    known = (Filtered if can_filter else list)([before, first, second, third])
    assert new_events("asset", {"asset": [second, first]}, {"asset": known}) == [first, second, third]
    assert new_events("asset", {}, {"asset": known}) == []


@needs_watchers
def test_events_by_day_reads_the_days_of_an_event() -> None:
    days_of = load_example("planasonix_events_by_day")["days_of"]
    window = {"start_at": "2024-03-09T12:00:00Z", "end_at": "2024-03-11T00:00:00Z"}
    assert days_of({"type": "backfill", "window": window}) == ["2024-03-09T00:00:00", "2024-03-10T00:00:00"]
    assert days_of({"type": "connection_sync", "finished_at": "2024-03-10T23:59:59Z"}) == ["2024-03-10T00:00:00"]


@pytest.mark.skipif(NO_VARIABLES_FOR_SECRETS, reason=VARIABLE_REASON)
def test_receiver(planasonix: Planasonix, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"asset": "orders_ready", "kept_in": "variable:planasonix_orders_secret", "events": "job.succeeded"}
    connection = json.dumps({"conn_type": "planasonix_webhook", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_ORDERS", connection)
    for secrets in (1, 2):
        run_example("planasonix_receiver")
        receiver = PlanasonixReceiverHook("planasonix_orders").get_receiver()
        assert receiver is not None
        assert len(receiver.secrets) == secrets
    (webhook,) = planasonix.simulator.workspace.webhooks.all()
    assert webhook.url.endswith("/planasonix/webhook/planasonix_orders")
    report = load_example("planasonix_receiver")["report"]
    assert run_dag(report) == "success"
