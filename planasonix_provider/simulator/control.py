"""Steering over HTTP, below ``/_simulator``: what is to happen next, and what happened so far. Takes no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from planasonix_provider.simulator.access import SCOPES
from planasonix_provider.simulator.backfill_plans import BackfillPlan
from planasonix_provider.simulator.envelope import read_body, refused_value
from planasonix_provider.simulator.faults import Fault
from planasonix_provider.simulator.front import PathId
from planasonix_provider.simulator.gate import Gate
from planasonix_provider.simulator.jobs import Plan
from planasonix_provider.simulator.settings import Settings

T = TypeVar("T")


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlanOrder(Plan):
    """What the next jobs of a connection do."""

    connection_id: str
    times: Annotated[int, Field(ge=1)] | None = 1


class BackfillPlanOrder(BackfillPlan):
    """What the next backfills of a connection do."""

    connection_id: str
    times: Annotated[int, Field(ge=1)] | None = 1


class KeyOrder(_Order):
    """A key to create."""

    key: str | None = None
    scopes: list[str] = sorted(SCOPES)


class ConnectionOrder(_Order):
    """A connection to create."""

    connection_id: str


class SettingsOrder(Settings):
    """Settings to change; those that are not named stay as they are."""

    rate_limit: Annotated[int, Field(ge=1)] | None = None


class Control:
    """The routes below ``/_simulator``.

    :param gate: what they steer.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.router = router = APIRouter(prefix="/_simulator", redirect_slashes=False)
        router.add_api_route("/state", self.state, methods=["GET"])
        router.add_api_route("/faults", self.add_fault, methods=["POST"])
        router.add_api_route("/faults", self.clear_faults, methods=["DELETE"])
        router.add_api_route("/plans", self.plan, methods=["POST"])
        router.add_api_route("/backfill_plans", self.plan_backfill, methods=["POST"])
        router.add_api_route("/keys", self.add_key, methods=["POST"])
        router.add_api_route("/keys/{key}/revoke", self.revoke_key, methods=["POST"])
        router.add_api_route("/connections", self.add_connection, methods=["POST"])
        router.add_api_route("/settings", self.configure, methods=["POST"])
        router.add_api_route("/reset", self.reset, methods=["POST"])

    async def state(self) -> Response:
        """Show jobs, backfills, webhooks, requests, faults and settings, and no key or secret."""
        gate = self._gate
        return _told(
            jobs=gate.world.jobs(),
            backfills=gate.world.backfills(),
            webhooks=gate.world.webhooks.all(),
            deliveries=gate.world.webhooks.outbox.all(),
            connections=gate.world.connections,
            counts=gate.log.counts(),
            requests=gate.log.requests(),
            faults=gate.faults.left(),
            settings={**gate.world.settings.model_dump(), "rate_limit": gate.limits.per_minute},
        )

    async def add_fault(self, request: Request) -> Response:
        """Order a failure."""
        self._gate.faults.add(await read_body(request, Fault))
        return _told(faults=self._gate.faults.left())

    async def clear_faults(self) -> Response:
        """Forget all failures that were ordered."""
        self._gate.faults.clear()
        return _told(faults=[])

    async def plan(self, request: Request) -> Response:
        """Plan what the next jobs of a connection do."""
        order = await read_body(request, PlanOrder)
        changes = order.model_dump(exclude_unset=True, exclude={"connection_id", "times"})
        plan = self._gate.world.plan(order.connection_id, times=order.times, **changes)
        return _told(connection_id=order.connection_id, times=order.times, plan=plan)

    async def plan_backfill(self, request: Request) -> Response:
        """Plan what the next backfills of a connection do."""
        order = await read_body(request, BackfillPlanOrder)
        changes = order.model_dump(exclude_unset=True, exclude={"connection_id", "times"})
        plan = self._gate.world.plan_backfill(order.connection_id, times=order.times, **changes)
        return _told(connection_id=order.connection_id, times=order.times, plan=plan)

    async def add_key(self, request: Request) -> Response:
        """Create a key."""
        order = await read_body(request, KeyOrder)
        key = _allowed(lambda: self._gate.world.keys.add(order.key, order.scopes))
        return _told(key=key.value, scopes=sorted(key.scopes))

    async def revoke_key(self, key: PathId) -> Response:
        """Take a key back."""
        self._gate.world.keys.revoke(key)
        return _told(revoked=True)

    async def add_connection(self, request: Request) -> Response:
        """Create a connection."""
        order = await read_body(request, ConnectionOrder)
        _allowed(lambda: self._gate.world.add_connection(order.connection_id))
        return _told(connections=self._gate.world.connections)

    async def configure(self, request: Request) -> Response:
        """Change settings."""
        order = await read_body(request, SettingsOrder)
        settings = self._gate.world.configure(**order.model_dump(exclude_unset=True, exclude={"rate_limit"}))
        if order.rate_limit is not None:
            self._gate.limits.configure(order.rate_limit)
        return _told(settings={**settings.model_dump(), "rate_limit": self._gate.limits.per_minute})

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
        raise refused_value(error) from None
