from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

#: Of tests of the connection form as Airflow draws it.
drawn = pytest.mark.skipif(
    AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS and not find_spec("flask_appbuilder"),
    reason="without flask_appbuilder, Airflow 3.0 has a plain form for all connection types",
)

#: Looks like a key, so that a search for it in a text means something.
KEY = "plnx_test_2c9e5b7f13"

Connect = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy on the way out is no way to what runs here."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make an Airflow connection of fields, or of a URI, and give its id."""

    def make(uri: str | None = None, **fields: Any) -> str:
        value = uri or json.dumps({"conn_type": "planasonix", "password": KEY, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_X", value)
        return "planasonix_x"

    return make
