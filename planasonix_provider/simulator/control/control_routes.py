"""Steering over HTTP, below ``/_simulator``: what is to happen next, and what happened so far. Takes no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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
from planasonix_provider.simulator.csrf import forbid_cross_site_requests

T = TypeVar("T")


class ControlRoutes:
    """The routes below ``/_simulator``.

    :param gate: what they steer.
    """

    def __init__(self, gate: RequestPipeline) -> None:
        self._gate = gate
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
        """Show jobs, backfills, webhooks, requests, faults and settings, and no key or secret."""
        gate = self._gate
        return _told(
            jobs=gate.workspace.jobs(),
            backfills=gate.workspace.backfills(),
            webhooks=gate.workspace.webhooks.all(),
            deliveries=gate.workspace.webhooks.outbox.all(),
            connections=gate.workspace.connections,
            counts=gate.log.counts(),
            requests=gate.log.requests(),
            faults=gate.faults.pending(),
            settings=settings_of(gate),
        )

    async def add_fault(self, request: Request) -> Response:
        """Order a failure."""
        self._gate.faults.add(await read_body(request, Fault))
        return _told(faults=self._gate.faults.pending())

    async def clear_faults(self) -> Response:
        """Forget all failures that were ordered."""
        self._gate.faults.clear()
        return _told(faults=[])

    async def plan(self, request: Request) -> Response:
        """Plan what the next jobs of a connection do."""
        order = await read_body(request, PlanCommand)
        return _told(connection_id=order.connection_id, times=order.times, plan=order.execute(self._gate))

    async def plan_backfill(self, request: Request) -> Response:
        """Plan what the next backfills of a connection do."""
        order = await read_body(request, PlanBackfillCommand)
        return _told(connection_id=order.connection_id, times=order.times, plan=order.execute(self._gate))

    async def fail_job(self, job_id: PathId, request: Request) -> Response:
        """Make a job fail."""
        order = await read_body(request, FailJobCommand)
        return _told(job=order.execute(self._gate, job_id))

    async def slow_job(self, job_id: PathId, request: Request) -> Response:
        """Let a job take longer."""
        order = await read_body(request, SlowJobCommand)
        return _told(job=_allowed(lambda: order.execute(self._gate, job_id)))

    async def add_key(self, request: Request) -> Response:
        """Create a key."""
        order = await read_body(request, AddKeyCommand)
        key = _allowed(lambda: order.execute(self._gate))
        return _told(key=key.value, scopes=sorted(key.scopes))

    async def revoke_key(self, key: PathId) -> Response:
        """Take a key back."""
        self._gate.workspace.keys.revoke(key)
        return _told(revoked=True)

    async def add_connection(self, request: Request) -> Response:
        """Create a connection."""
        order = await read_body(request, AddConnectionCommand)
        return _told(connections=_allowed(lambda: order.execute(self._gate)))

    async def configure(self, request: Request) -> Response:
        """Change settings."""
        order = await read_body(request, ConfigureCommand)
        return _told(settings=order.execute(self._gate))

    async def reset(self) -> Response:
        """Forget all that happened, and all that was ordered."""
        self._gate.reset()
        return _told(reset=True)


def _told(**data: Any) -> Response:
    return Response(to_json({"data": data}), media_type="application/json")


def _allowed(act: Callable[[], T]) -> T:
    """Do something, and refuse the order if its values are not allowed."""
    try:
        return act()
    except ValueError as error:
        raise invalid_value(error) from None
