from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import FastAPI
from sqlalchemy import delete, select

from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.clock import monotonic
from planasonix_provider.monitoring import api_reader
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.plugins import page, page_cache, page_cancel, page_data, permission_cache
from planasonix_provider.plugins.fastapi_app import make_app
from planasonix_provider.plugins.page_cancel import CANCEL_EVENT
from planasonix_provider.simulator import Simulator
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from tests.conftest import API_KEY
from tests.plugins.conftest import ANOTHER_SECRET, SECRET, Assets, body, headers
from tests.support.airflow_tasks import AirflowTasks, key_of, record_of
from tests.support.airflow_users import app_with_login, get_json, log_in, simple_auth_manager
from tests.support.hanging_responses import Hanging
from tests.support.task_rows import TaskRows

GET_ROUTES = ("overview", "jobs", "backfills", "waits", "orphans", "charts")
CSRF = {"X-Requested-With": "planasonix"}


def start(simulator: Simulator, number: int) -> list[str]:
    """Start jobs that stay queued."""
    ids = []
    for _ in range(number):
        connection_id = f"conn_{uuid.uuid4().hex}"
        simulator.workspace.add_connection(connection_id)
        simulator.plan(connection_id, queued_seconds=1_000)
        ids.append(simulator.workspace.start_sync(connection_id, SyncBody()).id)
    return ids


def start_backfill(simulator: Simulator) -> str:
    """Start a backfill of three jobs that keep running."""
    connection_id = f"conn_{uuid.uuid4().hex}"
    simulator.workspace.add_connection(connection_id)
    simulator.plan_backfill(connection_id, jobs=3, queued_seconds=0, running_seconds=1_000)
    window = BackfillBody(start_at=datetime(2025, 1, 1, tzinfo=UTC), end_at=datetime(2025, 2, 1, tzinfo=UTC))
    return simulator.workspace.start_backfill(connection_id, window).id


def audit_log() -> list[Log]:
    with create_session() as session:
        entries = list(session.scalars(select(Log).where(Log.event == CANCEL_EVENT)))
        session.expunge_all()
        return entries


class Permissions:
    """Forbids single DAGs and connections to a user of the simple auth manager, which knows roles only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def forbid(self, kind: str, method: str, name: str, *, user: str | None = None) -> None:
        auth_manager = get_auth_manager()
        allowed = getattr(auth_manager, f"is_authorized_{kind}")

        def is_authorized(**given: Any) -> bool:
            details = given.get("details")
            named = details and (details.id if kind == "dag" else details.conn_id)
            is_meant = given["method"] == method and named == name and user in (None, given["user"].get_id())
            return not is_meant and allowed(**given)

        self._monkeypatch.setattr(auth_manager, f"is_authorized_{kind}", is_authorized)


@pytest.fixture
def permissions(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Permissions:
    # Changes take effect at once, unless a test is about the cache.
    monkeypatch.setattr(permission_cache, "MAX_PERMISSION_AGE_SECONDS", -1.0)
    return Permissions(monkeypatch)


@pytest.fixture(autouse=True)
def _audit_log(airflow_db: None) -> Iterator[None]:
    yield
    with create_session() as session:
        session.execute(delete(Log).where(Log.event == CANCEL_EVENT))


@pytest.fixture
def app(airflow_db: None, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    simple_auth_manager(tmp_path, monkeypatch)
    # On a slow machine, a response may take longer than the real limit.
    monkeypatch.setattr(page_data, "MAX_WAIT_SECONDS", 60.0)
    return app_with_login(make_app(has_page=True))


class TestFiles:
    async def test_the_bundle_needs_no_login(self, app: FastAPI) -> None:
        async with log_in(app, None) as client:
            response = await client.get("/planasonix/static/planasonix.js")
            assert response.status_code == 200
            assert "javascript" in response.headers["content-type"]
            assert response.headers["cache-control"] == "no-cache"
            again = await client.get(
                "/planasonix/static/planasonix.js", headers={"If-None-Match": response.headers["etag"]}
            )
            assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")

    @pytest.mark.parametrize("path", ["", "../page.py", "%2e%2e/page.py", "nothing.js"])
    async def test_nothing_else_is_served(self, app: FastAPI, path: str) -> None:
        async with log_in(app, None) as client:
            assert (await client.get(f"/planasonix/static/{path}")).status_code == 404


class TestReading:
    @pytest.mark.parametrize("path", GET_ROUTES)
    @pytest.mark.parametrize(
        ("user", "status"), [(None, 401), ("viewer", 403), ("user", 403), ("op", 200), ("admin", 200)]
    )
    async def test_it_needs_read_access_to_connections(
        self, app: FastAPI, simulator: Simulator, path: str, user: str | None, status: int
    ) -> None:
        async with log_in(app, user) as client:
            assert (await client.get(f"/planasonix/ui/{path}")).status_code == status
        if status != 200:
            assert not simulator.requests

    async def test_an_unreadable_token_is_refused(self, app: FastAPI) -> None:
        async with log_in(app, None, Authorization="Bearer nonsense") as client:
            assert (await client.get("/planasonix/ui/overview")).status_code in (401, 403)


class TestOverview:
    async def test_it_shows_what_runs(self, app: FastAPI, simulator: Simulator) -> None:
        start(simulator, 3)
        async with log_in(app, "op") as client:
            (connection,) = (await get_json(client, "overview"))["connections"]
        assert connection["rate_limit"]["limit"] == 1200
        assert connection.pop("rate_limit")["remaining"] <= 1200
        assert connection.pop("read_at").endswith("Z")
        assert connection == {
            "conn_id": "planasonix_default",
            "host": simulator.url.removeprefix("http://"),
            "is_reachable": True,
            "message": f"Connected to {simulator.url}. The API key may read jobs.",
            "active_jobs": 3,
            "active_backfills": 0,
            "has_more": False,
            "web_url": simulator.url,
        }

    async def test_more_jobs_than_a_page(self, app: FastAPI, simulator: Simulator) -> None:
        start(simulator, 101)
        async with log_in(app, "op") as client:
            (connection,) = (await get_json(client, "overview"))["connections"]
        assert (connection["active_jobs"], connection["has_more"]) == (100, True)

    @pytest.mark.parametrize(
        ("connection", "message"),
        [
            ({"password": ""}, "The Airflow connection has no API key."),
            ({"password": "plnx_wrong"}, "answered 401 Unauthorized"),
            ({"host": "http://127.0.0.1:9"}, "127.0.0.1:9"),
        ],
    )
    async def test_it_shows_the_error_of_test_connection(
        self,
        app: FastAPI,
        simulator: Simulator,
        monkeypatch: pytest.MonkeyPatch,
        connection: dict[str, Any],
        message: str,
    ) -> None:
        fields = simulator.airflow_connection() | connection
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DEFAULT", json.dumps(fields))
        async with log_in(app, "op") as client:
            (row,) = (await get_json(client, "overview"))["connections"]
            jobs = await get_json(client, "jobs")
        assert (row["is_reachable"], row["active_jobs"]) == (False, None)
        assert message in row["message"]
        assert jobs["items"] == []
        assert jobs["problem"]

    async def test_it_does_not_wait_for_a_hanging_api(
        self, app: FastAPI, simulator: Simulator, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(page_data, "MAX_WAIT_SECONDS", 0.5)
        for timeout in ("READ_TIMEOUT", "TOTAL_TIMEOUT", "MAX_SECONDS"):
            monkeypatch.setattr(api_reader, timeout, 60.0)
        simulator.fail("hang", times=None)
        async with log_in(app_with_login(make_app(has_page=True)), "op") as client:
            while not (await client.get("/planasonix/ui/overview")).is_success:
                """The Airflow connections are not read yet."""
            await asyncio.to_thread(hanging.begins)
            (row,) = (await get_json(client, "overview"))["connections"]
            jobs = await get_json(client, "jobs")
        assert (row["is_reachable"], row["message"]) == (None, "Planasonix has not answered yet.")
        assert jobs["problem"] == "Planasonix has not answered yet."
        assert len(simulator.requests) == 1

    async def test_many_connections(self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(39):
            monkeypatch.setenv(f"AIRFLOW_CONN_PLANASONIX_{number}", json.dumps(simulator.airflow_connection()))
        async with log_in(app, "op") as client:
            rows = (await get_json(client, "overview"))["connections"]
        assert [row["is_reachable"] for row in rows] == [True] * 40
        assert len(simulator.requests) == 160

    async def test_a_busy_api_server_is_not_reported_as_an_outage(
        self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(page_data, "MAX_RESPONSES", 1)
        async with log_in(app_with_login(make_app(has_page=True)), "op") as client:
            (row,) = (await get_json(client, "overview"))["connections"]
        assert row["is_reachable"] is None
        assert "Airflow's API server could not read this (TimeoutError)" in row["message"]

    async def test_a_deleted_connection_leaves_no_open_connections(
        self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[ApiReader] = []
        monkeypatch.setattr(ApiReader, "close_later", lambda reader: closed.append(reader))
        monkeypatch.setattr(page_data, "CONNECTIONS_SECONDS", -1.0)
        async with log_in(app, "op") as client:
            assert len((await get_json(client, "overview"))["connections"]) == 1
            monkeypatch.delenv("AIRFLOW_CONN_PLANASONIX_DEFAULT")
            assert (await get_json(client, "overview"))["connections"] == []
        assert len(closed) == 1

    async def test_receivers(self, app: FastAPI, assets: Assets, connection: Callable[..., None]) -> None:
        async with log_in(app, "op") as client:
            content = body()
            assert (
                await client.post("/planasonix/webhook/orders", content=content, headers=headers(content))
            ).status_code == 204
            wrong = headers(content, ANOTHER_SECRET)
            await client.post("/planasonix/webhook/orders", content=content, headers=wrong)
            response = await client.get("/planasonix/ui/overview")
        (receiver,) = [one for one in response.json()["receivers"] if one["conn_id"] == "orders"]
        assert (receiver["deliveries_24h"], receiver["refusals_24h"]) == (1, 1)
        assert (receiver["asset"], receiver["has_secret"], receiver["problem"]) == ("orders_ready", True, None)
        assert SECRET not in response.text


class TestWork:
    async def test_a_job_and_its_task(self, app: FastAPI, simulator: Simulator, task_rows: TaskRows) -> None:
        (job_id,) = start(simulator, 1)
        run_id = task_rows.add("sales", job_id=job_id)
        async with log_in(app, "op") as client:
            jobs = await get_json(client, "jobs", conn_id="planasonix_default")
            details = await get_json(client, f"jobs/planasonix_default/{job_id}")
        (job,) = jobs["items"]
        assert (jobs["conn_id"], jobs["next_cursor"], jobs["problem"]) == ("planasonix_default", None, None)
        assert (job["id"], job["can_cancel"], job["task"]["run_id"]) == (job_id, True, run_id)
        assert details["item"]["id"] == job_id
        assert details["tables"] is None

    async def test_pages(self, app: FastAPI, simulator: Simulator) -> None:
        started = start(simulator, 5)
        seen: list[str] = []
        cursor = ""
        async with log_in(app, "op") as client:
            while cursor is not None:
                page = await get_json(client, "jobs", limit=2, cursor=cursor, state="active", since="24h")
                seen += [job["id"] for job in page["items"]]
                cursor = page["next_cursor"]
        assert seen == started[::-1]

    async def test_old_rows_stay_in_an_outage(
        self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start(simulator, 1)
        async with log_in(app, "op") as client:
            before = await get_json(client, "jobs", since="24h")
            simulator.fail("status", status=503, times=None)
            for name in ("RESPONSE_SECONDS", "ROWS_SECONDS"):
                monkeypatch.setattr(page_data, name, -1.0)
            later = datetime.now(UTC) + timedelta(minutes=1)
            monkeypatch.setattr(page, "utcnow", lambda: later)
            after = await get_json(client, "jobs", since="24h")
        assert (before["problem"], len(before["items"])) == (None, 1)
        assert "503 Service Unavailable" in after["problem"]
        assert (after["items"], after["read_at"]) == (before["items"], before["read_at"])

    async def test_a_backfill_and_its_jobs(self, app: FastAPI, simulator: Simulator, task_rows: TaskRows) -> None:
        backfill_id = start_backfill(simulator)
        task_rows.add("sales", backfill_id=backfill_id)
        async with log_in(app, "op") as client:
            (backfill,) = (await get_json(client, "backfills"))["items"]
            details = await get_json(client, f"backfills/planasonix_default/{backfill_id}")
        assert (backfill["kind"], backfill["can_cancel"]) == ("backfill", True)
        assert details["item"]["job_ids"] == [job["id"] for job in details["jobs"]]
        assert len(details["jobs"]) == 3
        assert {job["task"]["dag_id"] for job in details["jobs"]} == {"sales"}

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ({"state": "completed"}, "state: got 'completed'"),
            ({"since": "yesterday"}, "since: got 'yesterday'"),
            ({"cursor": "x"}, "cursor: got 'x'"),
            ({"connection_id": "a/b"}, "connection_id: got 'a/b'"),
        ],
        ids=str,
    )
    async def test_an_invalid_query_is_refused(self, app: FastAPI, query: dict[str, str], words: str) -> None:
        async with log_in(app, "op") as client:
            response = await client.get("/planasonix/ui/jobs", params=query)
        assert response.status_code == 400
        assert words in response.json()["detail"]

    @pytest.mark.parametrize(
        "path",
        [
            "jobs?conn_id=unknown",
            "jobs/unknown/job_1",
            "jobs/planasonix_default/job_x",
            "backfills/planasonix_default/bf_x",
        ],
    )
    async def test_an_unknown_id_is_404(self, app: FastAPI, path: str) -> None:
        async with log_in(app, "op") as client:
            assert (await client.get(f"/planasonix/ui/{path}")).status_code == 404


async def test_a_connection_of_a_secrets_backend_is_listed_while_a_task_uses_it(
    app: FastAPI,
    simulator: Simulator,
    task_rows: TaskRows,
    secrets_backend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets_backend(planasonix_vault=simulator.airflow_connection())
    monkeypatch.setattr(page_data, "NAMED_CONNECTIONS_SECONDS", 0.0)
    async with log_in(app, "op") as client:
        assert (await client.get("/planasonix/ui/jobs?conn_id=planasonix_vault")).status_code == 404
        task_rows.add(state="deferred", trigger=PlanasonixJobTrigger("job_1", planasonix_conn_id="planasonix_vault"))
        # A request for the connection itself waits until the tasks are read.
        assert (await get_json(client, "jobs", conn_id="planasonix_vault"))["items"] == []
        rows = {row["conn_id"]: row for row in (await get_json(client, "overview"))["connections"]}
    assert rows["planasonix_vault"]["is_reachable"], rows["planasonix_vault"]["message"]


class TestTwoWorkspaces:
    """Two Airflow connections of two workspaces, whose jobs and backfills have the same ids."""

    CONN_IDS = ("planasonix_eu", "planasonix_us")

    @pytest.fixture
    def workspaces(self, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Simulator]]:
        with ExitStack() as stack:
            found = {}
            for conn_id in self.CONN_IDS:
                workspace = Simulator(api_key=API_KEY, ids=partial(self._next_id, count(1)))
                found[conn_id] = stack.enter_context(workspace)
                monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(workspace.airflow_connection()))
            yield found

    async def test_works_are_not_mixed(self, app: FastAPI, workspaces: dict[str, Simulator]) -> None:
        ids = [self._start(workspace, conn_id) for conn_id, workspace in workspaces.items()]
        assert ids[0] == ids[1]
        backfill_id, (job_id, *_) = ids[0]
        workspaces["planasonix_us"].fail_job(job_id, code="us_only")
        async with log_in(app, "op", **CSRF) as client:
            for _ in range(2):  # from the API, then from the cache
                # A job that is over is cached for longer, so it comes first.
                for conn_id, status in (("planasonix_us", "failed"), ("planasonix_eu", "running")):
                    (row,) = (await get_json(client, "backfills", conn_id=conn_id))["items"]
                    assert (row["id"], row["connection_id"]) == (backfill_id, conn_id)
                    details = await get_json(client, f"backfills/{conn_id}/{backfill_id}")
                    assert {job["id"]: job["status"] for job in details["jobs"]}[job_id] == status
                    assert {job["connection_id"] for job in details["jobs"]} == {conn_id}
                    job = (await get_json(client, f"jobs/{conn_id}/{job_id}"))["item"]
                    assert (job["status"], job["connection_id"]) == (status, conn_id)
            response = await client.post(f"/planasonix/ui/jobs/planasonix_eu/{job_id}/cancel")
            assert response.status_code == 200, response.text
        cancels = {
            conn_id: [request.route for request in workspace.requests].count("cancel_job")
            for conn_id, workspace in workspaces.items()
        }
        assert cancels == {"planasonix_eu": 1, "planasonix_us": 0}

    async def test_tasks_are_not_mixed(
        self, app: FastAPI, workspaces: dict[str, Simulator], task_rows: TaskRows
    ) -> None:
        for workspace in workspaces.values():
            # Even the connections have the same id.
            backfill_id, (job_id, *_) = self._start(workspace, "conn_1")
        parameters = {"planasonix_conn_id": "planasonix_us", "connection_id": "conn_1"}
        task_rows.add(task_id="backfill", backfill_id=backfill_id, parameters=parameters)
        task_rows.add(task_id="job", job_id=job_id, parameters=parameters)
        async with log_in(app, "op") as client:
            for conn_id, names in (("planasonix_us", ["backfill", "job"]), ("planasonix_eu", [None, None])):
                (backfill,) = (await get_json(client, "backfills", conn_id=conn_id))["items"]
                job = (await get_json(client, f"jobs/{conn_id}/{job_id}"))["item"]
                tasks = [backfill["task"], job["task"]]
                assert [task and task["task_id"] for task in tasks] == names

    async def test_a_hidden_connection_hides_only_its_own_work(
        self, app: FastAPI, workspaces: dict[str, Simulator], permissions: Permissions
    ) -> None:
        for conn_id, workspace in workspaces.items():
            backfill_id, (job_id, *_) = self._start(workspace, conn_id)
        async with log_in(app, "admin") as client:
            await get_json(client, f"backfills/planasonix_us/{backfill_id}")
        permissions.forbid("connection", "GET", "planasonix_us")
        async with log_in(app, "op") as client:
            assert (await client.get(f"/planasonix/ui/jobs/planasonix_us/{job_id}")).status_code == 404
            assert (await client.get(f"/planasonix/ui/backfills/planasonix_us/{backfill_id}")).status_code == 404
            details = await get_json(client, f"backfills/planasonix_eu/{backfill_id}")
        assert {job["connection_id"] for job in details["jobs"]} == {"planasonix_eu"}

    @staticmethod
    def _next_id(numbers: Iterator[int], prefix: str) -> str:
        return f"{prefix}_{next(numbers)}"

    @staticmethod
    def _start(simulator: Simulator, connection_id: str) -> tuple[str, list[str]]:
        """Start a backfill, and return its id and those of its jobs."""
        workspace = simulator.workspace
        workspace.add_connection(connection_id)
        simulator.plan_backfill(connection_id, jobs=2, queued_seconds=0, running_seconds=1_000)
        window = BackfillBody(start_at=datetime(2025, 1, 1, tzinfo=UTC), end_at=datetime(2025, 2, 1, tzinfo=UTC))
        backfill = workspace.start_backfill(connection_id, window)
        return backfill.id, sorted(job.id for job in simulator.jobs())


class TestWaitsAndCharts:
    async def test_a_waiting_task_shows_the_state_of_its_job(
        self, app: FastAPI, simulator: Simulator, task_rows: TaskRows
    ) -> None:
        (job_id,) = start(simulator, 1)
        task_rows.add(state="deferred", trigger=PlanasonixJobTrigger(job_id))
        async with log_in(app, "op") as client:
            (before,) = (await get_json(client, "waits"))["items"]
            await get_json(client, "jobs")
            (after,) = (await get_json(client, "waits"))["items"]
        assert (before["status"], after["status"]) == (None, "queued")
        assert before["url"] == f"{simulator.url}/jobs/{job_id}"

    async def test_charts(self, app: FastAPI, simulator: Simulator, task_rows: TaskRows) -> None:
        task_rows.add(state="success", ended_at=datetime.now(UTC), job_id="job_1")
        async with log_in(app, "op") as client:
            charts = await get_json(client, "charts", period="24h")
            assert (await client.get("/planasonix/ui/charts?period=1y")).status_code == 400
        assert (charts["period"], charts["outcomes"][-1]["succeeded"]) == ("24h", 1)
        assert not simulator.requests

    @pytest.mark.parametrize(
        ("path", "function", "seconds"),
        [("waits", "read_waiting_tasks", "DATABASE_SECONDS"), ("charts", "read_charts", "CHARTS_SECONDS")],
    )
    async def test_old_data_has_a_reason(
        self, app: FastAPI, monkeypatch: pytest.MonkeyPatch, path: str, function: str, seconds: str
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError

        async with log_in(app, "op") as client:
            new = await get_json(client, path)
            monkeypatch.setattr(page_data, function, fail)
            monkeypatch.setattr(page_data, seconds, -1.0)
            old = await get_json(client, path)
        assert new["problem"] is None
        assert "(OSError)" in old["problem"]
        assert old["read_at"] == new["read_at"] <= new["generated_at"] < old["generated_at"]


class TestOrphans:
    @pytest.fixture(autouse=True)
    def _records(self, airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        # As in the API server: elsewhere, Airflow 3 does not read connections and variables from its database.
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        self.tasks = AirflowTasks()
        yield
        self.tasks.forget()

    async def test_a_job_whose_task_is_over(self, app: FastAPI, simulator: Simulator, permissions: Permissions) -> None:
        (job_id,) = start(simulator, 1)
        key = self.tasks.add(key_of(), "failed", datetime.now(UTC))
        self.tasks.store(record_of(key, job_id))
        self.tasks.store(record_of(self.tasks.add(key_of("lost"), "failed"), None))
        async with log_in(app, "op", **CSRF) as client:
            orphans = await get_json(client, "orphans")
            permissions.forbid("dag", "GET", key.dag_id)
            hidden = await get_json(client, "orphans")
        (orphan,) = orphans["items"]
        assert (orphan["work"]["id"], orphan["work"]["can_cancel"]) == (job_id, True)
        assert (orphan["conn_id"], orphan["task"]["task_id"]) == ("planasonix_default", "load")
        assert 0 <= orphan["age_seconds"] < 60
        assert orphan["task_ended_at"].endswith("Z")
        assert "what 1 start of ended tasks made" in orphans["problem"]
        assert (hidden["items"], hidden["problem"]) == ([], None)

    async def test_the_problem_of_an_unreadable_connection_is_hidden(
        self, app: FastAPI, permissions: Permissions
    ) -> None:
        key = self.tasks.add(key_of(), "failed", datetime.now(UTC))
        self.tasks.store(record_of(key, "job_1", planasonix_conn_id="planasonix_x"))
        async with log_in(app, "op") as client:
            shown = await get_json(client, "orphans")
            permissions.forbid("connection", "GET", "planasonix_x")
            hidden = await get_json(client, "orphans")
        assert "planasonix_x" in shown["problem"]
        assert hidden["problem"] is None

    async def test_it_is_not_listed_for_each_poll(
        self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with log_in(app, "op") as client:
            first = await get_json(client, "orphans")
            later = monotonic() + 200
            monkeypatch.setattr(page_cache, "monotonic", lambda: later)
            assert (await get_json(client, "orphans"))["read_at"] == first["read_at"]


class TestCancelling:
    async def test_a_job(self, app: FastAPI, simulator: Simulator, task_rows: TaskRows) -> None:
        (job_id,) = start(simulator, 1)
        task_rows.add("sales", job_id=job_id)
        async with log_in(app, "op", **CSRF) as client:
            assert len((await get_json(client, "jobs"))["items"]) == 1
            response = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
            # Not from the cache.
            status = (await get_json(client, f"jobs/planasonix_default/{job_id}"))["item"]["status"]
            again = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
        assert response.status_code == again.status_code == 200
        assert response.json()["message"].startswith(f"Job {job_id} ")
        assert status in ("cancelling", "cancelled")
        assert simulator.job(job_id).status in ("cancelling", "cancelled")
        # Each cancel writes an entry; the second does so only if the job was not over yet.
        entry, *_ = audit_log()
        assert (entry.owner, entry.dag_id, entry.extra) == (
            "op",
            "sales",
            f'{{"conn_id": "planasonix_default", "job_id": "{job_id}"}}',
        )

    async def test_a_backfill_until_it_is_over(self, app: FastAPI, simulator: Simulator) -> None:
        backfill_id = start_backfill(simulator)
        async with log_in(app, "op", **CSRF) as client:
            path = f"/planasonix/ui/backfills/planasonix_default/{backfill_id}/cancel"
            first, second = await asyncio.gather(client.post(path), client.post(path))
        assert first.json() == second.json()
        assert first.json()["status"] == "cancelled", first.json()
        assert simulator.backfill(backfill_id).status == "cancelled"

    @pytest.mark.parametrize("header", [None, "XMLHttpRequest"])
    async def test_it_needs_the_header_of_the_page(
        self, app: FastAPI, simulator: Simulator, header: str | None
    ) -> None:
        (job_id,) = start(simulator, 1)
        async with log_in(app, "admin", **({} if header is None else {"X-Requested-With": header})) as client:
            response = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
        assert response.status_code == 403
        assert simulator.job(job_id).status == "queued"
        assert not simulator.requests

    @pytest.mark.parametrize("kind", ["jobs", "backfills"])
    @pytest.mark.parametrize("user", [None, "viewer", "user"])
    async def test_it_needs_read_access(
        self, app: FastAPI, simulator: Simulator, task_rows: TaskRows, user: str | None, kind: str
    ) -> None:
        work_id = start(simulator, 1)[0] if kind == "jobs" else start_backfill(simulator)
        task_rows.add(**{"job_id" if kind == "jobs" else "backfill_id": work_id})
        async with log_in(app, user, **CSRF) as client:
            response = await client.post(f"/planasonix/ui/{kind}/planasonix_default/{work_id}/cancel")
        assert response.status_code == (403 if user else 401)
        assert not simulator.requests

    async def test_a_job_of_a_dag_needs_the_permission_to_clear_its_tasks(
        self, app: FastAPI, simulator: Simulator, task_rows: TaskRows, permissions: Permissions
    ) -> None:
        owned, free = start(simulator, 2)
        task_rows.add("sales", job_id=owned)
        permissions.forbid("dag", "PUT", "sales")
        async with log_in(app, "op", **CSRF) as client:
            jobs = {job["id"]: job for job in (await get_json(client, "jobs"))["items"]}
            refused = await client.post(f"/planasonix/ui/jobs/planasonix_default/{owned}/cancel")
            allowed = await client.post(f"/planasonix/ui/jobs/planasonix_default/{free}/cancel")
        assert (jobs[owned]["can_cancel"], jobs[free]["can_cancel"]) == (False, True)
        assert (refused.status_code, allowed.status_code) == (403, 200)
        assert simulator.job(owned).status == "queued"

    @pytest.mark.parametrize(("is_listed", "requests"), [(True, 0), (False, 1)])
    async def test_a_forbidden_cancel_sends_no_urgent_request(
        self,
        app: FastAPI,
        simulator: Simulator,
        task_rows: TaskRows,
        permissions: Permissions,
        is_listed: bool,
        requests: int,
    ) -> None:
        (job_id,) = start(simulator, 1)
        task_rows.add("sales", job_id=job_id)
        permissions.forbid("dag", "PUT", "sales")
        async with log_in(app, "op", **CSRF) as client:
            if is_listed:
                await get_json(client, "jobs")
            before = len(simulator.requests)
            for _ in range(5):
                response = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
                assert response.status_code == 403
        assert len(simulator.requests) - before == requests

    async def test_a_job_without_a_task_needs_the_permission_to_edit_its_connection(
        self, app: FastAPI, simulator: Simulator, task_rows: TaskRows, permissions: Permissions
    ) -> None:
        owned, free = start(simulator, 2)
        task_rows.add("sales", job_id=owned)
        permissions.forbid("connection", "PUT", "planasonix_default")
        async with log_in(app, "op", **CSRF) as client:
            jobs = {job["id"]: job for job in (await get_json(client, "jobs"))["items"]}
            allowed = await client.post(f"/planasonix/ui/jobs/planasonix_default/{owned}/cancel")
            refused = await client.post(f"/planasonix/ui/jobs/planasonix_default/{free}/cancel")
        assert (jobs[owned]["can_cancel"], jobs[free]["can_cancel"]) == (True, False)
        assert (refused.status_code, allowed.status_code) == (403, 200)
        assert simulator.job(free).status == "queued"

    @pytest.mark.parametrize(
        "path", ["jobs/unknown/job_1", "jobs/planasonix_default/x", "backfills/planasonix_default/x"]
    )
    async def test_an_unknown_id_is_404(self, app: FastAPI, path: str) -> None:
        async with log_in(app, "op", **CSRF) as client:
            assert (await client.post(f"/planasonix/ui/{path}/cancel")).status_code == 404

    async def test_an_unexpected_error_in_the_background_is_logged(
        self, app: FastAPI, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def cancel(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(0.1)
            raise OSError(API_KEY)

        monkeypatch.setattr(page_cancel, "cancel", cancel)
        monkeypatch.setattr(page_cancel, "MAX_WAIT_SECONDS", 0.0)
        backfill_id = start_backfill(simulator)
        async with log_in(app, "op", **CSRF) as client:
            response = await client.post(f"/planasonix/ui/backfills/planasonix_default/{backfill_id}/cancel")
            await asyncio.sleep(0.2)
        assert "is being cancelled" in response.json()["message"]
        assert f"Backfill {backfill_id}, cancelled on the Planasonix page, may run on. (OSError)" in caplog.text
        assert API_KEY not in caplog.text

    async def test_an_outage_is_reported_at_once(self, app: FastAPI, simulator: Simulator) -> None:
        (job_id,) = start(simulator, 1)
        simulator.fail("status", route="cancel_job", status=503, times=None)
        async with log_in(app, "op", **CSRF) as client:
            response = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
        assert response.status_code == 503
        assert "503 Service Unavailable" in response.json()["detail"]
        assert [request.route for request in simulator.requests].count("cancel_job") == 1


class TestVisibility:
    async def test_tasks_of_unreadable_dags_are_hidden(
        self, app: FastAPI, simulator: Simulator, task_rows: TaskRows, permissions: Permissions
    ) -> None:
        secret, public = start(simulator, 2)
        task_rows.add("secret", job_id=secret, state="deferred", trigger=PlanasonixJobTrigger(secret))
        task_rows.add("public", job_id=public, state="deferred", trigger=PlanasonixJobTrigger(public))
        permissions.forbid("dag", "GET", "secret")
        async with log_in(app, "op") as client:
            jobs = {job["id"]: job for job in (await get_json(client, "jobs"))["items"]}
            waits = (await get_json(client, "waits"))["items"]
        assert (jobs[secret]["task"], jobs[public]["task"]["dag_id"]) == (None, "public")
        assert [wait["task"]["dag_id"] for wait in waits] == ["public"]

    async def test_unreadable_connections_are_hidden(
        self, app: FastAPI, simulator: Simulator, permissions: Permissions
    ) -> None:
        (job_id,) = start(simulator, 1)
        permissions.forbid("connection", "GET", "planasonix_default")
        async with log_in(app, "op", **CSRF) as client:
            assert (await get_json(client, "overview"))["connections"] == []
            for path in ("jobs?conn_id=planasonix_default", f"jobs/planasonix_default/{job_id}"):
                assert (await client.get(f"/planasonix/ui/{path}")).status_code == 404
            cancelled = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
        assert cancelled.status_code == 404

    async def test_no_response_contains_a_secret(
        self, app: FastAPI, simulator: Simulator, assets: Assets, connection: Callable[..., None]
    ) -> None:
        (job_id,) = start(simulator, 1)
        texts = []
        async with log_in(app, "admin", **CSRF) as client:
            for path in (*GET_ROUTES, f"jobs/planasonix_default/{job_id}", "jobs/planasonix_default/x"):
                response = await client.get(f"/planasonix/ui/{path}")
                texts.append(response.text)
            simulator.fail("odd", times=None, fields={"error": {"message": API_KEY, "code": API_KEY}})
            texts.append((await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")).text)
        assert len(texts) == len(GET_ROUTES) + 3
        assert all(API_KEY not in text and SECRET not in text for text in texts)

    async def test_a_withdrawn_permission_ends_within_seconds(
        self,
        app: FastAPI,
        simulator: Simulator,
        task_rows: TaskRows,
        permissions: Permissions,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (job_id,) = start(simulator, 1)
        task_rows.add("secret", job_id=job_id, state="deferred", trigger=PlanasonixJobTrigger(job_id))
        monkeypatch.setattr(permission_cache, "MAX_PERMISSION_AGE_SECONDS", 600.0)
        async with log_in(app, "op", **CSRF) as client:
            for method in ("GET", "PUT"):
                (job,) = (await get_json(client, "jobs"))["items"]
                assert (job["task"]["dag_id"], job["can_cancel"]) == ("secret", True)
                permissions.forbid("dag", method, "secret")
            # Cancels need the present permission.
            cancelled = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
            assert cancelled.status_code == 403
            monkeypatch.setattr(permission_cache, "MAX_PERMISSION_AGE_SECONDS", -1.0)
            (job,) = (await get_json(client, "jobs"))["items"]
        assert (job["task"], job["can_cancel"]) == (None, False)

    async def test_users_do_not_share_their_permissions(
        self,
        app: FastAPI,
        simulator: Simulator,
        task_rows: TaskRows,
        permissions: Permissions,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (job_id,) = start(simulator, 1)
        task_rows.add("secret", job_id=job_id, state="deferred", trigger=PlanasonixJobTrigger(job_id))
        permissions.forbid("dag", "GET", "secret", user="op")
        monkeypatch.setattr(permission_cache, "MAX_PERMISSION_AGE_SECONDS", 600.0)
        shown = {}
        for user in ("admin", "op"):
            async with log_in(app, user) as client:
                (job,) = (await get_json(client, "jobs"))["items"]
            shown[user] = job["task"] is not None
        assert shown == {"admin": True, "op": False}


class TestCost:
    async def test_many_browsers_cost_as_much_as_one(self, app: FastAPI, simulator: Simulator) -> None:
        start(simulator, 1)
        async with log_in(app, "op") as client:
            paths = ("overview", "jobs", "backfills", "waits", "charts")
            await asyncio.gather(*(get_json(client, path) for path in paths for _ in range(20)))
        # Queued and running jobs and backfills, and cancelling jobs.
        assert len(simulator.requests) == 5
