from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

#: Looks like a key, so that tests can search for it in texts.
KEY = "plnx_test_2c9e5b7f13"

Connect = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no proxy for servers on this machine."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A function that creates an Airflow connection from fields or a URI, and returns its id."""

    def make(uri: str | None = None, **fields: Any) -> str:
        value = uri or json.dumps({"conn_type": "planasonix", "password": KEY, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_X", value)
        return "planasonix_x"

    return make
