"""The page that steers: what the next starts become, which requests fail, and how the deployment behaves."""

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
from planasonix_provider.simulator.web.forms import Form, FormValues, split_list, submit_form
from planasonix_provider.simulator.web.render import page

#: What was done, by the word for it in the page's address.
CONFIRMATIONS = {
    "planned": "The plan holds for the next starts of this connection.",
    "ordered": "The failure was ordered.",
    "cleared": "All failures that were ordered are forgotten.",
    "set": "The settings hold from now on.",
}


class ControlPage:
    """The page that steers.

    :param gate: what it steers.
    :param router: where it is put.
    """

    def __init__(self, gate: RequestPipeline, router: APIRouter) -> None:
        self._gate = gate
        router.add_api_route("/steer", self.show, methods=["GET"])
        router.add_api_route("/steer/plan", self.plan, methods=["POST"])
        router.add_api_route("/steer/backfill_plan", self.plan_backfill, methods=["POST"])
        router.add_api_route("/steer/fault", self.add_fault, methods=["POST"])
        router.add_api_route("/steer/clear", self.clear_faults, methods=["POST"])
        router.add_api_route("/steer/settings", self.configure, methods=["POST"])

    async def show(self, request: Request) -> Response:
        """Show the forms."""
        query = request.query_params
        form = Form("plan", {"connection_id": query.get("connection_id", "")})
        return self._page(form, done=CONFIRMATIONS.get(query.get("done", "")))

    async def plan(self, request: Request) -> Response:
        """Plan what the next syncs of a connection do."""

        def plan(typed: FormValues) -> str:
            PlanCommand.model_validate(_with_times(typed)).execute(self._gate)
            return "/steer?done=planned"

        return await submit_form(request, "plan", plan, self._page)

    async def plan_backfill(self, request: Request) -> Response:
        """Plan what the next backfills of a connection do."""

        def plan(typed: FormValues) -> str:
            given = _with_times(typed)
            if "failing_jobs" in given:
                given["failing_jobs"] = split_list(given["failing_jobs"])
            PlanBackfillCommand.model_validate(given).execute(self._gate)
            return "/steer?done=planned"

        return await submit_form(request, "backfill_plan", plan, self._page)

    async def add_fault(self, request: Request) -> Response:
        """Order a failure."""

        def order(typed: FormValues) -> str:
            self._gate.faults.add(Fault.model_validate(_with_times(typed)))
            return "/steer?done=ordered"

        return await submit_form(request, "fault", order, self._page)

    async def clear_faults(self, request: Request) -> Response:
        """Forget all failures that were ordered."""

        def clear(_: FormValues) -> str:
            self._gate.faults.clear()
            return "/steer?done=cleared"

        return await submit_form(request, "clear", clear, self._page)

    async def configure(self, request: Request) -> Response:
        """Change settings."""

        def configure(typed: FormValues) -> str:
            ConfigureCommand.model_validate(typed).execute(self._gate)
            return "/steer?done=set"

        return await submit_form(request, "settings", configure, self._page)

    def _page(self, form: Form, status: int = 200, done: str | None = None) -> Response:
        return page(
            "steer",
            status,
            form=form,
            done=done,
            connections=self._gate.workspace.connections,
            default_plan=self._gate.workspace.default_plan,
            faults=self._gate.faults.pending(),
            routes=("*", *SCOPE_BY_ROUTE),
            settings=settings_of(self._gate),
        )


def _with_times(typed: FormValues) -> dict[str, Any]:
    """Let a checked box stand for all that follow."""
    given: dict[str, Any] = dict(typed)
    if given.pop("always", None):
        given["times"] = None
    return given
