"""The Airflow connections to Planasonix, and what they have to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from planasonix_provider.api import routes
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixError, PlanasonixRateLimitError
from planasonix_provider.api.headers import RateLimit
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.api.states import ACTIVE_STATES
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.connection_lookup import list_conn_ids, public_message
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.hooks.connection_test import failure_message, success_message
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.waiting.shared_client import AsyncSend

#: How many Airflow connections are monitored.
MAX_CONNECTIONS = 100


@dataclass(frozen=True)
class MonitoredConnection:
    """An Airflow connection.

    :param settings: its content; ``None`` if it cannot be used.
    :param error: why it cannot be used.
    """

    conn_id: str
    settings: ConnectionSettings | None = None
    error: PlanasonixError | None = None


@dataclass(frozen=True)
class ActiveWork:
    """How many jobs and backfills have not ended; ``has_more`` if there are more than these."""

    jobs: int
    backfills: int
    has_more: bool


class RateLimitRow(TypedDict):
    """A rate limit in JSON types."""

    limit: int
    remaining: int
    resets_at: str | None


class ConnectionRow(TypedDict):
    """An Airflow connection in JSON types. ``is_reachable`` is ``None`` if it is not known yet."""

    conn_id: str
    host: str | None
    is_reachable: bool | None
    message: str
    rate_limit: RateLimitRow | None
    active_jobs: int | None
    active_backfills: int | None
    has_more: bool
    web_url: str | None
    read_at: str | None


def read_connections(further: Iterable[str] = ()) -> dict[str, MonitoredConnection]:
    """Read the Airflow connections of the type Planasonix in Airflow's database and the environment, and some further.

    It blocks.
    """
    conn_ids = sorted(list_conn_ids(PlanasonixHook.conn_type) | set(further))[:MAX_CONNECTIONS]
    return {conn_id: read_connection(conn_id) for conn_id in conn_ids}


def read_connection(conn_id: str) -> MonitoredConnection:
    """Read an Airflow connection. It blocks."""
    try:
        return MonitoredConnection(conn_id, settings=PlanasonixHook(conn_id).settings)
    except PlanasonixError as error:
        # Everybody who may read the connection sees it on the page.
        error.set_message(public_message(error))
        return MonitoredConnection(conn_id, error=error)


def other_workspaces(settings: ConnectionSettings, connections: Iterable[MonitoredConnection]) -> frozenset[str]:
    """Return the Airflow connections with another host or organization. Keys of one host may be of one workspace."""
    here = settings.client_config

    def is_elsewhere(there: ClientConfig) -> bool:
        organizations = {here.organization_id, there.organization_id} - {None}
        return here.host != there.host or len(organizations) > 1

    return frozenset(one.conn_id for one in connections if one.settings and is_elsewhere(one.settings.client_config))


async def count_active_work(send: AsyncSend) -> ActiveWork:
    """Count the jobs and backfills that have not ended, on one page of each list."""
    requests = [
        list_work(status=status, limit=PAGE_SIZE)
        for list_work in (routes.list_jobs, routes.list_backfills)
        for status in ACTIVE_STATES
    ]
    pages = await asyncio.gather(*(send(request) for request in requests))
    ids = [{work.id for work in page.data if not work.is_over} for page in pages]
    half = len(ACTIVE_STATES)
    return ActiveWork(
        jobs=len(set().union(*ids[:half])),
        backfills=len(set().union(*ids[half:])),
        has_more=any(page.cursor for page in pages),
    )


def connection_row(
    connection: MonitoredConnection,
    active: ActiveWork | None = None,
    *,
    error: PlanasonixError | None = None,
    read_at: str | None = None,
    rate_limit: RateLimit | None = None,
) -> ConnectionRow:
    """Return the row of a connection; ``error`` is that of the last attempt to read its work."""
    settings, error = connection.settings, connection.error or error
    if error:
        message = failure_message(error, settings, connection.conn_id)
    elif settings and active:
        message = success_message(settings, connection.conn_id)
    else:
        message = "Planasonix has not answered yet."
    return {
        "conn_id": connection.conn_id,
        "host": settings.client_config.host if settings else None,
        "is_reachable": _is_reachable(error, active),
        "message": message,
        "rate_limit": _rate_limit_row(rate_limit) if rate_limit else None,
        "active_jobs": active.jobs if active else None,
        "active_backfills": active.backfills if active else None,
        "has_more": bool(active and active.has_more),
        "web_url": settings.web_url if settings else None,
        "read_at": read_at,
    }


def _is_reachable(error: PlanasonixError | None, active: ActiveWork | None) -> bool | None:
    if error is None:
        return True if active else None
    # An error without a class of its own is one of Airflow, and says nothing about Planasonix.
    return None if type(error) is PlanasonixError else isinstance(error, PlanasonixRateLimitError)


def _rate_limit_row(rate_limit: RateLimit) -> RateLimitRow:
    resets_at = utcnow() + timedelta(seconds=rate_limit.seconds)
    return {"limit": rate_limit.limit, "remaining": rate_limit.remaining, "resets_at": json_time(resets_at)}
