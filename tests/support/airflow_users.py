"""An app with the login of Airflow's simple auth manager, and its users."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

#: The users, each named after its role.
USERS = ("admin", "op", "user", "viewer")


def simple_auth_manager(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure Airflow's simple auth manager: the password of each user is its name."""
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({user: user for user in USERS}))
    settings = {
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{user}" for user in USERS),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "API_AUTH__JWT_SECRET": "not-a-secret-but-long-enough-for-a-test-of-the-simple-auth-manager-0123456789",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__{name}", value)


def app_with_login(plugin_app: FastAPI) -> FastAPI:
    """Return an app like that of Airflow's API server, with its login and one plugin."""
    from airflow.api_fastapi.app import init_auth_manager

    app = FastAPI()
    init_auth_manager(app)
    app.mount("/planasonix", plugin_app)
    return app


@asynccontextmanager
async def log_in(app: FastAPI, user: str | None, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that has logged in as a user through the API; without a user, one without a login."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
        if user:
            response = await client.post("/auth/token", json={"username": user, "password": user})
            assert response.status_code == 201, response.text
            headers |= {"Authorization": f"Bearer {response.json()['access_token']}"}
        client.headers.update(headers)
        yield client


async def get_json(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    """Return the JSON of a route of the page."""
    response = await client.get(f"/planasonix/ui/{path}", params=query)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content
