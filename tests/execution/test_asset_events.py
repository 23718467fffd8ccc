"""The asset events that a task adds to its outlets. ``tests/assets/test_in_a_dag.py`` tests how Airflow sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from planasonix_provider.airflow_compat import has_partitions
from planasonix_provider.api.models import Job, TableResult
from planasonix_provider.assets.planasonix import DEFAULT_HOST, PlanasonixTable, planasonix_asset
from planasonix_provider.execution import asset_events
from planasonix_provider.execution.asset_events import emit_table_events
from planasonix_provider.execution.options import StartOptions, read_options
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.api import api_routes
from planasonix_provider.waiting.result import WorkResult
from tests.support.attempts import die_at
from tests.support.scenarios import CONNECTION, backfill, routes_asked, sync
from tests.support.task_runs import Run, context, drive

pytestmark = pytest.mark.usefixtures("travel")

S3 = Asset("s3://bucket/orders")
HAS_REFERENCES = hasattr(Asset, "ref")


def host(simulator: Simulator) -> str:
    return simulator.url.removeprefix("http://")


def asset(simulator: Simulator, table: str, **fields: str) -> Asset:
    return planasonix_asset(**{"connection_id": CONNECTION, "host": host(simulator), "table": table, **fields})


def plan_tables(simulator: Simulator, *, connection_id: str = CONNECTION, **tables: int) -> None:
    """Plan the tables of the next job; a double underscore stands for a dot."""
    rows = {name.replace("__", "."): count for name, count in tables.items()}
    simulator.plan(connection_id, queued_seconds=0, running_seconds=0.05, tables=rows)


def sent_events(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Return the URI and the extra of each asset event, including the events through aliases."""
    assert run.error is None, run.error
    events = [(outlet.uri, run.outlet_events[outlet].extra) for outlet in run.outlets if isinstance(outlet, Asset)]
    for outlet in run.outlets:
        if not isinstance(outlet, AssetAlias):
            continue
        accessor = run.outlet_events[outlet]
        if hasattr(accessor, "asset_alias_events"):
            events += [(event.dest_asset_key.uri, event.extra) for event in accessor.asset_alias_events]
        else:
            events += [(event["dest_dataset_uri"], event["extra"]) for event in accessor.dataset_alias_events]
    return sorted(events, key=lambda event: event[0])


def tables(events: Iterable[tuple[str, Any]]) -> list[str]:
    return [PlanasonixTable.from_uri(uri).table for uri, _ in events]


def warnings(run: Run) -> list[str]:
    return [line for line in run.log.warnings if "asset event" in line]


class TestOutlet:
    def test_gets_an_event_if_the_results_name_its_table(self, simulator: Simulator, deferrable: bool) -> None:
        plan_tables(simulator, orders=44_802, items=3, others=1)
        outlets = [asset(simulator, name) for name in ("orders", "customers", "items")]
        run = drive(lambda: sync(deferrable=deferrable, outlets=outlets))
        assert tables(sent_events(run)) == ["items", "orders"]
        assert "No asset event for customers: the results do not name it." in run.log.lines
        assert warnings(run) == []
        assert "2 asset events: orders, items." in run.log.lines

    def test_event_has_the_details_of_the_table(self, simulator: Simulator, deferrable: bool) -> None:
        plan_tables(simulator, orders=44_802)
        run = drive(lambda: sync(deferrable=deferrable, outlets=[asset(simulator, "orders")]))
        job = simulator.jobs()[0]
        ((_, extra),) = sent_events(run)
        assert json.loads(json.dumps(extra)) == extra
        assert extra == {
            "job_id": job.id,
            "connection_id": CONNECTION,
            "table": "orders",
            "rows_loaded": 44_802,
            "checksum": run.result["tables"][0]["checksum"],
            "window": {"start_at": run.result["started_at"], "end_at": run.result["finished_at"]},
            "job_url": f"{simulator.url}/jobs/{job.id}",
        }

    def test_event_through_an_alias_is_flat_in_airflow_3_0(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asset_events, "_HAS_FLAT_ALIAS_EXTRA", True)
        plan_tables(simulator, orders=44_802)
        run = drive(lambda: sync(outlets=[AssetAlias("loaded")]))
        ((_, extra),) = sent_events(run)
        # Airflow 3.0 creates such a frozenset after a JSON round trip.
        assert len(frozenset(json.loads(json.dumps(extra)).items())) == len(extra)
        assert extra["window_start_at"] == run.result["started_at"]
        assert extra["window_end_at"] == run.result["finished_at"]
        assert "window" not in extra

    def test_event_keeps_other_extras(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        orders = asset(simulator, "orders")
        run = Run()
        run.outlet_events[orders].extra["ticket"] = "OPS-1"
        operator = sync(outlets=[orders])
        operator.execute(context(run))
        assert {"ticket", "job_id"} <= set(run.outlet_events[orders].extra)

    def test_of_another_scheme_stays_unchanged(self, simulator: Simulator) -> None:
        run = drive(lambda: sync(outlets=[S3, "a text", S3]))
        assert run.outlets == [S3, "a text", S3]
        assert sent_events(run)[0] == (S3.uri, {})
        assert not [line for line in run.log.lines if "asset event" in line]

    def test_without_an_event_is_removed_from_the_running_task_only(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        operator = sync(outlets=[asset(simulator, "customers"), S3])
        before = operator.outlets
        operator.execute(context(Run()))
        assert operator.outlets == [S3]
        assert before == [asset(simulator, "customers"), S3]

    @pytest.mark.skipif(not HAS_REFERENCES, reason="Airflow 2.11 has no references to assets")
    def test_can_be_a_reference_to_an_asset(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        plan_tables(simulator, orders=1)
        known = {name: asset(simulator, name, name=name) for name in ("orders", "customers")}
        references = [
            Asset.ref(name="orders"),
            Asset.ref(name="customers"),
            Asset.ref(uri=known["customers"].uri),
            Asset.ref(uri=known["orders"].uri),
        ]
        unknown = [Asset.ref(name="unknown"), Asset.ref(uri="s3://bucket/unknown")]
        run = Run()

        looked_up = []

        def resolve(reference: Any) -> tuple[Any, dict[str, Any]]:
            from airflow.sdk.definitions.asset import AssetUniqueKey

            looked_up.append(reference)

            found = [one for one in known.values() if getattr(reference, "name", one.name) == one.name]
            found = [one for one in found if getattr(reference, "uri", one.uri) == one.uri]
            key = AssetUniqueKey.from_asset(found[0])
            return (key, {}) if AIRFLOW_V_3_1_PLUS else key

        # Only the supervisor of a running task can ask Airflow's database.
        monkeypatch.setattr(run.outlet_events, "_resolve_asset_ref", resolve)
        operator = sync(outlets=[*references, *unknown])
        operator.execute(context(run))
        assert operator.outlets == [*unknown, references[0], references[3]]
        assert unknown[1] not in looked_up
        assert run.outlet_events[known["orders"]].extra["table"] == "orders"


class TestEmptyTable:
    @pytest.mark.parametrize("outlet", ["asset", "alias"])
    def test_gets_an_event_unless_it_is_ignored(self, simulator: Simulator, deferrable: bool, outlet: str) -> None:
        outlets = [AssetAlias("loaded")] if outlet == "alias" else [asset(simulator, "orders"), asset(simulator, "a")]
        for ignores, expected in ((False, ["a", "orders"]), (True, ["orders"])):
            plan_tables(simulator, orders=1, a=0)
            run = drive(lambda: sync(deferrable=deferrable, outlets=outlets, ignore_empty_tables=ignores))  # noqa: B023
            assert tables(sent_events(run)) == expected
        if outlet == "asset":
            assert "No asset event for a: it got no rows." in run.log.lines

    def test_does_not_include_a_table_without_a_row_count(self) -> None:
        job = Job(id="job_1", status="succeeded")
        account = WorkResult(job, "https://x/job_1", tables=(TableResult(name="orders"),))
        orders = planasonix_asset(connection_id=CONNECTION, table="orders")
        operator = sync(outlets=[orders], ignore_empty_tables=True)
        options = read_options(StartOptions, operator, load_parameters={}, window=None, partition_keys=())
        emit_table_events(options, operator, context(run := Run()), account, DEFAULT_HOST, CONNECTION)
        assert operator.outlets == [orders]
        extra = run.outlet_events[orders].extra
        assert (extra["rows_loaded"], extra["window"]) == (None, {"start_at": None, "end_at": None})

    @pytest.mark.parametrize("value", [None, 1, "yes", "{{ params.x }}"])
    def test_ignore_empty_tables_is_a_boolean(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^ignore_empty_tables: got .*, allowed is True or False\.$"):
            sync(ignore_empty_tables=value)


class TestMistake:
    def test_in_the_host_is_logged(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1, items=1)
        outlets = [planasonix_asset(connection_id=CONNECTION, table=name) for name in ("orders", "items")]
        run = drive(lambda: sync(outlets=outlets))
        assert sent_events(run) == []
        assert warnings(run) == [
            "No asset event for orders, items: its host is api.planasonix.com, and the Airflow connection "
            f"'planasonix_default' leads to {host(simulator)}. Say planasonix_asset(…, host={host(simulator)!r}) if "
            "that is the one."
        ]

    @pytest.mark.parametrize(
        ("table", "fields", "reason"),
        [
            (
                "Public.Orders",
                {"connection_id": "conn_2"},
                f"connection conn_2 loads it, and this task loads connection {CONNECTION}",
            ),
            ("public.orders", {}, "the results do not name it, but Public.Orders: write it as Planasonix does"),
        ],
        ids=["connection", "case of the table"],
    )
    def test_in_a_name_is_logged(self, simulator: Simulator, table: str, fields: dict[str, str], reason: str) -> None:
        plan_tables(simulator, Public__Orders=1)
        run = drive(lambda: sync(outlets=[asset(simulator, table, **fields)]))
        assert sent_events(run) == []
        assert warnings(run) == [f"No asset event for {table}: {reason}."]

    @pytest.mark.filterwarnings("ignore:The dataset URI")
    @pytest.mark.skipif(HAS_REFERENCES, reason="Airflow 3 refuses such a URI when the DAG is parsed")
    def test_in_the_uri_is_logged(self, simulator: Simulator) -> None:
        uri = f"planasonix://{host(simulator)}/orders"
        run = drive(lambda: sync(outlets=[Asset(uri)]))
        assert sent_events(run) == []
        assert warnings(run) == [
            f"No asset event for {uri}: its URI is not that of a table, which planasonix_asset() writes."
        ]

    def test_of_many_outlets_is_logged_as_one_line(self, simulator: Simulator) -> None:
        outlets = [planasonix_asset(connection_id=CONNECTION, table=f"t{number:02}") for number in range(12)]
        run = drive(lambda: sync(outlets=outlets))
        (line,) = warnings(run)
        assert "for t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more: its host" in line


class TestAlias:
    def test_sends_an_event_for_every_table(self, simulator: Simulator, deferrable: bool) -> None:
        plan_tables(simulator, orders=1, items=2)
        run = drive(lambda: sync(deferrable=deferrable, outlets=[AssetAlias("loaded")]))
        events = sent_events(run)
        assert tables(events) == ["items", "orders"]
        assert [extra["rows_loaded"] for _, extra in events] == [2, 1]
        assert "2 asset events through loaded: orders, items." in run.log.lines

    def test_beside_an_asset_sends_one_event_for_its_table(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1, items=2)
        orders = asset(simulator, "orders", name="The orders")
        run = drive(lambda: sync(outlets=[orders, asset(simulator, "customers"), AssetAlias("loaded"), S3]))
        assert [uri for uri, _ in sent_events(run)] == [asset(simulator, "items").uri, orders.uri, S3.uri]
        if HAS_REFERENCES:
            keys = [event.dest_asset_key for event in run.outlet_events[AssetAlias("loaded")].asset_alias_events]
            assert [key.name for key in keys] == ["The orders", asset(simulator, "items").uri]

    def test_several_aliases_get_the_same_events(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        run = drive(lambda: sync(outlets=[AssetAlias("one"), AssetAlias("two")]))
        one, two = sent_events(run)
        assert one == two
        assert "1 asset event through one, two: orders." in run.log.lines

    def test_event_can_be_hashed(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        run = drive(lambda: sync(outlets=[AssetAlias("loaded")]))
        ((_, extra),) = sent_events(run)
        assert frozenset(extra.items()) == frozenset(dict(extra).items())
        is_flat = asset_events._HAS_FLAT_ALIAS_EXTRA
        start_at = extra["window_start_at"] if is_flat else json.loads(json.dumps(extra))["window"]["start_at"]
        assert start_at == run.result["started_at"]

    def test_skips_a_table_that_cannot_be_an_asset(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0, tables={"ü" * 300: 1, "orders": 1})
        run = drive(lambda: sync(outlets=[AssetAlias("loaded")]))
        assert tables(sent_events(run)) == ["orders"]
        assert "No asset event for a table that cannot be an asset. table: got " in "\n".join(run.log.lines)


class TestBackfill:
    def test_events_have_the_rows_of_all_jobs_and_the_window(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan_backfill(
            CONNECTION, jobs=3, queued_seconds=0, job_seconds=0.02, tables={"orders": 300, "items": 0}
        )
        outlets = [asset(simulator, name) for name in ("orders", "items", "customers")]
        run = drive(lambda: backfill(deferrable=deferrable, outlets=outlets, ignore_empty_tables=True))
        ((uri, extra),) = sent_events(run)
        (work,) = simulator.backfills()
        assert uri == outlets[0].uri
        assert extra == {
            "job_id": (work.job_ids or [])[0],
            "backfill_id": work.id,
            "connection_id": CONNECTION,
            "table": "orders",
            "rows_loaded": 300,
            "checksum": None,
            "window": {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"},
            "job_url": f"{simulator.url}/jobs/{(work.job_ids or [])[0]}",
        }

    def test_of_one_job_has_the_checksum_of_that_job(self, simulator: Simulator) -> None:
        simulator.plan_backfill(CONNECTION, jobs=1, queued_seconds=0, job_seconds=0.02, tables={"orders": 300})
        run = drive(lambda: backfill(outlets=[AssetAlias("loaded")]))
        ((_, extra),) = sent_events(run)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", extra["checksum"])


class TestTask:
    @pytest.mark.parametrize("outlet", ["asset", "alias"])
    def test_that_does_not_wait_logs_that_it_sends_no_events(
        self, simulator: Simulator, deferrable: bool, outlet: str
    ) -> None:
        ours = AssetAlias("loaded") if outlet == "alias" else asset(simulator, "orders")
        run = drive(lambda: sync(deferrable=deferrable, wait_for_completion=False, outlets=[ours, S3]))
        assert [uri for uri, _ in sent_events(run)] == [S3.uri]
        assert (
            "No asset events: with wait_for_completion=False the task ends before the tables are loaded."
            in run.log.lines
        )

    def test_whose_job_fails_sends_no_event(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, outcome="failed", queued_seconds=0, running_seconds=0.05)
        run = drive(lambda: sync(deferrable=deferrable, outlets=[asset(simulator, "orders"), AssetAlias("loaded")]))
        assert run.error is not None
        assert len(run.outlet_events) == 0
        assert not [line for line in run.log.lines if "event" in line]

    def test_that_is_skipped_sends_no_event(self, simulator: Simulator) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync(on_conflict="skip", outlets=[asset(simulator, "orders"), AssetAlias("loaded")]))
        assert isinstance(run.error, AirflowSkipException)
        assert len(run.outlet_events) == 0

    def test_that_attaches_sends_events_of_that_job(self, simulator: Simulator, deferrable: bool) -> None:
        simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0.5, tables={"orders": 7})
        theirs = simulator.workspace.start_sync(CONNECTION)
        run = drive(lambda: sync(deferrable=deferrable, on_conflict="attach", outlets=[asset(simulator, "orders")]))
        ((_, extra),) = sent_events(run)
        assert (extra["job_id"], extra["rows_loaded"]) == (theirs.id, 7)

    def test_that_is_mapped_sends_events_of_its_own_connection(self, simulator: Simulator, deferrable: bool) -> None:
        connections = ["conn_demo_01", "conn_demo_02"]
        outlets = [asset(simulator, "orders", connection_id=connection_id) for connection_id in connections]
        for index, connection_id in enumerate(connections):
            plan_tables(simulator, connection_id=connection_id, orders=index)
            run = drive(
                lambda: sync(deferrable=deferrable, connection_id=connection_id, outlets=outlets),  # noqa: B023
                map_index=index,
            )
            ((uri, extra),) = sent_events(run)
            assert uri == outlets[index].uri
            assert extra["connection_id"] == connection_id
            assert warnings(run) == []
        assert outlets == [asset(simulator, "orders", connection_id=connection_id) for connection_id in connections]

    def test_that_takes_over_a_job_sends_its_events_once(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        notes: dict[str, Any] = {}
        outlets = [asset(simulator, "orders")]
        # A refusal must persist for a minute to fail the task.
        simulator.fail("status", route="get_job_results", status=403, times=None)
        run = drive(lambda: sync(outlets=outlets), notes)
        assert run.error is not None
        assert len(run.outlet_events) == 0
        simulator.faults.clear()
        run = drive(lambda: sync(outlets=outlets), notes, try_number=2)
        assert tables(sent_events(run)) == ["orders"]
        assert routes_asked(simulator).count("trigger_sync") == 1

    def test_without_outlets_logs_nothing(self, simulator: Simulator) -> None:
        run = drive(sync)
        assert not [line for line in run.log.lines if "event" in line]


def test_an_outlet_is_compared_with_the_rendered_connection(simulator: Simulator) -> None:
    plan_tables(simulator, orders=1)
    operator = PlanasonixSyncOperator(
        task_id="load", connection_id="{{ var.value.x }}", poll_interval=0.03, outlets=[asset(simulator, "orders")]
    )
    # Airflow renders the template.
    operator.connection_id = CONNECTION
    operator.execute(context(run := Run()))
    assert run.outlet_events[operator.outlets[0]].extra["connection_id"] == CONNECTION


class TestEditedConnection:
    """The work loads the old connection, so only that connection's tables get events."""

    def outlets(self, simulator: Simulator) -> list[Any]:
        return [asset(simulator, "orders"), asset(simulator, "orders", connection_id="conn_2")]

    def edited(self, make: Any, **parameters: Any) -> Any:
        """Return a function that returns the operator of the old DAG once, and then that of the edited DAG."""
        connections = iter([CONNECTION])
        return lambda: make(connection_id=next(connections, "conn_2"), **parameters)

    @pytest.mark.parametrize("make", [sync, backfill])
    def test_while_the_task_was_deferred(self, simulator: Simulator, make: Any) -> None:
        plan_tables(simulator, orders=1)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=1, job_seconds=0.05, tables={"orders": 1})
        run = drive(self.edited(make, deferrable=True, outlets=self.outlets(simulator)))
        ((uri, extra),) = sent_events(run)
        assert (PlanasonixTable.from_uri(uri).connection_id, extra["connection_id"]) == (CONNECTION, CONNECTION)
        assert run.result["connection_id"] == CONNECTION
        assert warnings(run) == [
            f"No asset event for orders: connection conn_2 loads it, and this task loads connection {CONNECTION}."
        ]

    def test_while_the_task_was_deferred_with_an_alias(self, simulator: Simulator) -> None:
        plan_tables(simulator, orders=1)
        run = drive(self.edited(sync, deferrable=True, outlets=[AssetAlias("loaded")]))
        ((uri, extra),) = sent_events(run)
        assert (PlanasonixTable.from_uri(uri).connection_id, extra["connection_id"]) == (CONNECTION, CONNECTION)

    def test_between_two_tries(self, simulator: Simulator, deferrable: bool) -> None:
        plan_tables(simulator, orders=1)
        notes = die_at(sync, "while it waited")
        run = drive(
            lambda: sync(connection_id="conn_2", deferrable=deferrable, outlets=self.outlets(simulator)),
            notes,
            try_number=2,
        )
        ((uri, extra),) = sent_events(run)
        assert (PlanasonixTable.from_uri(uri).connection_id, extra["connection_id"]) == (CONNECTION, CONNECTION)
        job = simulator.jobs()[0]
        assert f"Going on with job {job.id} on connection {CONNECTION}: {extra['job_url']}" in run.log.lines

    @pytest.mark.parametrize("make", [sync, backfill])
    def test_is_known_from_the_record_if_no_response_names_it(
        self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, make: Any
    ) -> None:
        plan_tables(simulator, orders=1)
        simulator.plan_backfill(CONNECTION, queued_seconds=0, jobs=1, job_seconds=0.05, tables={"orders": 1})
        for name in ("_JOB_STARTED", "_JOB_DETAILS", "_BACKFILL_STARTED", "_BACKFILL_DETAILS"):
            monkeypatch.setattr(api_routes, name, getattr(api_routes, name) - {"connection_id"})
        run = drive(self.edited(make, deferrable=True, outlets=self.outlets(simulator)))
        ((_, extra),) = sent_events(run)
        assert extra["connection_id"] == CONNECTION


class TestPartitionBy:
    """Each loaded table gets an event for each partition of the window, on an Airflow that has partitions."""

    HAS_PARTITIONS = has_partitions()

    def partitions(self, run: Run) -> list[set[str]]:
        assert run.error is None, run.error
        return [getattr(run.outlet_events[outlet], "partition_keys", set()) for outlet in run.outlets]

    def replay(self, simulator: Simulator, **parameters: Any) -> Run:
        simulator.plan_backfill(CONNECTION, queued_seconds=0, job_seconds=0.05, tables={"orders": 5, "items": 3})
        outlets = [asset(simulator, name) for name in ("orders", "items", "customers")]
        return drive(
            lambda: backfill(
                **{"partition_by": "month", "partition_key_format": "%Y-%m", "outlets": outlets} | parameters
            )
        )

    def test_sends_an_event_for_each_table_and_partition(self, simulator: Simulator, deferrable: bool) -> None:
        run = self.replay(simulator, deferrable=deferrable)
        keys = {"2025-01", "2025-02"} if self.HAS_PARTITIONS else set()
        assert self.partitions(run) == [keys, keys]
        assert tables(sent_events(run)) == ["items", "orders"]
        assert run.result["partition_keys"] == ["2025-01", "2025-02"]

    def test_logs_the_number_of_partitions_and_which_dags_they_start(self, simulator: Simulator) -> None:
        run = self.replay(simulator)
        expected = (
            "Each is sent for 2 partitions, and starts only DAGs whose schedule is partitioned: 2025-01, 2025-02."
            if self.HAS_PARTITIONS
            else "partition_by has no effect: asset partitions need Airflow 3.3. The asset events have no partition "
            "key."
        )
        assert [line for line in run.log.lines if "partition" in line] == [expected]

    def test_default_sends_an_event_without_a_key(self, simulator: Simulator) -> None:
        run = self.replay(simulator, partition_by=None)
        assert self.partitions(run) == [set(), set()]
        assert "partition_keys" not in run.result
        assert not [line for line in run.log.lines if "partition" in line]
