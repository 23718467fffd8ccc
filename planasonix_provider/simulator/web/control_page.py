"""The page "Control": plans for the next starts, faults and settings."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.api.faults import Fault
from planasonix_provider.simulator.api.pipeline import AppPipeline, RequestPipeline
from planasonix_provider.simulator.control.control_commands import (
    ConfigureCommand,
    PlanBackfillCommand,
    PlanCommand,
    settings_of,
)
from planasonix_provider.simulator.web.forms import Form, FormValues, on_submit, parse_json_object, split_list
from planasonix_provider.simulator.web.render import page, page_router

#: The messages of submitted forms, by the query parameter ``done``.
CONFIRMATIONS = {
    "planned": "The next starts of this connection follow the plan.",
    "added": "The fault was added.",
    "cleared": "All faults were cleared.",
    "saved": "The settings were saved.",
}

router = page_router()


@router.get("/control")
async def show_control_page(request: Request, pipeline: AppPipeline) -> Response:
    query = request.query_params
    form = Form("plan", {"connection_id": query.get("connection_id", "")})
    return _page(pipeline, form, done=CONFIRMATIONS.get(query.get("done", "")))


def _page(pipeline: RequestPipeline, form: Form, status: int = 200, done: str | None = None) -> Response:
    return page(
        "control",
        status,
        form=form,
        done=done,
        connections=pipeline.workspace.connections,
        default_plan=pipeline.workspace.default_plan,
        faults=pipeline.faults.pending(),
        routes=("*", *SCOPE_BY_ROUTE),
        settings=settings_of(pipeline),
    )


@on_submit(router, "/control/plan", _page)
def _plan_syncs(pipeline: RequestPipeline, values: FormValues) -> str:
    PlanCommand.model_validate(_with_times(values)).execute(pipeline)
    return "/control?done=planned"


@on_submit(router, "/control/backfill_plan", _page)
def _plan_backfills(pipeline: RequestPipeline, values: FormValues) -> str:
    fields = _with_times(values)
    if "failing_jobs" in fields:
        fields["failing_jobs"] = split_list(fields["failing_jobs"])
    PlanBackfillCommand.model_validate(fields).execute(pipeline)
    return "/control?done=planned"


@on_submit(router, "/control/fault", _page)
def _add_fault(pipeline: RequestPipeline, values: FormValues) -> str:
    fields = _with_times(values)
    if "fields" in fields:
        fields["fields"] = parse_json_object("fields", fields["fields"])
    pipeline.faults.add(Fault.model_validate(fields))
    return "/control?done=added"


@on_submit(router, "/control/clear", _page)
def _clear_faults(pipeline: RequestPipeline, _: FormValues) -> str:
    pipeline.faults.clear()
    return "/control?done=cleared"


@on_submit(router, "/control/settings", _page)
def _configure(pipeline: RequestPipeline, values: FormValues) -> str:
    ConfigureCommand.model_validate(values).execute(pipeline)
    return "/control?done=saved"


def _with_times(values: FormValues) -> dict[str, Any]:
    """Replace a checked box "always" by ``times=None``."""
    fields: dict[str, Any] = dict(values)
    if fields.pop("always", None):
        fields["times"] = None
    return fields
