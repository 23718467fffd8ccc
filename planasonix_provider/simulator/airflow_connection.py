"""The Airflow connection to a simulator."""

from __future__ import annotations

import json
import shlex
from typing import Any


def airflow_connection(url: str, api_key: str) -> dict[str, Any]:
    """Return the Airflow connection in its JSON form."""
    return {"conn_type": "planasonix", "host": url, "password": api_key, "extra": {"web_url": url}}


def export_line(url: str, api_key: str) -> str:
    """Return a shell command that sets ``AIRFLOW_CONN_PLANASONIX_DEFAULT``."""
    return f"export AIRFLOW_CONN_PLANASONIX_DEFAULT={shlex.quote(json.dumps(airflow_connection(url, api_key)))}"
