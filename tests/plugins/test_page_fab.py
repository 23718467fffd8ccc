"""The page with the users and roles of FAB's auth manager.

The constraints of the tests exclude apache-airflow-providers-fab, which needs an older python-dateutil. Install it into
an environment without constraints to run these tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow.api_fastapi.app import purge_cached_app
from fastapi import FastAPI

from planasonix_provider.plugins import page_data
from planasonix_provider.plugins.fastapi_app import make_app
from planasonix_provider.simulator import Simulator
from tests.plugins.test_page import CSRF, GET_ROUTES, start
from tests.support.airflow_users import app_with_login, get_json, log_in
from tests.support.task_rows import TaskRows

pytest.importorskip(
    "airflow.providers.fab.auth_manager.fab_auth_manager", reason="apache-airflow-providers-fab is not installed"
)

#: A role that may read everything on the page, but change nothing.
READER = [("can_read", name) for name in ("Connections", "DAGs", "DAG Runs", "Task Instances")]
#: The same, and the role may clear tasks.
CLEARER = [*READER, *(("can_edit", name) for name in ("DAGs", "DAG Runs", "Task Instances"))]
ROLES = {"admin": "Admin", "op": "Op", "user": "User", "viewer": "Viewer", "reader": "Reader", "clearer": "Clearer"}


@pytest.fixture(scope="module")
def _users(airflow_db: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.providers.fab.auth_manager.models.db import FABDBManager
    from airflow.utils.session import create_session

    with pytest.MonkeyPatch.context() as patch:
        manager = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", manager)
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not-a-secret-but-long-enough-for-tests-" + "0" * 64)
        patch.setenv("AIRFLOW__FAB__CONFIG_FILE", str(tmp_path_factory.mktemp("fab") / "webserver_config.py"))
        purge_cached_app()
        with create_session() as session:
            FABDBManager(session).initdb()
        with get_application_builder() as builder:
            builder.sm.sync_roles()
            for name, permissions in {"Reader": READER, "Clearer": CLEARER}.items():
                role = builder.sm.add_role(name)
                for action, resource in permissions:
                    permission = builder.sm.create_permission(action, resource)
                    builder.sm.add_permission_to_role(role, permission)
            for user, role_name in ROLES.items():
                role = builder.sm.find_role(role_name)
                builder.sm.add_user(user, user, user, f"{user}@example.com", role, password=user)
        yield
        purge_cached_app()


@pytest.fixture
def app(_users: None, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(page_data, "MAX_WAIT_SECONDS", 60.0)
    return app_with_login(make_app(has_page=True))


@pytest.mark.parametrize("path", GET_ROUTES)
@pytest.mark.parametrize(
    ("user", "status"),
    [(None, 401), ("viewer", 403), ("user", 403), ("reader", 200), ("op", 200), ("admin", 200)],
)
async def test_reading_needs_read_access_to_connections(app: FastAPI, user: str | None, status: int, path: str) -> None:
    async with log_in(app, user) as client:
        assert (await client.get(f"/planasonix/ui/{path}")).status_code == status


@pytest.mark.parametrize(
    ("user", "owned_status", "free_status"),
    [
        (None, 401, 401),
        ("viewer", 403, 403),
        ("user", 403, 403),
        ("reader", 403, 403),
        ("clearer", 200, 403),
        ("op", 200, 200),
        ("admin", 200, 200),
    ],
)
async def test_permission_to_cancel(
    app: FastAPI, simulator: Simulator, task_rows: TaskRows, user: str | None, owned_status: int, free_status: int
) -> None:
    owned, free = start(simulator, 2)
    task_rows.add("sales", job_id=owned)
    async with log_in(app, user, **CSRF) as client:
        if user in ("reader", "clearer", "op", "admin"):
            jobs = {job["id"]: job["can_cancel"] for job in (await get_json(client, "jobs"))["items"]}
            assert jobs == {owned: owned_status == 200, free: free_status == 200}
        for job_id, status in ((owned, owned_status), (free, free_status)):
            response = await client.post(f"/planasonix/ui/jobs/planasonix_default/{job_id}/cancel")
            assert response.status_code == status, response.text
            assert (simulator.job(job_id).status == "queued") is (status != 200)
