"""The routes of the page in Airflow's UI: its files, and its data as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from planasonix_provider import validators
from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.connections import MonitoredConnection
from planasonix_provider.monitoring.work import Kind, WorkQuery, WorkRow, json_time
from planasonix_provider.plugins.page_access import PageAccess
from planasonix_provider.plugins.page_data import PageData, problem_of

T = TypeVar("T")

_STATIC = Path(__file__).parent / "static"


def add_routes(app: FastAPI) -> None:
    """Add the routes to the plugin's app."""
    app.mount("/static", _StaticFiles(directory=_STATIC))
    routes = _PageRoutes()
    app.add_api_route("/ui/overview", routes.overview)
    app.add_api_route("/ui/jobs", routes.jobs)
    app.add_api_route("/ui/backfills", routes.backfills)


class _StaticFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file that browsers check for changes, so that files of two versions are never mixed."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _access(user: GetUserDep) -> PageAccess:
    """Return the permissions of the user."""
    return PageAccess(user)


Access = Annotated[PageAccess, Depends(_access)]


class _PageRoutes:
    def __init__(self) -> None:
        self._data = PageData()

    async def overview(self, access: Access) -> Response:
        """Return the connections and the receivers that the user may read."""
        connections = await self._readable_connections(access)
        rows = await self._data.connection_rows(list(connections.values()))
        return _json(connections=rows, receivers=[])

    async def jobs(
        self,
        access: Access,
        conn_id: str | None = None,
        state: str = "active",
        since: str | None = None,
        connection_id: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
    ) -> Response:
        """Return a page of jobs."""
        return await self._work("job", access, conn_id, state, since, connection_id, cursor, limit)

    async def backfills(
        self,
        access: Access,
        conn_id: str | None = None,
        state: str = "active",
        since: str | None = None,
        connection_id: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
    ) -> Response:
        """Return a page of backfills."""
        return await self._work("backfill", access, conn_id, state, since, connection_id, cursor, limit)

    async def _work(
        self,
        kind: Kind,
        access: PageAccess,
        conn_id: str | None,
        state: str,
        since: str | None,
        connection_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> Response:
        connection = await self._connection(access, conn_id)
        try:
            # In whole minutes, so that all browsers ask for the same.
            moment = validators.utc_or_age("since", since, utcnow().replace(second=0, microsecond=0)) if since else None
            query = WorkQuery(kind, state, moment, connection_id or None, limit)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        if connection.settings is None:
            problem = connection.error.message if connection.error else None
            return _json(conn_id=connection.conn_id, items=[], next_cursor=None, problem=problem)
        entry = await self._data.work(connection, query, cursor)
        if isinstance(entry.error, ValueError):
            raise HTTPException(400, str(entry.error))
        return _json(
            conn_id=connection.conn_id,
            items=await self._for_user(access, connection.conn_id, entry.value.rows if entry.value else []),
            next_cursor=entry.value.next_cursor if entry.value else None,
            problem=problem_of(entry),
        )

    async def _readable_connections(self, access: PageAccess) -> dict[str, MonitoredConnection]:
        """Return the connections that the user may read.

        :raises HTTPException: 403 if the user may read none; 503 if Airflow's database does not answer.
        """
        if not await self._data.in_thread(access.can_read_connections):
            raise HTTPException(403, "Forbidden")
        try:
            found = await self._data.connections()
        except Exception as error:
            raise HTTPException(
                503,
                f"The Airflow connections cannot be read ({type(error).__name__}). If it stays, look at the health of "
                "Airflow's database and secrets backend.",
            ) from None
        readable = await self._data.in_thread(access.readable_connections, found)
        return {conn_id: one for conn_id, one in found.items() if conn_id in readable}

    async def _connection(self, access: PageAccess, conn_id: str | None) -> MonitoredConnection:
        """Return a connection that the user may read; by default the first one."""
        readable = await self._readable_connections(access)
        if conn_id is None and readable:
            return next(iter(readable.values()))
        if conn_id not in readable:
            raise HTTPException(404, f"There is no Airflow connection {conn_id!r} of the type Planasonix.")
        return readable[conn_id]

    async def _for_user(self, access: PageAccess, conn_id: str, rows: list[WorkRow]) -> list[WorkRow]:
        return await self._data.in_thread(_rows_for_user, access, conn_id, rows)


def _rows_for_user(access: PageAccess, conn_id: str, rows: list[WorkRow]) -> list[WorkRow]:
    """Return rows with only those tasks that the user may read, and with what the user may cancel."""
    readable = access.readable_dags({row["task"]["dag_id"] for row in rows if row["task"]})
    owners = {row["task"]["dag_id"] if row["task"] else None for row in rows if not row["is_over"]}
    cancellable = {
        owner
        for owner in owners
        if (access.can_edit_connection(conn_id) if owner is None else access.can_clear_tasks(owner))
    }
    result = []
    for row in rows:
        task = row["task"]
        owner = task["dag_id"] if task else None
        shown = task if owner in readable else None
        result.append(WorkRow(**{**row, "task": shown, "can_cancel": not row["is_over"] and owner in cancellable}))
    return result


def _json(**content: Any) -> JSONResponse:
    return JSONResponse({"generated_at": json_time(utcnow()), **content}, headers={"Cache-Control": "no-store"})
