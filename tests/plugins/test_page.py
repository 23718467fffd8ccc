from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from planasonix_provider.plugins.fastapi_app import make_app
from planasonix_provider.simulator import Simulator
from tests.conftest import API_KEY
from tests.support.airflow_users import app_with_login, get_json, log_in, simple_auth_manager

LogIn = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

GET_ROUTES = ("overview", "jobs", "backfills")


@pytest.fixture
def app(airflow_db: None, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    simple_auth_manager(tmp_path, monkeypatch)
    return app_with_login(make_app(has_page=True))


class TestFiles:
    async def test_nobody_needs_a_login_for_the_bundle(self, app: FastAPI) -> None:
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
        async with log_in(app, "op") as client:
            (connection,) = (await get_json(client, "overview"))["connections"]
        assert connection["conn_id"] == "planasonix_default"
        assert connection["is_reachable"] is True
        assert connection["message"].startswith("Connected to http://127.0.0.1")
        assert (connection["active_jobs"], connection["active_backfills"], connection["has_more"]) == (0, 0, False)
        assert API_KEY not in str(connection)
