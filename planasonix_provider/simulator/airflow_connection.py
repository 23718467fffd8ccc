"""How Airflow finds a simulator."""

from __future__ import annotations

import json
import shlex
from typing import Any


def airflow_connection(url: str, api_key: str) -> dict[str, Any]:
    """Describe the Airflow connection.

    :param url: where the simulator listens.
    :param api_key: the key to send.
    :return: the connection, in the form that Airflow reads from JSON.
    """
    return {"conn_type": "planasonix", "host": url, "password": api_key, "extra": {"web_url": url}}


def export_line(url: str, api_key: str) -> str:
    """Write the Airflow connection as a line for a shell.

    :param url: where the simulator listens.
    :param api_key: the key to send.
    :return: the line that sets ``AIRFLOW_CONN_PLANASONIX_DEFAULT``.
    """
    return f"export AIRFLOW_CONN_PLANASONIX_DEFAULT={shlex.quote(json.dumps(airflow_connection(url, api_key)))}"
