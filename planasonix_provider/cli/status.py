"""The commands that show what the page in Airflow's UI shows. They need Airflow's database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.cli.exit_codes import EXIT_ERROR, EXIT_OK
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext, ShellHook
from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.monitoring.connections import (
    ConnectionRow,
    MonitoredConnection,
    connection_row,
    count_active_work,
    read_connection,
    read_connections,
)
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.named_connections import read_named_conn_ids
from planasonix_provider.monitoring.receivers import read_receivers
from planasonix_provider.monitoring.waiting_tasks import read_waiting_tasks, wait_row
from planasonix_provider.waiting.loop_thread import run_in_loop_thread

_WAIT_COLUMNS = ("dag_id", "run_id", "task_id", "map_index", "target", "status", "since", "deadline", "conn_id")


def status(context: CommandContext) -> CommandResult:
    """Show the Airflow connections and the webhook receivers."""
    connections = _connections(context.options.conn_id)
    rows = run_in_loop_thread(partial(_read_all, connections))
    broken = [row["conn_id"] for row in rows if not row["is_reachable"]]
    data = {
        "generated_at": json_time(utcnow()),
        "connections": [_flat(row) for row in rows],
        "receivers": read_receivers(utcnow()),
    }
    if not broken:
        return CommandResult(data, code=EXIT_OK)
    return CommandResult(data, code=EXIT_ERROR, error=f"Airflow connections that do not work: {', '.join(broken)}.")


def _connections(conn_id: str) -> list[MonitoredConnection]:
    """Return all connections that Airflow can list, and one that may be in a secrets backend."""
    # The default connection may not exist.
    given = set() if conn_id == ShellHook.default_conn_name else {conn_id}
    listed = read_connections(read_named_conn_ids() | given)
    return list(listed.values()) or [read_connection(conn_id)]


async def _read_all(connections: Iterable[MonitoredConnection]) -> list[ConnectionRow]:
    return await asyncio.gather(*map(_read, connections))


async def _read(connection: MonitoredConnection) -> ConnectionRow:
    if connection.settings is None:
        return connection_row(connection)
    reader = ApiReader(connection.settings)
    try:
        active = await count_active_work(reader.send)
        return connection_row(connection, active, read_at=json_time(utcnow()), rate_limit=reader.rate_limit)
    except PlanasonixError as error:
        return connection_row(connection, error=error)
    finally:
        await reader.close()


def _flat(row: ConnectionRow) -> dict[str, Any]:
    """Return a row without nested objects, which a table cannot show."""
    limit = row["rate_limit"]
    fields = {name: value for name, value in row.items() if name not in ("rate_limit", "message")}
    return {
        **fields,
        "rate_limit": limit and limit["limit"],
        "rate_limit_remaining": limit and limit["remaining"],
        "message": row["message"],
    }


def waits(context: CommandContext) -> CommandResult:
    """List the deferred tasks that wait for Planasonix."""
    waiting = read_waiting_tasks()
    if waiting.has_more:
        context.terminal.print(f"Listed the {len(waiting.items)} tasks that have waited longest. There are more.")
    rows = []
    for item in waiting.items:
        row = wait_row(item)
        task = {name: value for name, value in row["task"].items() if name != "url"}
        rows.append(task | {name: value for name, value in row.items() if name not in ("task", "url")})
    return CommandResult(rows, _WAIT_COLUMNS)
