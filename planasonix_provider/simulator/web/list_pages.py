"""The overview, and the lists of jobs, backfills, webhooks and requests."""

from __future__ import annotations

from fastapi import Request, Response

from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.simulator.airflow_connection import export_line
from planasonix_provider.simulator.api.pipeline import AppPipeline, AppWorkspace
from planasonix_provider.simulator.model.paging import PageQuery
from planasonix_provider.simulator.web.filters import BackfillFilter, JobFilter, next_page_query, read_filter
from planasonix_provider.simulator.web.render import page, page_router
from planasonix_provider.simulator.web.views import JobRow

#: How many jobs and backfills the overview lists.
OVERVIEW_ROWS = 10
#: How many requests the page "Requests" lists.
REQUEST_ROWS = 100

# The states of jobs and backfills in lifecycle order.
_STATES = ("queued", "running", "cancelling", "succeeded", "completed", "failed", "cancelled")
_JOB_STATES = [status for status in _STATES if status in JOB_STATES]
_BACKFILL_STATES = [status for status in _STATES if status in BACKFILL_STATES]

router = page_router()


@router.get("/")
async def overview(request: Request, workspace: AppWorkspace) -> Response:
    """Show the number of jobs, the newest work, and how to connect Airflow."""
    counts = workspace.job_counts()
    jobs, _ = workspace.job_snapshots(lambda job, now: True, limit=OVERVIEW_ROWS)
    backfills, _ = workspace.backfill_page(lambda backfill, now: True, limit=OVERVIEW_ROWS)
    return page(
        "overview",
        counts={status: counts.get(status, 0) for status in _JOB_STATES},
        jobs=[JobRow.of(job) for job in jobs],
        backfills=backfills,
        # No page contains the key. It is printed when the simulator starts.
        connect=export_line(f"http://{request.headers.get('host', '127.0.0.1')}", "THE-API-KEY"),
    )


@router.get("/jobs")
async def list_jobs(request: Request, workspace: AppWorkspace) -> Response:
    filters = read_filter(JobFilter, request.query_params)
    jobs, end = workspace.job_snapshots(
        filters.matches, limit=filters.limit, before=filters.before, status=filters.status
    )
    return page(
        "jobs",
        filters=filters,
        jobs=[JobRow.of(job) for job in jobs],
        older=next_page_query(filters, end),
        connections=workspace.connections,
        states=_JOB_STATES,
        types=("connection_sync", "backfill"),
    )


@router.get("/backfills")
async def list_backfills(request: Request, workspace: AppWorkspace) -> Response:
    filters = read_filter(BackfillFilter, request.query_params)
    backfills, end = workspace.backfill_page(filters.matches, limit=filters.limit, before=filters.before)
    return page(
        "backfills",
        filters=filters,
        backfills=backfills,
        older=next_page_query(filters, end),
        connections=workspace.connections,
        states=_BACKFILL_STATES,
    )


@router.get("/webhooks")
async def list_webhooks(request: Request, workspace: AppWorkspace) -> Response:
    filters = read_filter(PageQuery, request.query_params)
    webhooks, end = workspace.webhooks.page(limit=filters.limit, before=filters.before)
    return page("webhooks", filters=filters, webhooks=webhooks, older=next_page_query(filters, end))


@router.get("/requests")
async def list_requests(pipeline: AppPipeline) -> Response:
    """List the newest requests of the API and the rate limit of each key. Keys are shown by their names."""
    return page(
        "requests",
        requests=pipeline.log.newest(REQUEST_ROWS),
        count=sum(pipeline.log.counts().values()),
        rate_limits=[(key.name, pipeline.rate_limit.status(key.value)) for key in pipeline.workspace.keys.valid()],
    )
