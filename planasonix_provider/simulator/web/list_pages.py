"""The pages that list things: an overview, the jobs and the backfills."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.simulator.airflow_connection import export_line
from planasonix_provider.simulator.model.workspace import Workspace
from planasonix_provider.simulator.web.filters import BackfillFilter, JobFilter, next_page_query, read_filter
from planasonix_provider.simulator.web.render import page
from planasonix_provider.simulator.web.views import JobRow

#: How many things of a kind the overview lists.
RECENT = 10

# In the order in which a job comes to them.
_STATES = ("queued", "running", "cancelling", "succeeded", "completed", "failed", "cancelled")


class ListPages:
    """The pages that list things.

    :param world: what they show.
    :param router: where they are put.
    """

    def __init__(self, world: Workspace, router: APIRouter) -> None:
        self._world = world
        router.add_api_route("/", self.overview, methods=["GET"])
        router.add_api_route("/jobs", self.jobs, methods=["GET"])
        router.add_api_route("/backfills", self.backfills, methods=["GET"])

    async def overview(self, request: Request) -> Response:
        """Count the jobs, show what is newest, and say how to connect Airflow."""
        counts = self._world.job_counts()
        jobs, _ = self._world.job_snapshots(lambda job, now: True, limit=RECENT)
        backfills, _ = self._world.backfill_page(lambda backfill, now: True, limit=RECENT)
        return page(
            "overview",
            counts={status: counts.get(status, 0) for status in _STATES if status in JOB_STATES},
            jobs=[JobRow.of(job) for job in jobs],
            backfills=backfills,
            # The key stands where the simulator was started, and on no page.
            connect=export_line(f"http://{request.headers.get('host', '127.0.0.1')}", "THE-API-KEY"),
        )

    async def jobs(self, request: Request) -> Response:
        """List jobs, newest first."""
        wanted = read_filter(JobFilter, request.query_params)
        jobs, end = self._world.job_snapshots(
            wanted.matches, limit=wanted.limit, before=wanted.before, status=wanted.status
        )
        return page(
            "jobs",
            wanted=wanted,
            jobs=[JobRow.of(job) for job in jobs],
            older=next_page_query(wanted, end),
            connections=self._world.connections,
            states=[status for status in _STATES if status in JOB_STATES],
            types=("connection_sync", "backfill"),
        )

    async def backfills(self, request: Request) -> Response:
        """List backfills, newest first."""
        wanted = read_filter(BackfillFilter, request.query_params)
        backfills, end = self._world.backfill_page(wanted.matches, limit=wanted.limit, before=wanted.before)
        return page(
            "backfills",
            wanted=wanted,
            backfills=backfills,
            older=next_page_query(wanted, end),
            connections=self._world.connections,
            states=[status for status in _STATES if status in BACKFILL_STATES],
        )
