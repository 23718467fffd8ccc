from __future__ import annotations

import pytest

from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.connections import connection_row, read_connection


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
