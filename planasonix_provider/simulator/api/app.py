"""The API itself, as a FastAPI app: one method per route, in the order of the reference."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from planasonix_provider.api.models import (
    BackfillEnvelope,
    BackfillPage,
    BackfillStarted,
    BackfillStartEnvelope,
    JobEnvelope,
    JobPage,
    JobResultsEnvelope,
    PageInfo,
    PageMeta,
    SyncEnvelope,
    SyncStarted,
)
from planasonix_provider.api.request import PREFIX
from planasonix_provider.simulator.api.faults import Faults
from planasonix_provider.simulator.api.middleware import HeaderMiddleware, PathId
from planasonix_provider.simulator.api.pipeline import PipelineRoute, RequestPipeline
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from planasonix_provider.simulator.api.responses import api_error_response, json_response, read_body
from planasonix_provider.simulator.api.webhook_routes import WebhookRoutes
from planasonix_provider.simulator.control.control_routes import ControlRoutes
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.paging import BackfillQuery, JobQuery
from planasonix_provider.simulator.model.request_bodies import SyncRequestBody
from planasonix_provider.simulator.model.simulated_backfills import BackfillRequestBody
from planasonix_provider.simulator.model.workspace import Workspace
from planasonix_provider.simulator.web.router import web_router

_DOCUMENT = files("planasonix_provider.simulator") / "openapi.yaml"

# The fields of each response in the reference. It has no metadata in any; the details show it unless the settings
# hide it.
_JOB = {"id", "type", "status", "connection_id", "pipeline_id", "created_at"}
_JOB_STARTED = {*_JOB, "queued_at"}
_JOB_CANCELLED = {"id", "status", "cancel_requested_at"}
_JOB_SHOWN = {*_JOB_STARTED, *_JOB_CANCELLED, "started_at", "finished_at", "duration_seconds", "metrics", "error"}
_BACKFILL = {"id", "connection_id", "status", "start_at", "end_at", "progress_percent", "created_at"}
_BACKFILL_STARTED = {*_BACKFILL, "tables"}
_BACKFILL_LISTED = {*_BACKFILL, "updated_at"}
_BACKFILL_SHOWN = {*_BACKFILL_STARTED, *_BACKFILL_LISTED, "rows_processed", "error", "job_ids"}


class ApiRoutes:
    """The routes below ``/api/v1``.

    :param world: what they show and change.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.router = router = APIRouter(prefix=PREFIX, route_class=PipelineRoute, redirect_slashes=False)
        router.add_api_route("/connections/{connection_id}/sync", self.trigger_sync, methods=["POST"])
        router.add_api_route("/connections/{connection_id}/backfill", self.trigger_backfill, methods=["POST"])
        router.add_api_route("/backfills", self.list_backfills, methods=["GET"])
        router.add_api_route("/backfills/{backfill_id}", self.get_backfill, methods=["GET"])
        router.add_api_route("/jobs", self.list_jobs, methods=["GET"])
        router.add_api_route("/jobs/{job_id}", self.get_job, methods=["GET"])
        router.add_api_route("/jobs/{job_id}/results", self.get_job_results, methods=["GET"])
        router.add_api_route("/jobs/{job_id}/cancel", self.cancel_job, methods=["POST"])
        WebhookRoutes(workspace.webhooks, router)
        router.add_api_route("/openapi.yaml", self.get_openapi, methods=["GET"])

    async def trigger_sync(self, connection_id: PathId, request: Request) -> Response:
        """Start a sync."""
        body = await read_body(request, SyncRequestBody)
        key = request.headers.get("idempotency-key")
        job = self._workspace.start_sync(connection_id, body, idempotency_key=key)
        return json_response(SyncEnvelope(data=SyncStarted(job=job)), 202, include={"data": {"job": _JOB_STARTED}})

    async def trigger_backfill(self, connection_id: PathId, request: Request) -> Response:
        """Start a backfill."""
        body = await read_body(request, BackfillRequestBody)
        key = request.headers.get("idempotency-key")
        backfill = self._workspace.start_backfill(connection_id, body, idempotency_key=key)
        reply = BackfillStartEnvelope(data=BackfillStarted(backfill=backfill))
        return json_response(reply, 202, include={"data": {"backfill": _BACKFILL_STARTED}})

    async def list_backfills(self, query: Annotated[BackfillQuery, Query()]) -> Response:
        """List backfills, newest first."""
        backfills, end = self._workspace.backfill_page(query.matches, limit=query.limit, before=query.before)
        page = PageInfo(limit=query.limit, cursor=query.cursor_after(end))
        reply = BackfillPage(data=list(backfills), meta=PageMeta(page=page))
        return json_response(reply, include={"data": {"__all__": _BACKFILL_LISTED}, "meta": True})

    async def get_backfill(self, backfill_id: PathId) -> Response:
        """Look at a backfill."""
        return json_response(
            BackfillEnvelope(data=self._workspace.backfill(backfill_id)), include={"data": self._shown(_BACKFILL_SHOWN)}
        )

    def _shown(self, fields: set[str]) -> set[str]:
        return {*fields, "metadata"} if self._workspace.settings.show_metadata else fields

    async def list_jobs(self, query: Annotated[JobQuery, Query()]) -> Response:
        """List jobs, newest first."""
        jobs, end = self._workspace.job_page(query.matches, limit=query.limit, before=query.before, status=query.status)
        page = PageInfo(limit=query.limit, cursor=query.cursor_after(end))
        return json_response(JobPage(data=list(jobs), meta=PageMeta(page=page)))

    async def get_job(self, job_id: PathId) -> Response:
        """Look at a job."""
        return json_response(JobEnvelope(data=self._workspace.job(job_id)), include={"data": self._shown(_JOB_SHOWN)})

    async def get_job_results(self, job_id: PathId) -> Response:
        """Look at what a job loaded."""
        return json_response(JobResultsEnvelope(data=self._workspace.results(job_id)))

    async def cancel_job(self, job_id: PathId) -> Response:
        """Request a job's end."""
        return json_response(JobEnvelope(data=self._workspace.cancel(job_id)), include={"data": _JOB_CANCELLED})

    async def get_openapi(self) -> Response:
        """Show what describes these routes."""
        return Response(_DOCUMENT.read_bytes(), media_type="application/yaml")


def create_app(
    workspace: Workspace,
    *,
    faults: Faults | None = None,
    rate_limit: PerKeyRateLimit | None = None,
    airflow_url: str | None = None,
    allowed_hosts: Collection[str] = (),
) -> FastAPI:
    """Put a world behind HTTP.

    :param world: the Planasonix to serve.
    :param faults: which requests fail; none by default.
    :param limits: how many requests a key has; by default 1,200 a minute.
    :param airflow_url: where the pages of Airflow 3 are, for links to the tasks that started things; none by default.
    :param allowed_hosts: the names that it answers to, besides ``localhost`` and IP addresses; none by default.
    :return: the app. Its ``state.pipeline`` holds the parts.
    :raises ValueError: if ``airflow_url`` is not the address of web pages.
    """
    app = FastAPI(title="Planasonix simulator", openapi_url=None, redirect_slashes=False)
    app.state.pipeline = gate = RequestPipeline(
        workspace, faults or Faults(), rate_limit or PerKeyRateLimit(workspace.clock)
    )
    routers = (ApiRoutes(workspace).router, ControlRoutes(gate).router, web_router(gate, airflow_url))
    for router in routers:
        app.include_router(router)
    # Not the app's own list: from some version on, FastAPI keeps whole routers there.
    app.state.routes = [route for router in routers for route in router.routes]
    app.add_middleware(HeaderMiddleware, workspace=workspace, allowed_hosts=allowed_hosts)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError | RequestValidationError)  # noqa: S101 - tells mypy what it was registered for
    return api_error_response(error)


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer where no route fits; below the API's prefix, even that takes a key and counts."""
    path = request.scope["path"]
    is_known = isinstance(error, HTTPException) and error.status_code == 405
    code = "method_not_allowed" if is_known else "not_found"
    message = f"{path} does not take {request.method}" if is_known else f"no route {path}"

    async def refuse(_: Request) -> Response:
        return api_error_response(ApiError(code, message))

    gate: RequestPipeline = request.app.state.pipeline
    response = await (gate.serve("unknown", request, refuse) if path.startswith(f"{PREFIX}/") else refuse(request))
    if is_known:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """Tell which methods a path takes: Starlette itself names those of the first route that fits only."""
    fitting = (route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted(method for route in fitting for method in route.methods)
