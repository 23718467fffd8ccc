"""What every request of the API passes: the log, the faults, the key, the limit and the scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.api.fault_injection import ConnectionReset, inject
from planasonix_provider.simulator.api.faults import Faults
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from planasonix_provider.simulator.api.request_log import RequestLog
from planasonix_provider.simulator.api.responses import api_error_response
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.workspace import Workspace

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class RequestPipeline:
    """The way in to a world.

    :param world: what is behind the gate.
    :param faults: which requests fail.
    :param limits: how many requests a key has.
    """

    def __init__(self, workspace: Workspace, faults: Faults, rate_limit: PerKeyRateLimit) -> None:
        self.workspace = workspace
        self.faults = faults
        self.rate_limit = rate_limit
        self.log = RequestLog()
        # What there is to forget; a request that hangs while it is forgotten belongs to it.
        self._generation = object()

    def reset(self) -> None:
        """Forget all that happened, and all that was ordered."""
        self._generation = object()
        self.workspace.reset()
        self.faults.clear()
        self.rate_limit.reset()
        self.log.clear()

    async def serve(self, route: str, request: Request, handle: Handler) -> Response:
        """Answer a request, or let it fail as ordered.

        :param route: the name of its route.
        :param request: the request.
        :param handle: lets the request have its effect.
        :return: the answer.
        """
        # Starlette keeps the body; one that is read only after a hang would be lost with a caller who gave up.
        await request.body()
        recorded = self.log.add(route, request, self.workspace.clock())
        fault = self.faults.next_fault(route)
        answer = partial(self._answer, route, request, handle, self._generation)
        response = await (inject(fault, answer) if fault else answer())
        recorded.status = None if fault and fault.kind == "reset" else response.status_code
        return response

    async def _answer(self, route: str, request: Request, handle: Handler, life: object) -> Response:
        if life is not self._generation:
            return ConnectionReset()
        headers: dict[str, str] = {}
        try:
            key = self.workspace.keys.authenticate(request.headers.get("authorization"))
            allowance = self.rate_limit.consume(key.value)
            headers = allowance.headers
            if allowance.is_exceeded:
                message = f"more than {allowance.limit} requests in a minute; try again in {allowance.retry_after} s"
                raise ApiError("rate_limited", message)
            key.require(SCOPE_BY_ROUTE.get(route))
            response = await handle(request)
        except (ApiError, RequestValidationError) as error:
            response = api_error_response(error)
        response.headers.update(headers)
        return response


class PipelineRoute(APIRoute):
    """A route whose requests pass the app's gate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Put the gate before FastAPI's own handler."""
        handle = super().get_route_handler()

        async def handle_behind_gate(request: Request) -> Response:
            gate: RequestPipeline = request.app.state.pipeline
            return await gate.serve(self.name, request, handle)

        return handle_behind_gate
