"""Failures on order: which request is to fail, and how."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.model.simulated_jobs import Seconds

Kind: TypeAlias = Literal["status", "reset", "hang", "cut", "html", "empty", "odd"]

#: The status of each kind that answers with one, unless the fault names another.
_STATUS_OF = {"status": 500, "html": 502, "empty": 200}

_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


class Fault(BaseModel):
    """A failure of the API, or of something between it and its caller.

    :param kind: what happens. ``status`` answers with an error; ``reset`` drops the connection without a byte; ``hang``
        answers only after ``seconds``; ``cut`` drops the connection in the middle of the answer; ``html`` answers with
        a proxy's page; ``empty`` answers with nothing in it; ``odd`` changes ``fields`` of the answer.
    :param route: which route fails, by its name in :mod:`planasonix_provider.api.routes`; ``*``, the default, is any.
    :param times: how many requests fail; ``None`` is all of them, until the faults are cleared. Default 1.
    :param skip: how many requests pass before the first one fails; default none.
    :param when: ``before``, the default, fails a request that then has no effect (after a ``hang``, it has its effect
        late); ``after`` lets it have its effect first, and then loses the answer.
    :param status: the HTTP status; by default 500 for ``status``, 502 for ``html``, 200 for ``empty``. ``html`` may be
        a redirect, too.
    :param headers: headers of the answer, as ``Retry-After``; for ``status``, ``html`` and ``empty``.
    :param seconds: how many seconds a ``hang`` takes; default 30.
    :param fields: for ``odd``, the fields of the answer's ``data`` that are added or replaced; a list gets one more row
        of these fields, before the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    route: str = "*"
    times: Annotated[int, Field(ge=1)] | None = 1
    skip: Annotated[int, Field(ge=0)] = 0
    when: Literal["before", "after"] = "before"
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    headers: dict[_HeaderName, _HeaderValue] = {}
    seconds: Seconds = 30.0
    fields: dict[str, Any] = {}

    @field_validator("route")
    @classmethod
    def _route_exists(cls, route: str) -> str:
        if route not in ("*", *SCOPE_BY_ROUTE):
            raise ValueError(f"got {route!r}, allowed are '*', {', '.join(map(repr, SCOPE_BY_ROUTE))}")
        return route

    @model_validator(mode="after")
    def _status_suits_kind(self) -> Fault:
        lowest = 300 if self.kind == "html" else 400
        allowed = range(lowest, 600) if self.kind == "status" else (200, *range(lowest, 600))
        if self.status is not None and self.status not in allowed:
            also = "" if self.kind == "status" else "200 or "
            raise ValueError(f"status: got {self.status}, allowed for {self.kind!r} is {also}{lowest} to 599")
        return self

    @property
    def response_status(self) -> int:
        """The HTTP status of the answer, for the kinds that answer with one."""
        return self.status or _STATUS_OF[self.kind]


@dataclass(eq=False)
class _PendingFault:
    fault: Fault
    skip: int
    times: int | None


class Faults:
    """The failures that were ordered and did not all happen yet. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._orders: list[_PendingFault] = []
        self._lock = Lock()

    def add(self, fault: Fault) -> None:
        """Order a failure, behind those that were ordered before.

        :param fault: the failure.
        """
        with self._lock:
            self._orders.append(_PendingFault(fault, fault.skip, fault.times))

    def next_fault(self, route: str) -> Fault | None:
        """Tell how a request fails, and count it.

        The first fault that fits takes the request. One that still lets requests pass counts it, and leaves it to
        the next.

        :param route: the request's route.
        :return: the fault, or ``None`` if the request is to be answered.
        """
        with self._lock:
            for order in self._orders:
                if order.fault.route not in ("*", route):
                    continue
                if order.skip:
                    order.skip -= 1
                    continue
                if order.times is not None:
                    order.times -= 1
                    if not order.times:
                        self._orders.remove(order)
                return order.fault
            return None

    def pending(self) -> list[Fault]:
        """Tell what is still to fail.

        :return: the faults in order, each with the ``times`` and ``skip`` that are left of it.
        """
        with self._lock:
            return [order.fault.model_copy(update={"skip": order.skip, "times": order.times}) for order in self._orders]

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._orders.clear()
