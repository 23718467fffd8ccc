from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
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
from planasonix_provider.execution.summary import ExecutionSummary
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.openlineage_schema import check_event
from tests.support.scenarios import CONNECTION, backfill, is_asked, meanwhile, sync
from tests.support.task_runs import Run, context, drive
from tests.support.time_travel import TravelledClock

TABLES = {"public.orders": 44_802, "sales/2025 ü.items": 0}


pytestmark = pytest.mark.usefixtures("without_airflow")


class Lineage:
    """The OpenLineage event of a task that has ended."""

    def __init__(self, run: Run, event: dict[str, Any]) -> None:
        self.run = run
        self.event = event

    @property
    def query(self) -> dict[str, Any]:
        return dict(self.facets["externalQuery"])

    @property
    def work(self) -> dict[str, Any]:
        return dict(self.facets["planasonix_work"])

    @property
    def error(self) -> str:
        return str(self.facets["errorMessage"]["message"])

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


RunTask = Callable[..., Lineage]


@pytest.fixture
def run_task(tmp_path: Path, travel: TravelledClock) -> RunTask:
    """Run a task to its end in simulated time, and return the event that Airflow's OpenLineage provider sends."""

    def run_task(make: Callable[..., Any], *, ti: dict[str, int] | None = None, **parameters: Any) -> Lineage:
        processes: list[Any] = []

        def process() -> Any:
            processes.append(make(**parameters))
            return processes[-1]

        run = drive(process, **(ti or {}))
        return Lineage(run, event_of(processes[-1], run.error, tmp_path))

    return run_task


def event_of(operator: Any, error: BaseException | None, folder: Path) -> dict[str, Any]:
    """Return the event that Airflow's OpenLineage listener sends when a task is over."""
    path = folder / "openlineage.json"
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(path), append=True)))
    state = TaskInstanceState.FAILED if error else TaskInstanceState.SUCCESS
    lineage = ExtractorManager().extract_metadata(
        dagrun=SimpleNamespace(run_id="manual"), task=operator, task_instance_state=state, task_instance=None
    )
    send = OpenLineageAdapter(client).fail_task if error else OpenLineageAdapter(client).complete_task
    send(
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


def namespace(simulator: Simulator) -> str:
    return f"planasonix://{simulator.url.removeprefix('http://')}"


class TestASync:
    def test_has_its_job_and_its_tables_with_their_rows(
        self, simulator: Simulator, run_task: RunTask, deferrable: bool
    ) -> None:
        simulator.plan(CONNECTION, tables=TABLES)
        lineage = run_task(sync, deferrable=deferrable)
        job, source = simulator.jobs()[0], namespace(simulator)
        assert lineage.event["eventType"] == "COMPLETE"
        assert lineage.names("inputs") == [(source, f"connections/{CONNECTION}/source/{table}") for table in TABLES]
        assert lineage.names("outputs") == [(source, f"connections/{CONNECTION}/tables/{table}") for table in TABLES]
        assert lineage.rows == TABLES
        assert (lineage.query["externalQueryId"], lineage.query["source"]) == (job.id, source)
        url = f"{simulator.url}/jobs/{job.id}"
        assert (lineage.work["kind"], lineage.work["status"], lineage.work["url"]) == ("job", "succeeded", url)
        assert "errorMessage" not in lineage.facets

    def test_has_more_tables_than_the_result_of_the_task_lists(self, simulator: Simulator, run_task: RunTask) -> None:
        simulator.plan(CONNECTION, tables={f"public.t{number}": number for number in range(1_234)})
        lineage = run_task(sync)
        assert len(lineage.run.result["tables"]) == 1_000
        assert lineage.rows == {f"public.t{number}": number for number in range(1_234)}

    def test_has_no_row_count_that_the_api_does_not_name(
        self, simulator: Simulator, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def set_result(self: Any, result: Any) -> None:
            self.tables = tuple(table._replace(rows_loaded=None) for table in result.tables)

        simulator.plan(CONNECTION, tables={"public.orders": 3})
        monkeypatch.setattr(ExecutionSummary, "set_result", set_result)
        assert run_task(sync).event["outputs"][0]["outputFacets"] == {}

    def test_that_is_mapped_has_the_tables_of_its_own_connection(self, simulator: Simulator, run_task: RunTask) -> None:
        for number, connection_id in enumerate(("conn_a", "conn_b")):
            simulator.workspace.add_connection(connection_id)
            simulator.plan(connection_id, tables={"public.orders": number})
            lineage = run_task(sync, connection_id=connection_id, ti={"map_index": number})
            assert [name for _, name in lineage.names("outputs")] == [
                f"connections/{connection_id}/tables/public.orders"
            ]
            assert lineage.query["externalQueryId"] == simulator.jobs()[0].id

    def test_has_the_connection_of_its_job_if_the_dag_was_edited_while_it_ran(
        self, simulator: Simulator, run_task: RunTask
    ) -> None:
        simulator.plan(CONNECTION, tables={"public.orders": 3})
        connections = iter([CONNECTION])
        lineage = run_task(lambda: sync(connection_id=next(connections, "conn_edited"), deferrable=True))
        assert [name for _, name in lineage.names("inputs")] == [f"connections/{CONNECTION}/source/public.orders"]
        assert [name for _, name in lineage.names("outputs")] == [f"connections/{CONNECTION}/tables/public.orders"]

    def test_that_is_not_waited_for_has_its_job_and_no_tables(self, simulator: Simulator, run_task: RunTask) -> None:
        lineage = run_task(sync, wait_for_completion=False)
        assert lineage.query["externalQueryId"] == simulator.jobs()[0].id
        assert (lineage.work["status"], lineage.work["url"]) == ("queued", lineage.run.result["job_url"])
        assert (lineage.event["inputs"], lineage.event["outputs"]) == ([], [])


class TestABackfill:
    def test_has_each_table_once_and_the_page_of_its_first_job(
        self, simulator: Simulator, run_task: RunTask, deferrable: bool
    ) -> None:
        simulator.plan_backfill(CONNECTION, jobs=3, tables=TABLES)
        lineage = run_task(backfill, deferrable=deferrable)
        (made,) = simulator.backfills()
        assert lineage.run.result["jobs_total"] == 3
        assert lineage.rows == TABLES
        assert [name for _, name in lineage.names("inputs")] == [
            f"connections/{CONNECTION}/source/{table}" for table in TABLES
        ]
        assert lineage.query["externalQueryId"] == made.id
        url = f"{simulator.url}/jobs/{(made.job_ids or [])[0]}"
        assert (lineage.work["kind"], lineage.work["status"], lineage.work["url"]) == ("backfill", "completed", url)

    def test_that_failed_has_its_error_and_the_page_of_the_failed_job(
        self, simulator: Simulator, run_task: RunTask, deferrable: bool
    ) -> None:
        simulator.plan_backfill(CONNECTION, jobs=2, failing_jobs=[1], code="disk_full", message="No space")
        lineage = run_task(backfill, deferrable=deferrable)
        assert lineage.event["eventType"] == "FAIL"
        assert lineage.query["externalQueryId"] == simulator.backfills()[0].id
        assert lineage.work["errorCode"] == "jobs_failed"
        assert lineage.work["url"] == lineage.run.xcoms["job_url"]
        assert "disk_full: No space" in lineage.error
        assert lineage.event["outputs"] == []


class TestASyncThatDoesNotSucceed:
    def test_has_its_job_and_the_error_of_the_api(
        self, simulator: Simulator, run_task: RunTask, deferrable: bool
    ) -> None:
        # If the API sends the key back, the key must not be shown.
        message = f"No route to the source for {API_KEY}"
        simulator.plan(CONNECTION, outcome="failed", code="source_unreachable", message=message)
        lineage = run_task(sync, deferrable=deferrable)
        job = simulator.jobs()[0]
        assert isinstance(lineage.run.error, PlanasonixJobFailedError)
        assert lineage.event["eventType"] == "FAIL"
        assert lineage.query["externalQueryId"] == job.id
        assert (lineage.work["status"], lineage.work["errorCode"]) == ("failed", "source_unreachable")
        assert lineage.work["url"] == f"{simulator.url}/jobs/{job.id}"
        assert lineage.error == str(lineage.run.error)
        assert "source_unreachable: No route to the source" in lineage.error
        assert (lineage.event["inputs"], lineage.event["outputs"]) == ([], [])
        assert API_KEY not in json.dumps(lineage.event)

    def test_is_cancelled_if_its_job_was(self, simulator: Simulator, run_task: RunTask, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        with meanwhile(lambda: simulator.workspace.cancel(simulator.jobs()[0].id), once=is_asked(simulator, "get_job")):
            lineage = run_task(sync, deferrable=deferrable)
        assert lineage.work["status"] == "cancelled"
        assert "was cancelled before it was done" in lineage.error

    def test_has_its_job_after_a_timeout(self, simulator: Simulator, run_task: RunTask, deferrable: bool) -> None:
        simulator.plan(CONNECTION, running_seconds=60)
        lineage = run_task(sync, deferrable=deferrable, timeout=0.3)
        assert isinstance(lineage.run.error, PlanasonixTimeoutError)
        assert lineage.query["externalQueryId"] == simulator.jobs()[0].id
        assert lineage.query["source"] == namespace(simulator)
        assert "was not over by" in lineage.error
        assert lineage.event["outputs"] == []

    def test_has_the_last_known_state_of_its_job_after_a_kill(self, simulator: Simulator, tmp_path: Path) -> None:
        simulator.plan(CONNECTION, queued_seconds=0.1, running_seconds=30)
        operator = sync()

        def is_seen_running() -> bool:
            summary = operator._execution and operator._execution.summary
            return bool(summary and summary.work and summary.work.status == "running")

        with meanwhile(operator.on_kill, once=is_seen_running), pytest.raises(Exception, match="was killed") as end:
            operator.execute(context(Run()))
        lineage = Lineage(Run(), event_of(operator, end.value, tmp_path))
        assert lineage.query["externalQueryId"] == simulator.jobs()[0].id
        assert lineage.work["status"] == "running"

    def test_has_only_the_error_if_nothing_was_started(self, simulator: Simulator, run_task: RunTask) -> None:
        simulator.fail("status", status=403, route="trigger_sync")
        lineage = run_task(sync)
        assert isinstance(lineage.run.error, AirflowFailException)
        assert lineage.error == str(lineage.run.error)
        assert set(lineage.facets).isdisjoint({"externalQuery", "planasonix_work"})

    def test_has_nothing_if_its_parameters_are_invalid(self, simulator: Simulator, run_task: RunTask) -> None:
        lineage = run_task(sync, connection_id="{{ nothing }}", poll_interval="soon {{ 1 }}")
        assert isinstance(lineage.run.error, AirflowFailException)
        assert set(lineage.facets).isdisjoint({"externalQuery", "planasonix_work", "errorMessage"})


def test_the_docs_show_the_lineage_of_a_sync(simulator: Simulator, run_task: RunTask) -> None:
    page = (Path(__file__).parent.parent / "docs" / "lineage.md").read_text()
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    lineage = run_task(sync)
    text = json.dumps(
        {
            "inputs": lineage.event["inputs"],
            "outputs": lineage.event["outputs"],
            "run": {"facets": {name: lineage.facets[name] for name in ("externalQuery", "planasonix_work")}},
        }
    )
    for simulated, real in (
        (simulator.jobs()[0].id, "job_01jq8syncabc"),
        (simulator.url, "https://app.planasonix.com"),
        (namespace(simulator), "planasonix://api.planasonix.com"),
    ):
        text = text.replace(simulated, real)
    assert shown == without_metadata(json.loads(text))


def without_metadata(value: Any) -> Any:
    """Return an event without its producer and schema, and without empty facets."""
    if isinstance(value, dict):
        inner = {name: without_metadata(one) for name, one in value.items() if not name.startswith("_")}
        return {name: one for name, one in inner.items() if one != {}}
    return [without_metadata(one) for one in value] if isinstance(value, list) else value


THREE_SYNCS = """
from airflow.providers.common.compat.sdk import DAG
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

with DAG(dag_id="syncs", schedule=None) as dag:
    mapped = PlanasonixSyncOperator.partial(task_id="mapped", poll_interval=0.5)
    mapped.expand(connection_id=["conn_demo_01", "conn_demo_02"])
    PlanasonixSyncOperator(task_id="deferred", connection_id="conn_demo_03", poll_interval=0.5, deferrable=True)
    PlanasonixSyncOperator(task_id="failing", connection_id="conn_demo_04", poll_interval=0.5)
"""


@pytest.mark.slow("starts processes or runs DAGs")
def test_airflow_sends_the_lineage_of_each_task(simulator: Simulator, tmp_path: Path) -> None:
    simulator.plan("conn_demo_04", outcome="failed", code="no_route", message="No route")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "syncs.py").write_text(THREE_SYNCS)
    sent = tmp_path / "sent.json"
    # Airflow loads its listeners when it is imported.
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
    events = {}
    for event in map(json.loads, sent.read_text().splitlines()):
        if event["job"]["name"].startswith("syncs.") and event["eventType"] in ("COMPLETE", "FAIL"):
            check_event(event)
            job_id = event["run"]["facets"]["externalQuery"]["externalQueryId"]
            events[job_id] = event["eventType"], [one["name"] for one in event["outputs"]]
    jobs = {job.connection_id: job.id for job in simulator.jobs()}
    assert events == {
        jobs["conn_demo_04"]: ("FAIL", []),
        **{
            jobs[connection_id]: ("COMPLETE", [f"connections/{connection_id}/tables/public.orders"])
            for connection_id in ("conn_demo_01", "conn_demo_02", "conn_demo_03")
        },
    }


class TestTheOperator:
    @pytest.mark.parametrize("method", ["get_openlineage_facets_on_complete", "get_openlineage_facets_on_failure"])
    def test_logs_a_warning_if_its_lineage_fails(self, method: str, caplog: pytest.LogCaptureFixture) -> None:
        operator = sync()
        operator.__dict__["_execution"] = SimpleNamespace(summary="no summary")
        with caplog.at_level("WARNING", logger="planasonix_provider.lineage"):
            assert getattr(operator, method)(None) == OperatorLineage()
        assert "OpenLineage is not told of task 'load', whose own work is not affected: " in caplog.text

    def test_has_no_lineage_before_it_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        assert sync().get_openlineage_facets_on_complete(None) == OperatorLineage()
        assert "OpenLineage is not told" not in caplog.text

    def test_has_a_summary_that_can_be_copied(self, simulator: Simulator) -> None:
        operator = sync()
        operator.execute(context(Run()))
        assert operator._execution is not None
        assert copy.deepcopy(operator._execution.summary) == operator._execution.summary

    def test_does_not_serialize_its_execution(self) -> None:
        assert "_execution" not in sync().template_fields
        assert "_execution" not in type(sync()).get_serialized_fields()


def python(code: str, *, is_blocked: bool) -> str:
    """Return the last line that another Python prints. If ``is_blocked``, OpenLineage is not installed there."""
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


@pytest.mark.slow("starts processes or runs DAGs")
class TestWithoutOpenLineage:
    def test_operators_do_not_import_it(self) -> None:
        modules = """
            import planasonix_provider.operators.planasonix
            import planasonix_provider.execution.start_task
            import planasonix_provider.sensors.planasonix
            import planasonix_provider.triggers.planasonix
            print(*sorted(name for name in sys.modules if "lineage" in name))
        """
        imported = set(python(modules, is_blocked=False).split())
        assert not {name for name in imported if name.split(".")[0] == "openlineage"}
        assert imported.isdisjoint({"planasonix_provider.lineage", "airflow.providers.openlineage.extractors"})

    def test_a_task_runs(self, simulator: Simulator) -> None:
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
