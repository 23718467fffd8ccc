"""The page "Start": starts syncs and backfills, and creates connections."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.control.control_commands import AddConnectionCommand
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody, SyncRequestBody
from planasonix_provider.simulator.web.forms import Form, FormValues, split_list, submit_form
from planasonix_provider.simulator.web.render import page, path_segment


class StartPage:
    """Adds the page "Start" to a router."""

    def __init__(self, pipeline: RequestPipeline, router: APIRouter) -> None:
        self._pipeline = pipeline
        self._workspace = pipeline.workspace
        router.add_api_route("/start", self.show, methods=["GET"])
        router.add_api_route("/start/sync", self.start_sync, methods=["POST"])
        router.add_api_route("/start/backfill", self.start_backfill, methods=["POST"])
        router.add_api_route("/start/connection", self.add_connection, methods=["POST"])

    async def show(self, request: Request) -> Response:
        """Show the forms."""
        connection_id = request.query_params.get("connection_id", "")
        return self._page(Form("sync", {"connection_id": connection_id}))

    async def start_sync(self, request: Request) -> Response:
        """Start a sync."""

        def start(values: FormValues) -> str:
            connection_id, body = _split_connection(values)
            job = self._workspace.start_sync(connection_id, SyncRequestBody.model_validate(body))
            return f"/jobs/{path_segment(job.id)}"

        return await submit_form(request, "sync", start, self._page)

    async def start_backfill(self, request: Request) -> Response:
        """Start a backfill."""

        def start(values: FormValues) -> str:
            connection_id, body = _split_connection(values)
            if "tables" in body:
                body["tables"] = split_list(body["tables"])
            backfill = self._workspace.start_backfill(connection_id, BackfillRequestBody.model_validate(body))
            return f"/backfills/{path_segment(backfill.id)}"

        return await submit_form(request, "backfill", start, self._page)

    async def add_connection(self, request: Request) -> Response:
        """Create a connection."""

        def create(values: FormValues) -> str:
            AddConnectionCommand.model_validate(values).execute(self._pipeline)
            return f"/start?connection_id={path_segment(values['connection_id'])}"

        return await submit_form(request, "connection", create, self._page)

    def _page(self, form: Form, status: int = 200) -> Response:
        return page("start", status, form=form, connections=self._workspace.connections)


def _split_connection(values: FormValues) -> tuple[str, dict[str, Any]]:
    """Return the connection, which the API has in the path, and the body."""
    body = dict(values)
    return body.pop("connection_id", ""), body
