"""Airflow connections: how to look them up, and the errors when that fails."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.airflow_compat import database_session, supervisor_channel
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError, PlanasonixTransportError


def must_block() -> bool:
    """Return whether this process can only make blocking requests to Airflow.

    This is so for a trigger in ``dag.test()`` on Airflow 3. There, the asynchronous lookup of Airflow 3.3.2 does not
    find connections that are stored in the metadata database.
    """
    channel = supervisor_channel()
    return channel is not None and not hasattr(channel, "asend")


@contextmanager
def lookup_errors(conn_id: str) -> Iterator[None]:
    """Raise a different error for a missing connection than for an Airflow that does not respond."""
    try:
        yield
    except AirflowNotFoundException:
        raise PlanasonixConfigurationError(
            f"There is no Airflow connection {conn_id!r}, or none that can be read. Make it under Admin > Connections "
            f"(type Planasonix, with the API key){_environment_variable_hint(conn_id)}, or write it into a file for "
            f"`airflow connections import`.{missing_connection_hint()}"
        ) from None
    except Exception as fault:
        raise PlanasonixTransportError(
            f"Airflow could not give the Airflow connection {conn_id!r} ({type(fault).__name__}: {fault}). If it "
            "stays, look at the health of Airflow's API server, database or secrets backend.",
            sent=False,
        ) from fault


def public_message(error: PlanasonixError) -> str:
    """Return the message of an error without the text of another package's exception, which may contain secrets."""
    fault = error.__cause__
    return error.message.replace(f"{type(fault).__name__}: {fault}", type(fault).__name__) if fault else error.message


def list_conn_ids(conn_type: str) -> frozenset[str]:
    """Return the connections of a type in Airflow's database and the environment.

    This is one query, which reads and decrypts no secret. Secrets backends cannot list their connections.
    """
    from airflow.models.connection import Connection
    from sqlalchemy import select

    query = select(Connection.conn_id).where(Connection.conn_type == conn_type)
    with database_session() as session:
        conn_ids = frozenset(session.scalars(query))
    return conn_ids | _list_environment_conn_ids(conn_type)


def _list_environment_conn_ids(conn_type: str) -> frozenset[str]:
    prefix = "AIRFLOW_CONN_"
    return frozenset(
        variable.removeprefix(prefix).lower()
        for variable, value in os.environ.items()
        if variable.startswith(prefix) and _conn_type_of(value) == conn_type
    )


def _conn_type_of(value: str) -> str:
    """Return the type of a connection in JSON or as a URI. In a URI, it has "-" instead of "_"."""
    text = value.strip()
    if not text.startswith("{"):
        return text.partition(":")[0].lower().replace("-", "_")
    try:
        return str(json.loads(text).get("conn_type")).replace("-", "_")
    except ValueError:
        return ""


def missing_connection_hint() -> str:
    """Return a hint for processes that do not see the connections in Airflow's database.

    It is empty on Airflow 2, and in processes that Airflow has started.
    """
    has_supervisor = supervisor_channel() is not None
    if not AIRFLOW_V_3_0_PLUS or has_supervisor or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        return ""
    return (
        " But Airflow has not started this process, so Airflow 3 looks only in environment variables and in the "
        "secrets backend, and not in its metadata database. If the connection is in the database, run this code in a "
        "task, or set the environment variable."
    )


def _environment_variable_hint(conn_id: str) -> str:
    """Return a hint at the connection's environment variable; empty if no shell can set a variable of that name."""
    if not re.fullmatch(r"\w+", conn_id, re.ASCII):
        return ""
    return (
        f", or set AIRFLOW_CONN_{conn_id.upper()} for every process of Airflow to "
        '{"conn_type": "planasonix", "password": "<the API key>"}'
    )
