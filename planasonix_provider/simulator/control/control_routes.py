"""The control API below ``/_simulator``, which needs no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from planasonix_provider.simulator.api.faults import Fault
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.api.responses import invalid_value, read_body
from planasonix_provider.simulator.control.control_commands import (
    AddConnectionCommand,
    AddKeyCommand,
    ConfigureCommand,
    FailJobCommand,
    PlanBackfillCommand,
    PlanCommand,
    SlowJobCommand,
    settings_of,
)
from planasonix_provider.simulator.control.csrf import forbid_cross_site_requests


class ControlRoutes:
    """The routes below ``/_simulator``."""

    def __init__(self, pipeline: RequestPipeline) -> None:
        self._pipeline = pipeline
        self.router = router = APIRouter(
            prefix="/_simulator", redirect_slashes=False, dependencies=[Depends(forbid_cross_site_requests)]
        )
        router.add_api_route("/state", self.state, methods=["GET"])
        router.add_api_route("/faults", self.add_fault, methods=["POST"])
        router.add_api_route("/faults", self.clear_faults, methods=["DELETE"])
        router.add_api_route("/plans", self.plan, methods=["POST"])
        router.add_api_route("/backfill_plans", self.plan_backfill, methods=["POST"])
        router.add_api_route("/jobs/{job_id}/fail", self.fail_job, methods=["POST"])
        router.add_api_route("/jobs/{job_id}/slow", self.slow_job, methods=["POST"])
        router.add_api_route("/keys", self.add_key, methods=["POST"])
        router.add_api_route("/keys/{key}/revoke", self.revoke_key, methods=["POST"])
        router.add_api_route("/connections", self.add_connection, methods=["POST"])
        router.add_api_route("/settings", self.configure, methods=["POST"])
        router.add_api_route("/reset", self.reset, methods=["POST"])

    async def state(self) -> Response:
        """Return all state except keys and secrets."""
        pipeline, workspace = self._pipeline, self._pipeline.workspace
        return _data_response(
            jobs=workspace.jobs(),
            backfills=workspace.backfills(),
            webhooks=workspace.webhooks.all(),
            deliveries=workspace.webhooks.outbox.all(),
            connections=workspace.connections,
            counts=pipeline.log.counts(),
            requests=pipeline.log.requests(),
            faults=pipeline.faults.pending(),
            settings=settings_of(pipeline),
        )

    async def add_fault(self, request: Request) -> Response:
        """Plan a fault."""
        self._pipeline.faults.add(await read_body(request, Fault))
        return _data_response(faults=self._pipeline.faults.pending())

    async def clear_faults(self) -> Response:
        """Remove all faults."""
        self._pipeline.faults.clear()
        return _data_response(faults=[])

    async def plan(self, request: Request) -> Response:
        """Plan the next jobs of a connection."""
        command = await read_body(request, PlanCommand)
        plan = command.execute(self._pipeline)
        return _data_response(connection_id=command.connection_id, times=command.times, plan=plan)

    async def plan_backfill(self, request: Request) -> Response:
        """Plan the next backfills of a connection."""
        command = await read_body(request, PlanBackfillCommand)
        plan = command.execute(self._pipeline)
        return _data_response(connection_id=command.connection_id, times=command.times, plan=plan)

    async def fail_job(self, job_id: PathId, request: Request) -> Response:
        """Make a job fail."""
        command = await read_body(request, FailJobCommand)
        return _data_response(job=command.execute(self._pipeline, job_id))

    async def slow_job(self, job_id: PathId, request: Request) -> Response:
        """Make a job run longer."""
        command = await read_body(request, SlowJobCommand)
        with _value_errors_as_api_errors():
            return _data_response(job=command.execute(self._pipeline, job_id))

    async def add_key(self, request: Request) -> Response:
        """Create a key."""
        command = await read_body(request, AddKeyCommand)
        with _value_errors_as_api_errors():
            key = command.execute(self._pipeline)
        return _data_response(key=key.value, name=key.name, scopes=sorted(key.scopes))

    async def revoke_key(self, key: PathId) -> Response:
        """Revoke a key."""
        self._pipeline.workspace.keys.revoke(key)
        return _data_response(revoked=True)

    async def add_connection(self, request: Request) -> Response:
        """Create a connection."""
        command = await read_body(request, AddConnectionCommand)
        with _value_errors_as_api_errors():
            return _data_response(connections=command.execute(self._pipeline))

    async def configure(self, request: Request) -> Response:
        """Change settings."""
        command = await read_body(request, ConfigureCommand)
        return _data_response(settings=command.execute(self._pipeline))

    async def reset(self) -> Response:
        """Return to the initial state."""
        self._pipeline.reset()
        return _data_response(reset=True)


def _data_response(**data: Any) -> Response:
    return Response(to_json({"data": data}), media_type="application/json")


@contextmanager
def _value_errors_as_api_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise invalid_value(error) from None
