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
from planasonix_provider.simulator.web.forms import Form, Typed, parts, send
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

        def plan(typed: Typed) -> str:
            PlanCommand.model_validate(_with_times(typed)).carry_out(self._gate)
            return "/steer?done=planned"

        return await send(request, "plan", plan, self._page)

    async def plan_backfill(self, request: Request) -> Response:
        """Plan what the next backfills of a connection do."""

        def plan(typed: Typed) -> str:
            given = _with_times(typed)
            if "failing_jobs" in given:
                given["failing_jobs"] = parts(given["failing_jobs"])
            PlanBackfillCommand.model_validate(given).carry_out(self._gate)
            return "/steer?done=planned"

        return await send(request, "backfill_plan", plan, self._page)

    async def add_fault(self, request: Request) -> Response:
        """Order a failure."""

        def order(typed: Typed) -> str:
            self._gate.faults.add(Fault.model_validate(_with_times(typed)))
            return "/steer?done=ordered"

        return await send(request, "fault", order, self._page)

    async def clear_faults(self, request: Request) -> Response:
        """Forget all failures that were ordered."""

        def clear(_: Typed) -> str:
            self._gate.faults.clear()
            return "/steer?done=cleared"

        return await send(request, "clear", clear, self._page)

    async def configure(self, request: Request) -> Response:
        """Change settings."""

        def configure(typed: Typed) -> str:
            ConfigureCommand.model_validate(typed).carry_out(self._gate)
            return "/steer?done=set"

        return await send(request, "settings", configure, self._page)

    def _page(self, form: Form, status: int = 200, done: str | None = None) -> Response:
        return page(
            "steer",
            status,
            form=form,
            done=done,
            connections=self._gate.world.connections,
            default_plan=self._gate.world.default_plan,
            faults=self._gate.faults.left(),
            routes=("*", *SCOPE_BY_ROUTE),
            settings=settings_of(self._gate),
        )


def _with_times(typed: Typed) -> dict[str, Any]:
    """Let a checked box stand for all that follow."""
    given: dict[str, Any] = dict(typed)
    if given.pop("always", None):
        given["times"] = None
    return given
