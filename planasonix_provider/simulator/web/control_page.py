"""The page "Control": plans for the next starts, faults and settings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.api.faults import Fault
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.control.control_commands import (
    ConfigureCommand,
    PlanBackfillCommand,
    PlanCommand,
    settings_of,
)
from planasonix_provider.simulator.web.forms import Form, FormValues, parse_json_object, split_list, submit_form
from planasonix_provider.simulator.web.render import page

#: The messages of submitted forms, by the query parameter ``done``.
CONFIRMATIONS = {
    "planned": "The next starts of this connection follow the plan.",
    "added": "The fault was added.",
    "cleared": "All faults were cleared.",
    "saved": "The settings were saved.",
}


class ControlPage:
    """Adds the page "Control" to a router."""

    def __init__(self, pipeline: RequestPipeline, router: APIRouter) -> None:
        self._pipeline = pipeline
        router.add_api_route("/control", self.show, methods=["GET"])
        router.add_api_route("/control/plan", self.plan, methods=["POST"])
        router.add_api_route("/control/backfill_plan", self.plan_backfill, methods=["POST"])
        router.add_api_route("/control/fault", self.add_fault, methods=["POST"])
        router.add_api_route("/control/clear", self.clear_faults, methods=["POST"])
        router.add_api_route("/control/settings", self.configure, methods=["POST"])

    async def show(self, request: Request) -> Response:
        """Show the forms."""
        query = request.query_params
        form = Form("plan", {"connection_id": query.get("connection_id", "")})
        return self._page(form, done=CONFIRMATIONS.get(query.get("done", "")))

    async def plan(self, request: Request) -> Response:
        """Plan the next syncs of a connection."""

        def plan(values: FormValues) -> str:
            PlanCommand.model_validate(_with_times(values)).execute(self._pipeline)
            return "/control?done=planned"

        return await submit_form(request, "plan", plan, self._page)

    async def plan_backfill(self, request: Request) -> Response:
        """Plan the next backfills of a connection."""

        def plan(values: FormValues) -> str:
            fields = _with_times(values)
            if "failing_jobs" in fields:
                fields["failing_jobs"] = split_list(fields["failing_jobs"])
            PlanBackfillCommand.model_validate(fields).execute(self._pipeline)
            return "/control?done=planned"

        return await submit_form(request, "backfill_plan", plan, self._page)

    async def add_fault(self, request: Request) -> Response:
        """Plan a fault."""

        def add(values: FormValues) -> str:
            fields = _with_times(values)
            if "fields" in fields:
                fields["fields"] = parse_json_object("fields", fields["fields"])
            self._pipeline.faults.add(Fault.model_validate(fields))
            return "/control?done=added"

        return await submit_form(request, "fault", add, self._page)

    async def clear_faults(self, request: Request) -> Response:
        """Remove all faults."""

        def clear(_: FormValues) -> str:
            self._pipeline.faults.clear()
            return "/control?done=cleared"

        return await submit_form(request, "clear", clear, self._page)

    async def configure(self, request: Request) -> Response:
        """Change settings."""

        def configure(values: FormValues) -> str:
            ConfigureCommand.model_validate(values).execute(self._pipeline)
            return "/control?done=saved"

        return await submit_form(request, "settings", configure, self._page)

    def _page(self, form: Form, status: int = 200, done: str | None = None) -> Response:
        return page(
            "control",
            status,
            form=form,
            done=done,
            connections=self._pipeline.workspace.connections,
            default_plan=self._pipeline.workspace.default_plan,
            faults=self._pipeline.faults.pending(),
            routes=("*", *SCOPE_BY_ROUTE),
            settings=settings_of(self._pipeline),
        )


def _with_times(values: FormValues) -> dict[str, Any]:
    """Replace a checked box "always" by ``times=None``."""
    fields: dict[str, Any] = dict(values)
    if fields.pop("always", None):
        fields["times"] = None
    return fields
