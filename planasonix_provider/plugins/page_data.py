"""The data of the page: what all its users share, cached. For one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.request import Request
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.monitoring.connections import (
    ActiveWork,
    ConnectionRow,
    MonitoredConnection,
    connection_row,
    count_active_work,
    read_connections,
)
from planasonix_provider.monitoring.tasks import find_tasks
from planasonix_provider.monitoring.work import WorkQuery, WorkRow, json_time, list_work, work_row
from planasonix_provider.plugins.page_cache import PageCache, PageCacheEntry
from planasonix_provider.waiting.targets import Work

T = TypeVar("T")

#: How many seconds a response of Planasonix is used, and what is made of it. Together they are the age of an answer.
RESPONSE_SECONDS, ROWS_SECONDS = 7.0, 2.0
#: How many seconds the Airflow connections are used.
CONNECTIONS_SECONDS = 8.0
#: How many seconds a request of a browser waits for new data. Then it gets the old one.
MAX_WAIT_SECONDS = 1.5
#: Threads for Airflow's database and secrets backends. They are separate from the API server's threads, which serve
#: Airflow. A slow secrets backend must not block what the database answers.
DATABASE_THREADS, CONNECTION_THREADS = 4, 2
#: How many responses of Planasonix are cached, each with up to a hundred jobs.
MAX_RESPONSES = 100


@dataclass(frozen=True)
class WorkList:
    """A page of jobs or backfills, with all their tasks."""

    rows: list[WorkRow]
    next_cursor: str | None = None


class PageData:
    """Reads Airflow's database and the API, and caches what it has read."""

    def __init__(self) -> None:
        self._cache = PageCache(max_wait=MAX_WAIT_SECONDS)
        self._responses = PageCache(max_wait=None, max_entries=MAX_RESPONSES, max_stale=RESPONSE_SECONDS)
        self._readers: dict[str, ApiReader] = {}
        self._connection_limiter = CapacityLimiter(CONNECTION_THREADS)
        self._database_limiter = CapacityLimiter(DATABASE_THREADS)

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that asks Airflow's database."""
        return await to_thread.run_sync(partial(function, *args), limiter=self._database_limiter)

    async def connections(self) -> dict[str, MonitoredConnection]:
        """Return the Airflow connections.

        :raises Exception: if Airflow's database or a secrets backend does not answer.
        """

        async def load() -> dict[str, MonitoredConnection]:
            return await to_thread.run_sync(read_connections, limiter=self._connection_limiter)

        entry = await self._cache.get("connections", load, max_age=CONNECTIONS_SECONDS)
        found = entry.required_value
        for conn_id in self._readers.keys() - found.keys():
            del self._readers[conn_id]
        return found

    async def connection_rows(self, connections: list[MonitoredConnection]) -> list[ConnectionRow]:
        """Return the rows of connections."""
        return await asyncio.gather(*map(self._connection_row, connections))

    async def _connection_row(self, connection: MonitoredConnection) -> ConnectionRow:
        if connection.settings is None:
            return connection_row(connection)
        reader = self._reader(connection)

        async def load() -> ActiveWork:
            return await count_active_work(partial(self._read, reader, connection.conn_id))

        entry = await self._cache.get(f"{connection.conn_id} active", load, max_age=ROWS_SECONDS)
        return connection_row(
            connection,
            entry.value,
            error=_planasonix_error(entry),
            read_at=json_time(entry.read_at),
            rate_limit=reader.rate_limit,
        )

    async def work(
        self, connection: MonitoredConnection, query: WorkQuery, cursor: str | None
    ) -> PageCacheEntry[WorkList]:
        """Return a page of jobs or backfills of a connection that has settings."""
        reader = self._reader(connection)

        async def load() -> WorkList:
            page = await list_work(partial(self._read, reader, connection.conn_id), query, cursor)
            return WorkList(await self._rows(reader, page.items), page.next_cursor)

        return await self._cache.get(f"{connection.conn_id} {query} {cursor}", load, max_age=ROWS_SECONDS)

    async def _rows(self, reader: ApiReader, works: list[Work]) -> list[WorkRow]:
        tasks = await self.in_thread(find_tasks, works)
        rows = []
        for work in works:
            row = work_row(work, reader.settings)
            if task := tasks.get(work.id):
                row["task"] = task.row
                row["rows_loaded"] = task.rows_loaded if row["rows_loaded"] is None else row["rows_loaded"]
            rows.append(row)
        return rows

    def _reader(self, connection: MonitoredConnection) -> ApiReader:
        if connection.settings is None:
            raise connection.error or ValueError("There are no settings.")
        if reader := self._readers.get(connection.conn_id):
            reader.update(connection.settings)
            return reader
        reader = self._readers[connection.conn_id] = ApiReader(connection.settings)
        return reader

    async def _read(self, reader: ApiReader, conn_id: str, request: Request[T]) -> T:
        """Return a response, which all pages share."""
        entry = await self._responses.get(
            f"{conn_id} {request.key}", lambda: reader.send(request), max_age=RESPONSE_SECONDS
        )
        if entry.error:
            raise entry.error.with_traceback(None)
        return entry.required_value


def _planasonix_error(entry: PageCacheEntry[Any]) -> PlanasonixError | None:
    """Return the error of the last attempt."""
    if entry.error is None or isinstance(entry.error, PlanasonixError):
        return entry.error
    return PlanasonixError(
        f"Airflow's API server could not read this ({type(entry.error).__name__}). If it stays, look at the health of "
        "Airflow's database."
    )


def problem_of(entry: PageCacheEntry[Any]) -> str | None:
    """Return why an entry is not up to date, as a sentence; ``None`` if it is."""
    if error := _planasonix_error(entry):
        return error.message
    return None if entry.value is not None else "Planasonix has not answered yet."
