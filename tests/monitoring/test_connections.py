from __future__ import annotations

import json
from dataclasses import replace

import pytest

from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.connections import (
    connection_row,
    other_workspaces,
    read_connection,
    read_connections,
)

pytestmark = pytest.mark.usefixtures("airflow_db")


def test_a_browser_does_not_get_the_text_of_a_secrets_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError("postgresql://airflow:s3cret@db")

    monkeypatch.setattr(PlanasonixHook, "get_connection", staticmethod(fail))
    row = connection_row(read_connection("planasonix_x"))
    assert (row["is_reachable"], row["message"]) == (
        False,
        "Airflow could not give the Airflow connection (OSError). If it stays, look at the health of Airflow's API "
        "server, database or secrets backend.",
    )


def test_connections_with_other_hosts_or_organizations_are_of_other_workspaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extras = {
        "here": {},
        "another_key": {},
        "another_organization": {"organization_id": "org_2"},
        "host": {},
        "invalid": {"web_url": 1},
    }
    for name, extra in extras.items():
        host = "eu.example.com" if name == "host" else "api.example.com"
        fields = {"conn_type": "planasonix", "host": host, "password": f"plnx_{name}", "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    connections = read_connections()
    assert connections.keys() >= extras.keys()

    def others(conn_id: str, organization: str | None = None) -> set[str]:
        settings = connections[conn_id].settings
        assert settings
        config = replace(settings.client_config, organization_id=organization or settings.client_config.organization_id)
        return set(other_workspaces(replace(settings, client_config=config), connections.values())) & extras.keys()

    assert others("here") == {"host"}
    assert others("here", organization="org_1") == {"host", "another_organization"}
    assert others("another_organization") == {"host"}
    assert others("host") == {"here", "another_key", "another_organization"}
