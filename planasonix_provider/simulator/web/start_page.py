"""The page that starts things: a sync, a backfill, a connection."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.control.control_commands import AddConnectionCommand
from planasonix_provider.simulator.model.request_bodies import SyncRequestBody
from planasonix_provider.simulator.model.simulated_backfills import BackfillRequestBody
from planasonix_provider.simulator.web.forms import Form, FormValues, split_list, submit_form
from planasonix_provider.simulator.web.render import page, path_segment


class StartPage:
    """The page that starts things.

    :param gate: where they are started.
    :param router: where it is put.
    """

    def __init__(self, gate: RequestPipeline, router: APIRouter) -> None:
        self._gate = gate
        self._world = gate.workspace
        router.add_api_route("/start", self.show, methods=["GET"])
        router.add_api_route("/start/sync", self.sync, methods=["POST"])
        router.add_api_route("/start/backfill", self.backfill, methods=["POST"])
        router.add_api_route("/start/connection", self.connection, methods=["POST"])

    async def show(self, request: Request) -> Response:
        """Show the forms."""
        connection_id = request.query_params.get("connection_id", "")
        return self._page(Form("sync", {"connection_id": connection_id}))

    async def sync(self, request: Request) -> Response:
        """Start a sync."""

        def start(typed: FormValues) -> str:
            connection_id, body = _taken(typed)
            job = self._world.start_sync(connection_id, SyncRequestBody.model_validate(body))
            return f"/jobs/{path_segment(job.id)}"

        return await submit_form(request, "sync", start, self._page)

    async def backfill(self, request: Request) -> Response:
        """Start a backfill."""

        def start(typed: FormValues) -> str:
            connection_id, body = _taken(typed)
            if "tables" in body:
                body["tables"] = split_list(body["tables"])
            backfill = self._world.start_backfill(connection_id, BackfillRequestBody.model_validate(body))
            return f"/backfills/{path_segment(backfill.id)}"

        return await submit_form(request, "backfill", start, self._page)

    async def connection(self, request: Request) -> Response:
        """Create a connection."""

        def create(typed: FormValues) -> str:
            AddConnectionCommand.model_validate(typed).execute(self._gate)
            return f"/start?connection_id={path_segment(typed['connection_id'])}"

        return await submit_form(request, "connection", create, self._page)

    def _page(self, form: Form, status: int = 200) -> Response:
        return page("start", status, form=form, connections=self._world.connections)


def _taken(typed: FormValues) -> tuple[str, dict[str, Any]]:
    """Part the connection, which the API has in the path, from the body."""
    body = dict(typed)
    return body.pop("connection_id", ""), body
