"""The pages of a job and of a backfill, to which Airflow's links lead."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from planasonix_provider.api.states import BACKFILL_OVER, JOB_OVER
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.control.control_commands import FailJobCommand, SlowJobCommand
from planasonix_provider.simulator.web.forms import Form, FormValues, submit_form
from planasonix_provider.simulator.web.render import page, path_segment, redirect
from planasonix_provider.simulator.web.views import JobRow, JobView, TaskReference, format_metadata

#: How many jobs of a backfill a page lists.
JOBS_PER_PAGE = 50


class DetailPages:
    """Adds the pages of a job and of a backfill, and their actions, to a router."""

    def __init__(self, pipeline: RequestPipeline, airflow_url: str | None, router: APIRouter) -> None:
        self._pipeline = pipeline
        self._workspace = pipeline.workspace
        self._airflow_url = airflow_url
        router.add_api_route("/jobs/{job_id}", self.job, methods=["GET"])
        router.add_api_route("/jobs/{job_id}/cancel", self.cancel_job, methods=["POST"])
        router.add_api_route("/jobs/{job_id}/fail", self.fail_job, methods=["POST"])
        router.add_api_route("/jobs/{job_id}/slow", self.slow_job, methods=["POST"])
        router.add_api_route("/backfills/{backfill_id}", self.backfill, methods=["GET"])
        router.add_api_route("/backfills/{backfill_id}/cancel", self.cancel_backfill, methods=["POST"])

    async def job(self, job_id: PathId) -> Response:
        """Show a job."""
        return self._job_page(job_id, Form("fail"))

    async def cancel_job(self, job_id: PathId) -> Response:
        """Cancel a job."""
        return redirect(f"/jobs/{path_segment(self._workspace.cancel(job_id).id)}")

    async def fail_job(self, job_id: PathId, request: Request) -> Response:
        """Make a job fail."""
        return await self._change_job(job_id, request, "fail", FailJobCommand)

    async def slow_job(self, job_id: PathId, request: Request) -> Response:
        """Make a job run longer."""
        return await self._change_job(job_id, request, "slow", SlowJobCommand)

    async def backfill(self, backfill_id: PathId, request: Request) -> Response:
        """Show a backfill and a page of its jobs, newest first."""
        backfill = self._workspace.backfill(backfill_id)
        ids = backfill.job_ids or []
        before = request.query_params.get("before", "")
        last = min(int(before), len(ids)) if before.isdecimal() else len(ids)
        first = max(0, last - JOBS_PER_PAGE)
        return page(
            "backfill",
            backfill=backfill,
            has_ended=backfill.status in BACKFILL_OVER,
            jobs=[JobRow.of(self._workspace.job_snapshot(job_id)) for job_id in reversed(ids[first:last])],
            first=first,
            last=last,
            job_count=len(ids),
            task=TaskReference.of(backfill.metadata, self._airflow_url),
            metadata=format_metadata(backfill.metadata),
        )

    async def cancel_backfill(self, backfill_id: PathId) -> Response:
        """Cancel all jobs of a backfill, which is how the API cancels a backfill."""
        for job_id in self._workspace.backfill(backfill_id).job_ids or []:
            job, now, _ = self._workspace.job_snapshot(job_id)
            if job.status_at(now) not in JOB_OVER:
                self._workspace.cancel(job_id)
        return redirect(f"/backfills/{path_segment(backfill_id)}")

    async def _change_job(
        self, job_id: str, request: Request, name: str, command: type[FailJobCommand] | type[SlowJobCommand]
    ) -> Response:
        def change(values: FormValues) -> str:
            return f"/jobs/{path_segment(command.model_validate(values).execute(self._pipeline, job_id).id)}"

        return await submit_form(request, name, change, lambda form, status: self._job_page(job_id, form, status))

    def _job_page(self, job_id: str, form: Form, status: int = 200) -> Response:
        view = JobView.of(self._workspace.job_snapshot(job_id))
        metadata = view.job.metadata
        task = TaskReference.of(metadata, self._airflow_url)
        return page("job", status, view=view, job=view.job, form=form, task=task, metadata=format_metadata(metadata))
