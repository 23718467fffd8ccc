"""The pages of a job, a backfill and a webhook. Airflow's links lead to those of jobs and backfills."""

from __future__ import annotations

from fastapi import Request, Response

from planasonix_provider.api.states import BACKFILL_OVER, JOB_OVER
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import AppPipeline, AppWorkspace
from planasonix_provider.simulator.control.control_commands import FailJobCommand, SlowJobCommand
from planasonix_provider.simulator.model.paging import PageQuery
from planasonix_provider.simulator.web.filters import next_page_query, read_filter
from planasonix_provider.simulator.web.forms import Form, FormValues, submit_form
from planasonix_provider.simulator.web.render import page, page_router, path_segment, redirect
from planasonix_provider.simulator.web.views import JobRow, JobView, TaskReference, format_metadata
from planasonix_provider.simulator.workspace import Workspace

#: How many jobs of a backfill a page lists.
JOBS_PER_PAGE = 50

router = page_router()


@router.get("/jobs/{job_id}")
async def show_job(job_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    return _job_page(request, workspace, job_id, Form("fail"))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: PathId, workspace: AppWorkspace) -> Response:
    workspace.cancel(job_id)
    return redirect(f"/jobs/{path_segment(job_id)}")


@router.post("/jobs/{job_id}/fail")
async def fail_job(job_id: PathId, request: Request, pipeline: AppPipeline) -> Response:
    return await _change_job(job_id, request, pipeline, "fail", FailJobCommand)


@router.post("/jobs/{job_id}/slow")
async def slow_job(job_id: PathId, request: Request, pipeline: AppPipeline) -> Response:
    return await _change_job(job_id, request, pipeline, "slow", SlowJobCommand)


@router.get("/backfills/{backfill_id}")
async def show_backfill(backfill_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    """Show a backfill and a page of its jobs, newest first."""
    backfill = workspace.backfill(backfill_id)
    ids = backfill.job_ids or []
    before = request.query_params.get("before", "")
    last = min(int(before), len(ids)) if before.isdecimal() else len(ids)
    first = max(0, last - JOBS_PER_PAGE)
    return page(
        "backfill",
        backfill=backfill,
        has_ended=backfill.status in BACKFILL_OVER,
        jobs=[JobRow.of(workspace.job_snapshot(job_id)) for job_id in reversed(ids[first:last])],
        first=first,
        last=last,
        job_count=len(ids),
        task=TaskReference.of(backfill.metadata, request.app.state.airflow_url),
        metadata=format_metadata(backfill.metadata),
    )


@router.post("/backfills/{backfill_id}/cancel")
async def cancel_backfill(backfill_id: PathId, workspace: AppWorkspace) -> Response:
    """Cancel all jobs of a backfill, which is how the API cancels a backfill."""
    for job_id in workspace.backfill(backfill_id).job_ids or []:
        if workspace.job(job_id).status not in JOB_OVER:
            workspace.cancel(job_id)
    return redirect(f"/backfills/{path_segment(backfill_id)}")


@router.get("/webhooks/{webhook_id}")
async def show_webhook(webhook_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    """Show a subscription without its signing secret, and its deliveries, newest first."""
    filters = read_filter(PageQuery, request.query_params)
    deliveries, end = workspace.webhooks.delivery_page(webhook_id, limit=filters.limit, before=filters.before)
    webhook = workspace.webhooks.get(webhook_id)
    return page("webhook", webhook=webhook, deliveries=deliveries, filters=filters, older=next_page_query(filters, end))


@router.post("/webhooks/{webhook_id}/test")
async def test_webhook(webhook_id: PathId, workspace: AppWorkspace) -> Response:
    workspace.webhooks.test(webhook_id)
    return redirect(f"/webhooks/{path_segment(webhook_id)}")


async def _change_job(
    job_id: str,
    request: Request,
    pipeline: AppPipeline,
    form_name: str,
    command: type[FailJobCommand] | type[SlowJobCommand],
) -> Response:
    def change(values: FormValues) -> str:
        command.model_validate(values).execute(pipeline, job_id)
        return f"/jobs/{path_segment(job_id)}"

    def show(form: Form, status: int) -> Response:
        return _job_page(request, pipeline.workspace, job_id, form, status)

    return await submit_form(request, form_name, change, show)


def _job_page(request: Request, workspace: Workspace, job_id: str, form: Form, status: int = 200) -> Response:
    view = JobView.of(workspace.job_snapshot(job_id))
    metadata = view.job.metadata
    task = TaskReference.of(metadata, request.app.state.airflow_url)
    return page("job", status, view=view, job=view.job, form=form, task=task, metadata=format_metadata(metadata))
