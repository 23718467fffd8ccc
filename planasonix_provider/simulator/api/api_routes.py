"""The API's routes for jobs and backfills, in the order of the API reference."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

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
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import PipelineRoute
from planasonix_provider.simulator.api.responses import json_response, read_body
from planasonix_provider.simulator.api.webhook_routes import WebhookRoutes
from planasonix_provider.simulator.model.paging import BackfillQuery, JobQuery
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody
from planasonix_provider.simulator.workspace import Workspace

_DOCUMENT = files("planasonix_provider.simulator") / "openapi.yaml"

# The fields of each response in the API reference. None has metadata; the details contain it if the settings say so.
_JOB = {"id", "type", "status", "connection_id", "pipeline_id", "created_at"}
_JOB_STARTED = {*_JOB, "queued_at"}
_JOB_CANCELLED = {"id", "status", "cancel_requested_at"}
_JOB_DETAILS = {*_JOB_STARTED, *_JOB_CANCELLED, "started_at", "finished_at", "duration_seconds", "metrics", "error"}
_BACKFILL = {"id", "connection_id", "status", "start_at", "end_at", "progress_percent", "created_at"}
_BACKFILL_STARTED = {*_BACKFILL, "tables"}
_BACKFILL_LISTED = {*_BACKFILL, "updated_at"}
_BACKFILL_DETAILS = {*_BACKFILL_STARTED, *_BACKFILL_LISTED, "rows_processed", "error", "job_ids"}


class ApiRoutes:
    """The routes below ``/api/v1``."""

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
        envelope = BackfillStartEnvelope(data=BackfillStarted(backfill=backfill))
        return json_response(envelope, 202, include={"data": {"backfill": _BACKFILL_STARTED}})

    async def list_backfills(self, query: Annotated[BackfillQuery, Query()]) -> Response:
        """List backfills, newest first."""
        backfills, end = self._workspace.backfill_page(query.matches, limit=query.limit, before=query.before)
        page = PageInfo(limit=query.limit, cursor=query.cursor_after(end))
        envelope = BackfillPage(data=list(backfills), meta=PageMeta(page=page))
        return json_response(envelope, include={"data": {"__all__": _BACKFILL_LISTED}, "meta": True})

    async def get_backfill(self, backfill_id: PathId) -> Response:
        """Return a backfill."""
        envelope = BackfillEnvelope(data=self._workspace.backfill(backfill_id))
        return json_response(envelope, include={"data": self._with_metadata(_BACKFILL_DETAILS)})

    async def list_jobs(self, query: Annotated[JobQuery, Query()]) -> Response:
        """List jobs, newest first."""
        jobs, end = self._workspace.job_page(query.matches, limit=query.limit, before=query.before, status=query.status)
        page = PageInfo(limit=query.limit, cursor=query.cursor_after(end))
        return json_response(JobPage(data=list(jobs), meta=PageMeta(page=page)))

    async def get_job(self, job_id: PathId) -> Response:
        """Return a job."""
        envelope = JobEnvelope(data=self._workspace.job(job_id))
        return json_response(envelope, include={"data": self._with_metadata(_JOB_DETAILS)})

    async def get_job_results(self, job_id: PathId) -> Response:
        """Return the results of a job."""
        return json_response(JobResultsEnvelope(data=self._workspace.results(job_id)))

    async def cancel_job(self, job_id: PathId) -> Response:
        """Cancel a job."""
        return json_response(JobEnvelope(data=self._workspace.cancel(job_id)), include={"data": _JOB_CANCELLED})

    async def get_openapi(self) -> Response:
        """Return the OpenAPI document."""
        return Response(_DOCUMENT.read_bytes(), media_type="application/yaml")

    def _with_metadata(self, fields: set[str]) -> set[str]:
        return {*fields, "metadata"} if self._workspace.settings.show_metadata else fields
