"""The routes of the page in Airflow's UI: its files, and its data as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from planasonix_provider import validators
from planasonix_provider.api import routes
from planasonix_provider.api.errors import (
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixRateLimitError,
)
from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.connections import MonitoredConnection
from planasonix_provider.monitoring.history import PERIODS
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.orphan_rows import OrphanRow, unknown_starts
from planasonix_provider.monitoring.orphans import OrphanListing
from planasonix_provider.monitoring.tasks import TaskRow
from planasonix_provider.monitoring.work import Kind, WorkQuery, WorkRow
from planasonix_provider.plugins.page_access import PageAccess
from planasonix_provider.plugins.page_cache import PageCacheEntry
from planasonix_provider.plugins.page_cancel import PageCanceller, log_cancel
from planasonix_provider.plugins.page_data import PageData, WorkDetails, error_of, problem_of
from planasonix_provider.plugins.permission_cache import PermissionCache
from planasonix_provider.plugins.refusals import RefusalCounter
from planasonix_provider.waiting.targets import Work

T = TypeVar("T")

#: The header of requests that change something. Other sites cannot send it without Airflow's consent.
CSRF_HEADER, CSRF_VALUE = "X-Requested-With", "planasonix"

_STATIC = Path(__file__).parent / "static"
# All other errors of Planasonix are 503.
_STATUSES: dict[type[PlanasonixError], int] = {
    PlanasonixNotFoundError: 404,
    PlanasonixConflictError: 409,
    PlanasonixRateLimitError: 429,
}


def add_routes(app: FastAPI, refusals: RefusalCounter) -> None:
    """Add the routes to the plugin's app."""
    app.mount("/static", _StaticFiles(directory=_STATIC))
    app.state.permission_cache = PermissionCache()
    page = _PageRoutes(PageData(refusals))
    gets: dict[str, Callable[..., Any]] = {
        "overview": page.overview,
        "jobs": page.jobs,
        "backfills": page.backfills,
        "jobs/{conn_id}/{job_id}": page.job,
        "backfills/{conn_id}/{backfill_id}": page.backfill,
        "waits": page.waits,
        "orphans": page.orphans,
        "charts": page.charts,
    }
    for path, endpoint in gets.items():
        app.add_api_route(f"/ui/{path}", endpoint)
    for path, endpoint in {
        "jobs/{conn_id}/{job_id}": page.cancel_job,
        "backfills/{conn_id}/{backfill_id}": page.cancel_backfill,
    }.items():
        app.add_api_route(f"/ui/{path}/cancel", endpoint, methods=["POST"], dependencies=[Depends(_requires_header)])


class _StaticFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file that browsers check for changes, so that files of two versions are never mixed."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _access(request: Request, user: GetUserDep) -> PageAccess:
    """Return the permissions of the user. Routes that change something use no cached permissions."""
    return PageAccess(user, request.app.state.permission_cache if request.method == "GET" else None)


async def _requires_header(x_requested_with: Annotated[str | None, Header()] = None) -> None:
    if x_requested_with != CSRF_VALUE:
        raise HTTPException(403, f"The header {CSRF_HEADER}: {CSRF_VALUE} is missing.")


Access = Annotated[PageAccess, Depends(_access)]


@dataclass(frozen=True)
class _WorkFilter:
    """The query parameters of a list of work."""

    state: str
    since: str | None
    connection_id: str | None
    limit: int
    conn_id: str | None
    cursor: str | None

    def query(self, kind: Kind) -> WorkQuery:
        """Return the query.

        :raises ValueError: if a parameter is invalid.
        """
        # In whole minutes, so that all browsers ask for the same.
        minute = utcnow().replace(second=0, microsecond=0)
        since = validators.utc_or_age("since", self.since, minute) if self.since else None
        connection_id = validators.identifier("connection_id", self.connection_id) if self.connection_id else None
        return WorkQuery(kind, self.state, since, connection_id, self.limit)


# A function, because FastAPI of Airflow 3.1 does not resolve the annotations of a class.
async def _work_filter(
    state: str = "active",
    since: str | None = None,
    connection_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    conn_id: str | None = None,
    cursor: str | None = None,
) -> _WorkFilter:
    return _WorkFilter(state, since, connection_id, limit, conn_id, cursor)


Filter = Annotated[_WorkFilter, Depends(_work_filter)]


class _PageRoutes:
    def __init__(self, data: PageData) -> None:
        self._data = data
        self._canceller = PageCanceller()

    # --- Reading ---

    async def overview(self, access: Access) -> Response:
        """Return the connections and the receivers that the user may read."""
        connections = await self._readable_connections(access)
        rows = await self._data.connection_rows(list(connections.values()))
        receivers = await self._data.receivers()
        readable = await self._data.ask(access.readable_connections, [row["conn_id"] for row in receivers])
        return _json(connections=rows, receivers=[row for row in receivers if row["conn_id"] in readable])

    async def jobs(self, access: Access, given: Filter) -> Response:
        """Return a page of jobs."""
        return await self._work("job", access, given)

    async def backfills(self, access: Access, given: Filter) -> Response:
        """Return a page of backfills."""
        return await self._work("backfill", access, given)

    async def _work(self, kind: Kind, access: PageAccess, given: _WorkFilter) -> Response:
        connection = await self._connection(access, given.conn_id)
        query = partial(given.query, kind)
        with _bad_requests():
            query()
        rows: list[WorkRow] = []
        next_cursor = read_at = None
        if connection.error:
            problem: str | None = connection.error.message
        else:
            entry = await self._data.work(connection, f"{kind} {given}", query, given.cursor)
            with _bad_requests():
                if isinstance(entry.error, ValueError):
                    raise entry.error.with_traceback(None)
            read_at, problem = json_time(entry.read_at), problem_of(entry)
            if entry.value:
                rows = await self._data.ask(_rows_for_user, access, connection.conn_id, entry.value.rows)
                next_cursor = entry.value.next_cursor
        return _json(conn_id=connection.conn_id, items=rows, next_cursor=next_cursor, read_at=read_at, problem=problem)

    async def job(self, access: Access, conn_id: str, job_id: str) -> Response:
        """Return a job and its tables."""
        connection = await self._usable_connection(access, conn_id)
        with _bad_requests():
            routes.get_job(job_id)
        details = _details(await self._data.job(connection, job_id))
        (row,) = await self._data.ask(_rows_for_user, access, conn_id, [details.row])
        return _json(item=row, tables=details.more)

    async def backfill(self, access: Access, conn_id: str, backfill_id: str) -> Response:
        """Return a backfill and its jobs."""
        connection = await self._usable_connection(access, conn_id)
        with _bad_requests():
            routes.get_backfill(backfill_id)
        details = _details(await self._data.backfill(connection, backfill_id))
        row, *jobs = await self._data.ask(_rows_for_user, access, conn_id, [details.row, *details.more])
        return _json(item=row, jobs=jobs)

    async def waits(self, access: Access) -> Response:
        """Return the waiting tasks of the DAGs that the user may read."""
        connections = await self._readable_connections(access)
        entry = await self._data.waits()
        waiting = _value(entry)
        rows = self._data.wait_rows(waiting, connections)
        readable = await self._data.ask(access.readable_dags, {row["task"]["dag_id"] for row in rows})
        items = [row for row in rows if row["task"]["dag_id"] in readable]
        return _json(items=items, has_more=waiting.has_more, **_age_of(entry))

    async def orphans(self, access: Access) -> Response:
        """Return the orphans of the DAGs that the user may read."""
        connections = await self._readable_connections(access)
        entry = await self._data.orphans()
        listing = await self._data.ask(_listing_for_user, access, _value(entry))
        rows = self._data.orphan_rows(listing, connections, utcnow())
        age = _age_of(entry)
        problem = " ".join(filter(None, [*listing.problems, unknown_starts(listing), age["problem"]])) or None
        return _json(items=await self._data.ask(_orphans_for_user, access, rows), **age | {"problem": problem})

    async def charts(self, access: Access, period: str = "24h") -> Response:
        """Return the data of the charts."""
        await self._require_reading(access)
        if period not in PERIODS:
            raise HTTPException(400, f"period: got {period!r}, allowed is {', '.join(PERIODS)}.")
        entry = await self._data.charts(period)
        return _json(period=period, **_value(entry), **_age_of(entry))

    # --- Cancelling ---

    async def cancel_job(self, access: Access, conn_id: str, job_id: str) -> Response:
        """Cancel a job."""
        return await self._cancel(access, conn_id, "job", routes.get_job, job_id)

    async def cancel_backfill(self, access: Access, conn_id: str, backfill_id: str) -> Response:
        """Cancel the jobs of a backfill."""
        return await self._cancel(access, conn_id, "backfill", routes.get_backfill, backfill_id)

    async def _cancel(
        self, access: PageAccess, conn_id: str, kind: Kind, get: Callable[[str], Any], work_id: str
    ) -> Response:
        connection = await self._usable_connection(access, conn_id)
        reader = self._data.reader(connection)
        with _bad_requests():
            request = get(work_id)
        with _api_errors():
            # Users without the permission send no request that overtakes those of tasks.
            known = await self._data.known_task(connection, kind, request, work_id)
            await self._require_cancelling(access, conn_id, known)
            work: Work = await reader.send_first(request)
            # The browser is not asked which task this is: it would decide who may cancel.
            task = await self._data.task_of(reader, work)
            await self._require_cancelling(access, conn_id, task)
            if work.is_over:
                return JSONResponse({"status": work.status, "message": f"It is over already: it is {work.status}."})
            await self._data.query(log_cancel, access.user_name, conn_id, work, task)
            try:
                result = await self._canceller.cancel(conn_id, reader, work)
            finally:
                self._data.expire(conn_id)
        return JSONResponse(dict(result))

    # --- Permissions ---

    async def _require_reading(self, access: PageAccess) -> None:
        if not await self._data.ask(access.can_read_connections):
            raise HTTPException(403, "Forbidden")

    async def _require_cancelling(self, access: PageAccess, conn_id: str, task: TaskRow | None) -> None:
        if not await self._data.ask(_can_cancel, access, conn_id, task):
            raise HTTPException(403, _forbidden_message(conn_id, task))

    async def _readable_connections(self, access: PageAccess) -> dict[str, MonitoredConnection]:
        """Return the connections that the user may read.

        :raises HTTPException: 403 if the user may read none; 503 if Airflow's database does not answer.
        """
        await self._require_reading(access)
        try:
            found = await self._data.connections()
        except Exception as error:
            raise HTTPException(
                503,
                f"The Airflow connections cannot be read ({type(error).__name__}). If it stays, look at the health of "
                "Airflow's database and secrets backend.",
            ) from None
        readable = await self._data.ask(access.readable_connections, found)
        return {conn_id: one for conn_id, one in found.items() if conn_id in readable}

    async def _connection(self, access: PageAccess, conn_id: str | None) -> MonitoredConnection:
        """Return a connection that the user may read; by default the first one."""
        readable = await self._readable_connections(access)
        if conn_id is None and readable:
            return next(iter(readable.values()))
        if conn_id and conn_id not in readable:
            await self._data.find_named(conn_id)
            readable = await self._readable_connections(access)
        if conn_id not in readable:
            raise HTTPException(404, f"There is no Airflow connection {conn_id!r} of the type Planasonix.")
        return readable[conn_id]

    async def _usable_connection(self, access: PageAccess, conn_id: str) -> MonitoredConnection:
        """Return a connection that the user may read and that has settings."""
        connection = await self._connection(access, conn_id)
        if connection.error:
            raise HTTPException(503, connection.error.message)
        return connection


def _can_cancel(access: PageAccess, conn_id: str, task: TaskRow | None) -> bool:
    """Return whether a user may clear the task of the work or, if no task owns it, edit the connection."""
    return access.can_clear_tasks(task["dag_id"]) if task else access.can_edit_connection(conn_id)


def _forbidden_message(conn_id: str, task: TaskRow | None) -> str:
    need = "clear the tasks of the DAG that has started it" if task else f"edit the Airflow connection {conn_id!r}"
    return f"You may not cancel this: you need the permission to {need}."


def _rows_for_user(access: PageAccess, conn_id: str, rows: list[WorkRow]) -> list[WorkRow]:
    """Return rows with only those tasks that the user may read, and with what the user may cancel."""
    owners = {row["task"]["dag_id"]: row["task"] for row in rows if row["task"]}
    readable = access.readable_dags(owners)
    active = {row["task"]["dag_id"] if row["task"] else None for row in rows if not row["is_over"]}
    cancellable = {owner for owner in active if _can_cancel(access, conn_id, owners[owner] if owner else None)}
    result = []
    for row in rows:
        owner = row["task"]["dag_id"] if row["task"] else None
        shown = row.copy()
        shown["task"] = row["task"] if owner in readable else None
        shown["can_cancel"] = not row["is_over"] and owner in cancellable
        result.append(shown)
    return result


def _listing_for_user(access: PageAccess, listing: OrphanListing) -> OrphanListing:
    """Return the orphans of the DAGs and connections that the user may read, and the problems of these connections."""
    dags = access.readable_dags({orphan.dag_id for orphan in listing.orphans})
    conn_ids = {orphan.conn_id for orphan in listing.orphans}
    conn_ids |= {problem.conn_id for problem in listing.all_problems if problem.conn_id}
    readable = {None, *access.readable_connections(conn_ids)}
    return OrphanListing(
        [orphan for orphan in listing.orphans if orphan.dag_id in dags and orphan.conn_id in readable],
        [problem for problem in listing.all_problems if problem.conn_id in readable],
    )


def _orphans_for_user(access: PageAccess, rows: list[OrphanRow]) -> list[OrphanRow]:
    """Return orphans with what the user may cancel."""
    dag_ids = {row["task"]["dag_id"] for row in rows}
    cancellable = {dag_id for dag_id in dag_ids if access.can_clear_tasks(dag_id)}
    result = []
    for row in rows:
        work = row["work"].copy()
        work["can_cancel"] = row["task"]["dag_id"] in cancellable
        result.append(row | {"work": work})
    return result


def _details(entry: PageCacheEntry[WorkDetails[T]]) -> WorkDetails[T]:
    """Return the details of work, or raise the HTTP error: there is nothing else to show."""
    with _api_errors():
        # Old data of deleted work is of no use.
        if isinstance(entry.error, PlanasonixNotFoundError):
            raise entry.error.with_traceback(None)
        return _value(entry)


def _age_of(entry: PageCacheEntry[Any]) -> dict[str, str | None]:
    """Return when data was read, and why it is not newer."""
    return {"read_at": json_time(entry.read_at), "problem": problem_of(entry)}


def _value(entry: PageCacheEntry[T]) -> T:
    if entry.value is not None:
        return entry.value
    with _api_errors():
        if error := error_of(entry):
            raise error.with_traceback(None)
    raise HTTPException(503, "There is no answer yet. Try again in some seconds.")


@contextmanager
def _api_errors() -> Iterator[None]:
    try:
        yield
    except PlanasonixError as error:
        raise HTTPException(_STATUSES.get(type(error), 503), error.message) from None


@contextmanager
def _bad_requests() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


def _json(**content: Any) -> JSONResponse:
    return JSONResponse({"generated_at": json_time(utcnow()), **content}, headers={"Cache-Control": "no-store"})
