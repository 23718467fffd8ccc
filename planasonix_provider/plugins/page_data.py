"""The data of the page, cached for all its users. For one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Page
from planasonix_provider.api.request import Request
from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.monitoring.connections import (
    MAX_CONNECTIONS,
    ActiveWork,
    ConnectionRow,
    MonitoredConnection,
    connection_row,
    count_active_work,
    other_workspaces,
    read_connections,
)
from planasonix_provider.monitoring.details import JobTables, read_backfill, read_job
from planasonix_provider.monitoring.history import Charts, read_charts
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.named_connections import read_named_conn_ids
from planasonix_provider.monitoring.orphan_listing import list_orphans
from planasonix_provider.monitoring.orphan_rows import OrphanRow, orphan_row
from planasonix_provider.monitoring.orphans import OrphanListing
from planasonix_provider.monitoring.receivers import ReceiverRow, read_receivers
from planasonix_provider.monitoring.tasks import OwningTask, TaskRow, find_tasks
from planasonix_provider.monitoring.waiting_tasks import WaitingTasks, WaitRow, read_waiting_tasks, wait_row
from planasonix_provider.monitoring.work import Kind, WorkQuery, WorkRow, list_work, work_row
from planasonix_provider.plugins.page_cache import PageCache, PageCacheEntry
from planasonix_provider.plugins.refusals import RefusalCounter
from planasonix_provider.waiting.targets import Work

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How many seconds a response of Planasonix is used, and what is made of it. Together they are the age of an answer.
RESPONSE_SECONDS, ROWS_SECONDS = 7.0, 2.0
#: How many seconds the Airflow connections are used, and what Airflow's database says about receivers and tasks.
CONNECTIONS_SECONDS = DATABASE_SECONDS = 8.0
#: How many seconds the list of connections is used that only tasks name.
NAMED_CONNECTIONS_SECONDS = 60.0
#: How many seconds the charts are used, which take the longest queries.
CHARTS_SECONDS = 60.0
#: How many seconds the orphans are used, which may take many requests, and how long it may take to find them.
ORPHANS_SECONDS, ORPHANS_MAX_SECONDS = 240.0, 20.0
#: How many seconds a request of a browser waits for new data. Then it gets the old one.
MAX_WAIT_SECONDS = 1.5
#: Threads for Airflow's database and secrets backends. They are separate from the API server's threads, which serve
#: Airflow. A slow secrets backend must not block what the database answers, nor a long query the permissions.
ACCESS_THREADS, DATABASE_THREADS, CONNECTION_THREADS = 4, 2, 2
#: How many responses of Planasonix are cached for some seconds, each with up to a hundred jobs: four lists of active
#: work for each connection, and what people look at.
MAX_RESPONSES = 4 * MAX_CONNECTIONS + 200
#: How many ended jobs are remembered, which lists show without their end.
MAX_ENDED_JOBS = 2000


@dataclass(frozen=True)
class WorkList:
    """Jobs or backfills, with all their tasks."""

    rows: list[WorkRow]
    next_cursor: str | None = None


@dataclass(frozen=True)
class WorkDetails(Generic[T]):
    """A job or a backfill, with its task, and what else is known of it."""

    row: WorkRow
    more: T


class PageData:
    """Reads Airflow's database and the API, and caches what it has read."""

    def __init__(self, refusals: RefusalCounter) -> None:
        self._refusals = refusals
        self._cache = PageCache(max_wait=MAX_WAIT_SECONDS)
        self._responses = PageCache(max_wait=None, max_entries=MAX_RESPONSES, max_stale=RESPONSE_SECONDS)
        self._readers: dict[str, ApiReader] = {}
        self._connections: dict[str, MonitoredConnection] = {}
        self._access_limiter = CapacityLimiter(ACCESS_THREADS)
        self._database_limiter = CapacityLimiter(DATABASE_THREADS)
        self._connection_limiter = CapacityLimiter(CONNECTION_THREADS)
        self._named_limiter = CapacityLimiter(1)
        self._orphans_limiter = CapacityLimiter(1)

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that asks for a user's permissions."""
        return await to_thread.run_sync(partial(function, *args), limiter=self._access_limiter)

    async def query(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that reads Airflow's database."""
        return await to_thread.run_sync(partial(function, *args), limiter=self._database_limiter)

    async def connections(self) -> dict[str, MonitoredConnection]:
        """Return the Airflow connections.

        :raises Exception: if Airflow's database or a secrets backend does not answer.
        """

        async def load() -> dict[str, MonitoredConnection]:
            # The listed connections do not wait for the others.
            named = await self._named_conn_ids(wait=False)
            return await to_thread.run_sync(partial(read_connections, named), limiter=self._connection_limiter)

        found = self._connections = (await self._get("connections", load, CONNECTIONS_SECONDS)).required_value
        for conn_id in self._readers.keys() - found.keys():
            self._readers.pop(conn_id).close_later()
        return found

    async def find_named(self, conn_id: str) -> None:
        """Wait until it is known whether a task uses a connection, which :meth:`connections` does not wait for."""
        if conn_id in await self._named_conn_ids(wait=True) and conn_id not in self._connections:
            self._cache.expire("connections")

    async def _named_conn_ids(self, *, wait: bool) -> frozenset[str]:
        async def load() -> frozenset[str]:
            # A secrets backend may be slow.
            return await to_thread.run_sync(read_named_conn_ids, limiter=self._named_limiter)

        entry = await self._get("named connections", load, NAMED_CONNECTIONS_SECONDS, wait=wait)
        return entry.value or frozenset()

    async def connection_rows(self, connections: list[MonitoredConnection]) -> list[ConnectionRow]:
        """Return the rows of connections."""
        return await asyncio.gather(*map(self._connection_row, connections))

    async def _connection_row(self, connection: MonitoredConnection) -> ConnectionRow:
        if connection.settings is None:
            return connection_row(connection)
        reader = self.reader(connection)

        async def load() -> ActiveWork:
            return await count_active_work(self._send(reader, connection))

        entry = await self._get(f"{connection.conn_id} active", load, ROWS_SECONDS)
        return connection_row(
            connection,
            entry.value,
            error=error_of(entry),
            read_at=json_time(entry.read_at),
            rate_limit=reader.rate_limit,
        )

    async def receivers(self) -> list[ReceiverRow]:
        """Return the webhook receivers; none while they are read for the first time."""

        async def load() -> list[ReceiverRow]:
            return await to_thread.run_sync(
                read_receivers, utcnow(), self._refusals.unsaved, limiter=self._connection_limiter
            )

        return (await self._get("receivers", load, DATABASE_SECONDS)).value or []

    async def work(
        self, connection: MonitoredConnection, key: str, query: Callable[[], WorkQuery], cursor: str | None
    ) -> PageCacheEntry[WorkList]:
        """Return a page of jobs or backfills of a connection that has settings.

        :param key: the same for the same page at all times, unlike the query, which has absolute times.
        """
        reader = self.reader(connection)

        async def load() -> WorkList:
            page = await list_work(self._send(reader, connection), query(), cursor)
            return WorkList(await self._rows(reader, page.items), page.next_cursor)

        return await self._get(f"{connection.conn_id} {key}", load, ROWS_SECONDS)

    async def job(self, connection: MonitoredConnection, job_id: str) -> PageCacheEntry[WorkDetails[JobTables | None]]:
        """Return a job and its tables."""
        reader = self.reader(connection)

        async def load() -> WorkDetails[JobTables | None]:
            job, tables = await read_job(self._send(reader, connection), job_id)
            return WorkDetails((await self._rows(reader, [job]))[0], tables)

        return await self._get(f"{connection.conn_id} job {job_id}", load, ROWS_SECONDS)

    async def backfill(
        self, connection: MonitoredConnection, backfill_id: str
    ) -> PageCacheEntry[WorkDetails[list[WorkRow]]]:
        """Return a backfill and its jobs."""
        reader = self.reader(connection)

        async def load() -> WorkDetails[list[WorkRow]]:
            if len(reader.ended_jobs) > MAX_ENDED_JOBS:
                reader.ended_jobs.clear()
            backfill, jobs = await read_backfill(self._send(reader, connection), backfill_id, reader.ended_jobs)
            row = (await self._rows(reader, [backfill]))[0]
            # The task of a backfill has started its jobs.
            return WorkDetails(row, [work_row(job, reader.settings) | {"task": row["task"]} for job in jobs])

        return await self._get(f"{connection.conn_id} backfill {backfill_id}", load, ROWS_SECONDS)

    async def known_task(
        self, connection: MonitoredConnection, kind: Kind, request: Request[Any], work_id: str
    ) -> TaskRow | None:
        """Return the task of a job or a backfill, as a list has shown it, so that most calls need no request.

        :raises PlanasonixError: if a request is needed, and failed.
        """
        for key, value in self._cache.values().items():
            if key.startswith(f"{connection.conn_id} ") and isinstance(value, WorkList):
                for row in value.rows:
                    if (row["kind"], row["id"]) == (kind, work_id):
                        return row["task"]
        entry = await self._response(self.reader(connection), connection, request)
        if error := error_of(entry):
            raise error.with_traceback(None)
        return await self.task_of(self.reader(connection), entry.required_value)

    async def task_of(self, reader: ApiReader, work: Work) -> TaskRow | None:
        """Return the task of a job or a backfill, from Airflow's database."""
        owner = (await self._find_tasks(reader, [work])).get(work.id)
        return owner.row if owner else None

    async def _find_tasks(self, reader: ApiReader, works: list[Work]) -> dict[str, OwningTask]:
        others = other_workspaces(reader.settings, self._connections.values())
        return await self.query(find_tasks, works, others)

    async def _rows(self, reader: ApiReader, works: list[Work]) -> list[WorkRow]:
        tasks = await self._find_tasks(reader, works)
        rows = []
        for work in works:
            row = work_row(work, reader.settings)
            if task := tasks.get(work.id):
                row["task"] = task.row
                row["rows_loaded"] = task.rows_loaded if row["rows_loaded"] is None else row["rows_loaded"]
            rows.append(row)
        return rows

    async def waits(self) -> PageCacheEntry[WaitingTasks]:
        """Return the tasks that wait in the triggerer."""

        async def load() -> WaitingTasks:
            return await self.query(read_waiting_tasks)

        return await self._get("waits", load, DATABASE_SECONDS)

    def wait_rows(self, waiting: WaitingTasks, connections: dict[str, MonitoredConnection]) -> list[WaitRow]:
        """Return the rows of waiting tasks, with the states that the cached lists show."""
        known: dict[tuple[str, str], Work] = {}
        for key, page in self._responses.values().items():
            if isinstance(page, Page):
                known |= {(key.partition(" ")[0], work.id): work for work in page.data}
        rows = []
        for item in waiting.items:
            connection = connections.get(item.conn_id or "")
            settings = connection.settings if connection else None
            rows.append(wait_row(item, settings, lambda conn_id, work_id: known.get((conn_id, work_id))))
        return rows

    async def orphans(self) -> PageCacheEntry[OrphanListing]:
        """Return the jobs that run on although their tasks are over."""

        async def load() -> OrphanListing:
            # With an event loop and clients of its own: it may send many requests.
            return await to_thread.run_sync(
                partial(list_orphans, max_seconds=ORPHANS_MAX_SECONDS), limiter=self._orphans_limiter
            )

        return await self._get("orphans", load, ORPHANS_SECONDS)

    def orphan_rows(
        self, listing: OrphanListing, connections: dict[str, MonitoredConnection], now: datetime
    ) -> list[OrphanRow]:
        """Return the rows of the orphans of some connections."""
        return [
            orphan_row(orphan, connection.settings, now)
            for orphan in listing.orphans
            if orphan.work and (connection := connections.get(orphan.conn_id)) and connection.settings
        ]

    async def charts(self, period: str) -> PageCacheEntry[Charts]:
        """Return the data of the charts."""

        async def load() -> Charts:
            return await self.query(read_charts, period, utcnow())

        return await self._get(f"charts {period}", load, CHARTS_SECONDS)

    def reader(self, connection: MonitoredConnection) -> ApiReader:
        """Return what sends the requests of a connection that has settings."""
        if connection.settings is None:
            raise connection.error or ValueError("There are no settings.")
        if reader := self._readers.get(connection.conn_id):
            reader.update(connection.settings)
            return reader
        reader = self._readers[connection.conn_id] = ApiReader(connection.settings)
        return reader

    def expire(self, conn_id: str) -> None:
        """Read everything of a connection again when it is asked for, because something has changed."""
        self._cache.expire(f"{conn_id} ")
        self._responses.expire(f"{conn_id} ")
        self._cache.expire("orphans")

    async def _get(
        self, key: str, load: Callable[[], Awaitable[T]], max_age: float, *, wait: bool = True
    ) -> PageCacheEntry[T]:
        async def load_and_log() -> T:
            try:
                return await load()
            except (PlanasonixError, ValueError):
                raise
            except Exception as fault:
                # Without the text of the exception, which may contain values of a query.
                log.warning("The Planasonix page could not read %r (%s).", key, type(fault).__name__)
                log.debug("The reason:", exc_info=True)
                raise

        return await self._cache.get(key, load_and_log, max_age=max_age, wait=wait)

    def _send(self, reader: ApiReader, connection: MonitoredConnection) -> Any:
        """Return a function that returns responses, which all pages share."""

        async def send(request: Request[T]) -> T:
            entry = await self._response(reader, connection, request)
            if entry.error:
                raise entry.error.with_traceback(None)
            return entry.required_value

        return send

    async def _response(
        self, reader: ApiReader, connection: MonitoredConnection, request: Request[T]
    ) -> PageCacheEntry[T]:
        key = f"{connection.conn_id} {request.key}"
        return await self._responses.get(key, lambda: reader.send(request), max_age=RESPONSE_SECONDS)


def error_of(entry: PageCacheEntry[Any]) -> PlanasonixError | None:
    """Return the error of the last attempt."""
    if entry.error is None or isinstance(entry.error, PlanasonixError):
        return entry.error
    return PlanasonixError(
        f"Airflow's API server could not read this ({type(entry.error).__name__}). If it stays, look at the health of "
        "Airflow's database."
    )


def problem_of(entry: PageCacheEntry[Any]) -> str | None:
    """Return why an entry is not up to date, as a sentence; ``None`` if it is."""
    if error := error_of(entry):
        return error.message
    return None if entry.value is not None else "Planasonix has not answered yet."
