"""The page "Start": starts syncs and backfills, and creates connections."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from planasonix_provider.simulator.api.pipeline import AppPipeline, RequestPipeline
from planasonix_provider.simulator.control.control_commands import AddConnectionCommand
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody
from planasonix_provider.simulator.web.forms import Form, FormValues, on_submit, split_list
from planasonix_provider.simulator.web.render import page, page_router, path_segment

router = page_router()


@router.get("/start")
async def show_start_page(request: Request, pipeline: AppPipeline) -> Response:
    return _page(pipeline, Form("sync", {"connection_id": request.query_params.get("connection_id", "")}))


def _page(pipeline: RequestPipeline, form: Form, status: int = 200) -> Response:
    return page("start", status, form=form, connections=pipeline.workspace.connections)


@on_submit(router, "/start/sync", _page)
def _start_sync(pipeline: RequestPipeline, values: FormValues) -> str:
    connection_id, body = _split_connection(values)
    job = pipeline.workspace.start_sync(connection_id, SyncRequestBody.model_validate(body))
    return f"/jobs/{path_segment(job.id)}"


@on_submit(router, "/start/backfill", _page)
def _start_backfill(pipeline: RequestPipeline, values: FormValues) -> str:
    connection_id, body = _split_connection(values)
    if "tables" in body:
        body["tables"] = split_list(body["tables"])
    backfill = pipeline.workspace.start_backfill(connection_id, BackfillRequestBody.model_validate(body))
    return f"/backfills/{path_segment(backfill.id)}"


@on_submit(router, "/start/connection", _page)
def _add_connection(pipeline: RequestPipeline, values: FormValues) -> str:
    AddConnectionCommand.model_validate(values).execute(pipeline)
    return f"/start?connection_id={path_segment(values['connection_id'])}"


def _split_connection(values: FormValues) -> tuple[str, dict[str, Any]]:
    """Return the connection, which the API has in the path, and the body."""
    body = dict(values)
    return body.pop("connection_id", ""), body
