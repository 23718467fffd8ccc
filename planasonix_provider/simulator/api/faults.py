"""Planned failures of requests."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.model.plans import Seconds

Kind: TypeAlias = Literal["status", "reset", "hang", "cut", "html", "empty", "odd"]

#: The default HTTP status of the kinds that have one.
_DEFAULT_STATUS = {"status": 500, "html": 502, "empty": 200}

_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


class Fault(BaseModel):
    """A failure of the API, or of something between the API and its client.

    :param kind: the effect. ``status`` returns an error; ``reset`` drops the connection without a byte; ``hang``
        responds only after ``seconds``; ``cut`` drops the connection in the middle of the response; ``html`` returns
        the page of a proxy; ``empty`` returns an empty response; ``odd`` changes ``fields`` of the response.
    :param route: the route that fails, by its name in :mod:`planasonix_provider.api.routes`; default ``*``, any route.
    :param times: how many requests fail; default 1. ``None`` fails all requests until the faults are cleared.
    :param skip: how many requests succeed before the first one fails; default none.
    :param when: ``before`` (default) or ``after`` the request has its effect. With ``before`` it has none, except that
        a ``hang`` only delays it; with ``after`` only the response is lost.
    :param status: the HTTP status; by default 500 for ``status``, 502 for ``html``, 200 for ``empty``. That of ``html``
        may also be a redirect.
    :param headers: response headers such as ``Retry-After``, for ``status``, ``html`` and ``empty``.
    :param seconds: how long a ``hang`` takes; default 30.
    :param fields: for ``odd``, the fields that are added to the response's ``data`` or replaced; a list gets one more
        item of these fields, before the others.
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
    def _check_route(cls, route: str) -> str:
        if route not in ("*", *SCOPE_BY_ROUTE):
            raise ValueError(f"got {route!r}, allowed are '*', {', '.join(map(repr, SCOPE_BY_ROUTE))}")
        return route

    @model_validator(mode="after")
    def _check_status(self) -> Fault:
        lowest = 300 if self.kind == "html" else 400
        allowed = range(lowest, 600) if self.kind == "status" else (200, *range(lowest, 600))
        if self.status is not None and self.status not in allowed:
            also = "" if self.kind == "status" else "200 or "
            raise ValueError(f"status: got {self.status}, allowed for {self.kind!r} is {also}{lowest} to 599")
        return self

    @property
    def response_status(self) -> int:
        """The HTTP status of ``status``, ``html`` and ``empty``."""
        return self.status or _DEFAULT_STATUS[self.kind]


@dataclass(eq=False)
class _PendingFault:
    fault: Fault
    skip: int
    times: int | None


class Faults:
    """The faults that have not happened yet. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._pending: list[_PendingFault] = []
        self._lock = Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault after all others."""
        with self._lock:
            self._pending.append(_PendingFault(fault, fault.skip, fault.times))

    def next_fault(self, route: str) -> Fault | None:
        """Return the fault of the next request to a route.

        The first matching fault is used. One that still skips requests counts this request, and the next is tried.
        """
        with self._lock:
            for pending in self._pending:
                if pending.fault.route not in ("*", route):
                    continue
                if pending.skip:
                    pending.skip -= 1
                    continue
                if pending.times is not None:
                    pending.times -= 1
                    if not pending.times:
                        self._pending.remove(pending)
                return pending.fault
            return None

    def pending(self) -> list[Fault]:
        """Return the faults in order, each with its remaining ``times`` and ``skip``."""
        with self._lock:
            return [one.fault.model_copy(update={"skip": one.skip, "times": one.times}) for one in self._pending]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._pending.clear()
