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
    SyncEnvelope,
    SyncStarted,
)
from planasonix_provider.api.request import PREFIX
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import AppWorkspace, PipelineRoute
from planasonix_provider.simulator.api.responses import json_response, page_meta, read_body
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


router = APIRouter(prefix=PREFIX, route_class=PipelineRoute, redirect_slashes=False)


@router.post("/connections/{connection_id}/sync")
async def trigger_sync(connection_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    body = await read_body(request, SyncRequestBody)
    key = request.headers.get("idempotency-key")
    job = workspace.start_sync(connection_id, body, idempotency_key=key)
    return json_response(SyncEnvelope(data=SyncStarted(job=job)), 202, include={"data": {"job": _JOB_STARTED}})


@router.post("/connections/{connection_id}/backfill")
async def trigger_backfill(connection_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    body = await read_body(request, BackfillRequestBody)
    key = request.headers.get("idempotency-key")
    backfill = workspace.start_backfill(connection_id, body, idempotency_key=key)
    envelope = BackfillStartEnvelope(data=BackfillStarted(backfill=backfill))
    return json_response(envelope, 202, include={"data": {"backfill": _BACKFILL_STARTED}})


@router.get("/backfills")
async def list_backfills(query: Annotated[BackfillQuery, Query()], workspace: AppWorkspace) -> Response:
    backfills, end = workspace.backfill_page(query.matches, limit=query.limit, before=query.before)
    envelope = BackfillPage(data=list(backfills), meta=page_meta(query, end))
    return json_response(envelope, include={"data": {"__all__": _BACKFILL_LISTED}, "meta": True})


@router.get("/backfills/{backfill_id}")
async def get_backfill(backfill_id: PathId, workspace: AppWorkspace) -> Response:
    envelope = BackfillEnvelope(data=workspace.backfill(backfill_id))
    return json_response(envelope, include={"data": _with_metadata(workspace, _BACKFILL_DETAILS)})


@router.get("/jobs")
async def list_jobs(query: Annotated[JobQuery, Query()], workspace: AppWorkspace) -> Response:
    jobs, end = workspace.job_page(query.matches, limit=query.limit, before=query.before, status=query.status)
    return json_response(JobPage(data=list(jobs), meta=page_meta(query, end)))


@router.get("/jobs/{job_id}")
async def get_job(job_id: PathId, workspace: AppWorkspace) -> Response:
    envelope = JobEnvelope(data=workspace.job(job_id))
    return json_response(envelope, include={"data": _with_metadata(workspace, _JOB_DETAILS)})


@router.get("/jobs/{job_id}/results")
async def get_job_results(job_id: PathId, workspace: AppWorkspace) -> Response:
    return json_response(JobResultsEnvelope(data=workspace.results(job_id)))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: PathId, workspace: AppWorkspace) -> Response:
    return json_response(JobEnvelope(data=workspace.cancel(job_id)), include={"data": _JOB_CANCELLED})


@router.get("/openapi.yaml")
async def get_openapi() -> Response:
    return Response(_DOCUMENT.read_bytes(), media_type="application/yaml")


def _with_metadata(workspace: Workspace, fields: set[str]) -> set[str]:
    return {*fields, "metadata"} if workspace.settings.show_metadata else fields
