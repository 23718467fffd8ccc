from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.openlineage.extractors import ExtractorManager, OperatorLineage
from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
from airflow.utils.state import TaskInstanceState
from openlineage.client import OpenLineageClient
from openlineage.client.transport.file import FileConfig, FileTransport

from planasonix_provider.api.errors import PlanasonixJobFailedError, PlanasonixTimeoutError
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers import deferral
from tests.conftest import API_KEY
from tests.support.openlineage_schema import check_event
from tests.support.scenarios import CONNECTION, backfill, is_asked, meanwhile, sync
from tests.support.task_runs import Run, context, drive, no_variables

TABLES = {"public.orders": 44_802, "sales/2025 ü.items": 0}


@pytest.fixture(autouse=True)
def _no_airflow_around_these_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    no_variables(monkeypatch)
    monkeypatch.setattr(deferral, "DEFER_SETTLE_TIME", timedelta(0))


@pytest.fixture(params=[False, True], ids=["on a worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Seen:
    """A task that Airflow's OpenLineage provider has told of, and what a client of OpenLineage has sent of it."""

    def __init__(self, run: Run, event: dict[str, Any]) -> None:
        self.run = run
        self.event = event

    @property
    def facets(self) -> dict[str, Any]:
        return dict(self.event["run"]["facets"])

    def names(self, side: str) -> list[tuple[str, str]]:
        return [(one["namespace"], one["name"]) for one in self.event[side]]

    @property
    def rows(self) -> dict[str, int]:
        return {
            one["name"].rsplit("/tables/", 1)[1]: one["outputFacets"]["outputStatistics"]["rowCount"]
            for one in self.event["outputs"]
        }


@pytest.fixture
def see(tmp_path: Path) -> Callable[..., Seen]:
    """Run a task to its end, and let Airflow's OpenLineage provider tell of it as its listener does."""

    def see(make: Callable[..., Any], *, ti: dict[str, int] | None = None, **parameters: Any) -> Seen:
        processes: list[Any] = []

        def process() -> Any:
            processes.append(make(**parameters))
            return processes[-1]

        run = drive(process, **(ti or {}))
        return Seen(run, told(processes[-1], run.error, tmp_path))

    return see


def told(operator: Any, error: BaseException | None, folder: Path) -> dict[str, Any]:
    """The event that a client of OpenLineage sends when Airflow tells it that a task is over."""
    path = folder / "openlineage.json"
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(path), append=True)))
    state = TaskInstanceState.FAILED if error else TaskInstanceState.SUCCESS
    lineage = ExtractorManager().extract_metadata(
        dagrun=SimpleNamespace(run_id="manual"), task=operator, task_instance_state=state, task_instance=None
    )
    tell = OpenLineageAdapter(client).fail_task if error else OpenLineageAdapter(client).complete_task
    tell(
        run_id=str(uuid.uuid4()),
        job_name="nightly.load",
        end_time="2025-03-27T14:30:00+00:00",
        task=lineage,
        nominal_start_time=None,
        nominal_end_time=None,
        owners=["airflow"],
        tags=[],
        job_description=None,
    )
    event = json.loads(path.read_text().splitlines()[-1])
    check_event(event)
    return dict(event)


def host(simulator: Simulator) -> str:
    return simulator.url.removeprefix("http://")


class TestASync:
    def test_has_its_tables_on_both_sides_with_the_rows_that_came_in(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, tables=TABLES)
        seen = see(sync, deferrable=deferrable)
        namespace = f"planasonix://{host(simulator)}"
        assert seen.event["eventType"] == "COMPLETE"
        assert seen.names("inputs") == [(namespace, f"connections/{CONNECTION}/source/{table}") for table in TABLES]
        assert seen.names("outputs") == [(namespace, f"connections/{CONNECTION}/tables/{table}") for table in TABLES]
        assert seen.rows == TABLES

    def test_has_its_job_and_the_page_of_it(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        seen = see(sync, deferrable=deferrable)
        job = simulator.jobs()[0]
        query, work = seen.facets["externalQuery"], seen.facets["planasonix_work"]
        assert (query["externalQueryId"], query["source"]) == (job.id, f"planasonix://{host(simulator)}")
        assert (work["kind"], work["status"], work["url"]) == ("job", "succeeded", f"{simulator.url}/jobs/{job.id}")
        assert "errorMessage" not in seen.facets

    def test_has_every_table_though_the_result_of_the_task_lists_a_thousand(
        self, simulator: Simulator, see: Callable[..., Seen]
    ) -> None:
        simulator.plan(CONNECTION, tables={f"public.t{number}": number for number in range(1_234)})
        seen = see(sync)
        assert len(seen.run.result["tables"]) == 1_000
        assert seen.rows == {f"public.t{number}": number for number in range(1_234)}

    def test_has_no_number_of_rows_where_nobody_counted_them(
        self, simulator: Simulator, see: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.plan(CONNECTION, tables={"public.orders": 3})
        monkeypatch.setattr("planasonix_provider.execution.summary.ExecutionSummary.set_result", _without_rows)
        assert see(sync).event["outputs"][0]["outputFacets"] == {}

    def test_that_is_mapped_has_its_own_connections_tables(
        self, simulator: Simulator, see: Callable[..., Seen]
    ) -> None:
        for number, connection_id in enumerate(("conn_a", "conn_b")):
            simulator.workspace.add_connection(connection_id)
            simulator.plan(connection_id, tables={"public.orders": number})
            seen = see(sync, connection_id=connection_id, ti={"map_index": number})
            assert [name for _, name in seen.names("outputs")] == [f"connections/{connection_id}/tables/public.orders"]
            assert seen.facets["externalQuery"]["externalQueryId"] == simulator.jobs()[0].id

    def test_has_the_tables_of_its_job_though_the_dag_names_another_connection_by_now(
        self, simulator: Simulator, see: Callable[..., Seen]
    ) -> None:
        simulator.plan(CONNECTION, tables={"public.orders": 3})
        connections = iter([CONNECTION])
        seen = see(lambda: sync(connection_id=next(connections, "conn_edited"), deferrable=True))
        assert [name for _, name in seen.names("inputs")] == [f"connections/{CONNECTION}/source/public.orders"]
        assert [name for _, name in seen.names("outputs")] == [f"connections/{CONNECTION}/tables/public.orders"]

    def test_that_is_left_to_itself_has_its_job_and_no_tables(
        self, simulator: Simulator, see: Callable[..., Seen]
    ) -> None:
        seen = see(sync, wait_for_completion=False)
        assert seen.facets["externalQuery"]["externalQueryId"] == simulator.jobs()[0].id
        assert seen.facets["planasonix_work"]["status"] == "queued"
        assert (seen.event["inputs"], seen.event["outputs"]) == ([], [])


def _without_rows(self: Any, account: Any) -> None:
    self.tables = tuple(table._replace(rows_loaded=None) for table in account.tables)


class TestABackfill:
    def test_has_each_table_once_with_the_rows_of_all_its_jobs(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan_backfill(CONNECTION, jobs=3, tables=TABLES)
        seen = see(backfill, deferrable=deferrable)
        assert seen.run.result["jobs_total"] == 3
        assert seen.rows == TABLES
        assert [name for _, name in seen.names("inputs")] == [
            f"connections/{CONNECTION}/source/{table}" for table in TABLES
        ]

    def test_has_its_own_id_and_the_page_of_its_first_job(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        seen = see(backfill, deferrable=deferrable)
        made = simulator.backfills()[0]
        assert made.job_ids
        assert seen.facets["externalQuery"]["externalQueryId"] == made.id
        work = seen.facets["planasonix_work"]
        assert (work["kind"], work["status"]) == ("backfill", "completed")
        assert work["url"] == f"{simulator.url}/jobs/{made.job_ids[0]}"

    def test_that_failed_has_its_id_and_why(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, failing_jobs=[1], code="disk_full", message="No space")
        seen = see(backfill, deferrable=deferrable)
        assert seen.event["eventType"] == "FAIL"
        assert seen.facets["externalQuery"]["externalQueryId"] == simulator.backfills()[0].id
        assert seen.facets["planasonix_work"]["errorCode"] == "jobs_failed"
        assert "disk_full: No space" in seen.facets["errorMessage"]["message"]
        assert seen.event["outputs"] == []


class TestASyncThatDoesNotSucceed:
    def test_has_its_job_and_the_code_and_message_of_the_api(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message="No route to the source")
        seen = see(sync, deferrable=deferrable)
        job = simulator.jobs()[0]
        assert isinstance(seen.run.error, PlanasonixJobFailedError)
        assert seen.event["eventType"] == "FAIL"
        assert seen.facets["externalQuery"]["externalQueryId"] == job.id
        work = seen.facets["planasonix_work"]
        assert (work["status"], work["errorCode"]) == ("failed", "source_unreachable")
        assert work["url"] == f"{simulator.url}/jobs/{job.id}"
        assert seen.facets["errorMessage"]["message"] == str(seen.run.error)
        assert "source_unreachable: No route to the source" in str(seen.run.error)
        assert (seen.event["inputs"], seen.event["outputs"]) == ([], [])

    def test_is_cancelled_where_somebody_cancelled_it(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with meanwhile(lambda: simulator.workspace.cancel(simulator.jobs()[0].id), once=is_asked(simulator, "get_job")):
            seen = see(sync, deferrable=deferrable)
        assert seen.facets["planasonix_work"]["status"] == "cancelled"
        assert "was cancelled before it was done" in seen.facets["errorMessage"]["message"]

    @pytest.mark.usefixtures("travel")
    def test_has_its_job_where_its_time_was_up(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        seen = see(sync, deferrable=deferrable, timeout=0.3)
        assert isinstance(seen.run.error, PlanasonixTimeoutError)
        query = seen.facets["externalQuery"]
        assert query["externalQueryId"] == simulator.jobs()[0].id
        assert query["source"] == f"planasonix://{host(simulator)}"
        assert "was not over by" in seen.facets["errorMessage"]["message"]

    def test_has_its_job_as_it_was_seen_last_where_the_task_was_killed(
        self, simulator: Simulator, tmp_path: Path
    ) -> None:
        simulator.plan(CONNECTION, queued_seconds=0.1, running_seconds=30)
        operator = sync()

        def has_seen_it_run() -> bool:
            known = operator._execution and operator._execution.summary
            return bool(known and known.work and known.work.status == "running")

        with meanwhile(operator.on_kill, once=has_seen_it_run), pytest.raises(Exception, match="was killed") as end:
            operator.execute(context(Run()))
        facets = told(operator, end.value, tmp_path)["run"]["facets"]
        assert facets["externalQuery"]["externalQueryId"] == simulator.jobs()[0].id
        assert facets["planasonix_work"]["status"] == "running"

    def test_has_only_the_error_where_nothing_was_started(self, simulator: Simulator, see: Callable[..., Seen]) -> None:
        simulator.fail("status", status=403, route="trigger_sync")
        seen = see(sync)
        assert isinstance(seen.run.error, AirflowFailException)
        assert seen.facets["errorMessage"]["message"] == str(seen.run.error)
        assert set(seen.facets).isdisjoint({"externalQuery", "planasonix_work"})

    def test_has_nothing_where_its_parameters_made_no_sense(
        self, simulator: Simulator, see: Callable[..., Seen]
    ) -> None:
        seen = see(sync, connection_id="{{ nothing }}", poll_interval="soon {{ 1 }}")
        assert isinstance(seen.run.error, AirflowFailException)
        assert set(seen.facets).isdisjoint({"externalQuery", "planasonix_work", "errorMessage"})

    def test_shows_no_api_key_that_the_api_sends_back(
        self, simulator: Simulator, see: Callable[..., Seen], deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, outcome="failed", code="odd", message=f"The key {API_KEY} is odd")
        seen = see(sync, deferrable=deferrable)
        assert API_KEY not in json.dumps(seen.event)
        assert "odd" in seen.facets["errorMessage"]["message"]


def test_the_docs_show_what_a_sync_tells(simulator: Simulator, see: Callable[..., Seen]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "lineage.md").read_text()
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    seen = see(sync)
    text = json.dumps(
        {
            "inputs": seen.event["inputs"],
            "outputs": seen.event["outputs"],
            "run": {"facets": {name: seen.facets[name] for name in ("externalQuery", "planasonix_work")}},
        }
    )
    for simulated, real in (
        (simulator.jobs()[0].id, "job_01jq8syncabc"),
        (simulator.url, "https://app.planasonix.com"),
        (host(simulator), "api.planasonix.com"),
    ):
        text = text.replace(simulated, real)
    assert shown == without_the_frame(json.loads(text))


def without_the_frame(value: Any) -> Any:
    """What an event says, without whose word it is, and without what is empty."""
    if isinstance(value, dict):
        inner = {name: without_the_frame(one) for name, one in value.items() if not name.startswith("_")}
        return {name: one for name, one in inner.items() if one != {}}
    return [without_the_frame(one) for one in value] if isinstance(value, list) else value


THREE_SYNCS = """
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(dag_id="syncs", schedule=None) as dag:
    mapped = PlanasonixSyncOperator.partial(task_id="mapped", poll_interval=0.5)
    mapped.expand(connection_id=["conn_demo_01", "conn_demo_02"])
    PlanasonixSyncOperator(task_id="deferred", connection_id="conn_demo_03", poll_interval=0.5, deferrable=True)
    PlanasonixSyncOperator(task_id="failing", connection_id="conn_demo_04", poll_interval=0.5)
"""


def test_the_listener_of_airflow_finds_what_each_task_knows(simulator: Simulator, tmp_path: Path) -> None:
    simulator.plan("conn_demo_04", outcome="failed", code="no_route", message="No route")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "syncs.py").write_text(THREE_SYNCS)
    sent = tmp_path / "sent.json"
    # An Airflow decides what listens to it when it is imported.
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(sent), "append": True}),
    }
    code = """
        from airflow.utils.db import initdb

        initdb()
        import runpy

        runpy.run_path("dags/syncs.py")["dag"].test()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True)
    told = {}
    for event in map(json.loads, sent.read_text().splitlines()):
        if event["job"]["name"].startswith("syncs.") and event["eventType"] in ("COMPLETE", "FAIL"):
            check_event(event)
            job_id = event["run"]["facets"]["externalQuery"]["externalQueryId"]
            told[job_id] = event["eventType"], [one["name"] for one in event["outputs"]]
    jobs = {job.connection_id: job.id for job in simulator.jobs()}
    assert told == {
        jobs["conn_demo_04"]: ("FAIL", []),
        **{
            jobs[connection_id]: ("COMPLETE", [f"connections/{connection_id}/tables/public.orders"])
            for connection_id in ("conn_demo_01", "conn_demo_02", "conn_demo_03")
        },
    }


class TestTrouble:
    @pytest.mark.parametrize("method", ["get_openlineage_facets_on_complete", "get_openlineage_facets_on_failure"])
    def test_on_the_way_is_a_warning_and_no_lineage(
        self, method: str, simulator: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        operator = sync()
        operator.__dict__["_execution"] = SimpleNamespace(summary="nothing that knows anything")
        with caplog.at_level("WARNING", logger="planasonix_provider.lineage"):
            assert getattr(operator, method)(None) == OperatorLineage()
        assert "OpenLineage is not told of task 'load', whose own work is not affected: " in caplog.text

    def test_is_not_to_have_run_at_all(self, caplog: pytest.LogCaptureFixture) -> None:
        assert sync().get_openlineage_facets_on_complete(None) == OperatorLineage()
        assert "OpenLineage is not told" not in caplog.text


def python(code: str, *, is_blocked: bool) -> str:
    """Run code in another Python; in one where OpenLineage is not installed, if it is to be blocked."""
    block = """
        import sys

        class NotInstalled:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "openlineage" or name == "airflow.providers.openlineage.extractors":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, NotInstalled())
    """
    whole = textwrap.dedent(block if is_blocked else "import sys") + textwrap.dedent(code)
    answer = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()[-1]


class TestWithoutOpenLineage:
    def test_the_operators_import_nothing_of_it(self) -> None:
        modules = """
            import planasonix_provider.operators.planasonix
            import planasonix_provider.execution.start_task
            import planasonix_provider.sensors.planasonix
            import planasonix_provider.triggers.planasonix
            print(*sorted(name for name in sys.modules if "lineage" in name))
        """
        imported = set(python(modules, is_blocked=False).split())
        # Airflow itself asks every provider what it provides.
        assert not {name for name in imported if name.split(".")[0] == "openlineage"}
        assert imported.isdisjoint({"planasonix_provider.lineage", "airflow.providers.openlineage.extractors"})

    def test_a_task_runs_where_it_is_not_installed(self, simulator: Simulator) -> None:
        code = """
            import pytest
            from tests.support.task_runs import drive, no_variables
            from tests.support.scenarios import sync

            no_variables(pytest.MonkeyPatch())
            try:
                import openlineage.client
            except ModuleNotFoundError:
                run = drive(lambda: sync(poll_interval=0.5))
                print(run.error or run.result["status"])
        """
        assert python(code, is_blocked=True) == "succeeded"
