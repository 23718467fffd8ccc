"""The overview, and the lists of jobs, backfills and requests."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.simulator.airflow_connection import export_line
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.web.filters import BackfillFilter, JobFilter, next_page_query, read_filter
from planasonix_provider.simulator.web.render import page
from planasonix_provider.simulator.web.views import JobRow

#: How many jobs and backfills the overview lists.
OVERVIEW_ROWS = 10
#: How many requests the page "Requests" lists.
REQUEST_ROWS = 100

# The states of jobs and backfills in lifecycle order.
_STATES = ("queued", "running", "cancelling", "succeeded", "completed", "failed", "cancelled")


class ListPages:
    """Adds the overview and the lists to a router."""

    def __init__(self, pipeline: RequestPipeline, router: APIRouter) -> None:
        self._pipeline = pipeline
        self._workspace = pipeline.workspace
        router.add_api_route("/", self.overview, methods=["GET"])
        router.add_api_route("/jobs", self.jobs, methods=["GET"])
        router.add_api_route("/backfills", self.backfills, methods=["GET"])
        router.add_api_route("/requests", self.requests, methods=["GET"])

    async def overview(self, request: Request) -> Response:
        """Show the number of jobs, the newest work, and how to connect Airflow."""
        counts = self._workspace.job_counts()
        jobs, _ = self._workspace.job_snapshots(lambda job, now: True, limit=OVERVIEW_ROWS)
        backfills, _ = self._workspace.backfill_page(lambda backfill, now: True, limit=OVERVIEW_ROWS)
        return page(
            "overview",
            counts={status: counts.get(status, 0) for status in _STATES if status in JOB_STATES},
            jobs=[JobRow.of(job) for job in jobs],
            backfills=backfills,
            # No page contains the key. It is printed when the simulator starts.
            connect=export_line(f"http://{request.headers.get('host', '127.0.0.1')}", "THE-API-KEY"),
        )

    async def jobs(self, request: Request) -> Response:
        """List jobs, newest first."""
        filters = read_filter(JobFilter, request.query_params)
        jobs, end = self._workspace.job_snapshots(
            filters.matches, limit=filters.limit, before=filters.before, status=filters.status
        )
        return page(
            "jobs",
            filters=filters,
            jobs=[JobRow.of(job) for job in jobs],
            older=next_page_query(filters, end),
            connections=self._workspace.connections,
            states=[status for status in _STATES if status in JOB_STATES],
            types=("connection_sync", "backfill"),
        )

    async def backfills(self, request: Request) -> Response:
        """List backfills, newest first."""
        filters = read_filter(BackfillFilter, request.query_params)
        backfills, end = self._workspace.backfill_page(filters.matches, limit=filters.limit, before=filters.before)
        return page(
            "backfills",
            filters=filters,
            backfills=backfills,
            older=next_page_query(filters, end),
            connections=self._workspace.connections,
            states=[status for status in _STATES if status in BACKFILL_STATES],
        )

    async def requests(self) -> Response:
        """List the newest requests of the API and the rate limit of each key. Keys are shown by their names."""
        log = self._pipeline.log
        return page(
            "requests",
            requests=log.newest(REQUEST_ROWS),
            count=sum(log.counts().values()),
            rate_limits=[
                (key.name, self._pipeline.rate_limit.status(key.value)) for key in self._workspace.keys.valid()
            ],
        )
