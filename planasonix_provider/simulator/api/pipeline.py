"""The steps of every API request: request log, faults, authentication, rate limit and scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.api.fault_injection import ConnectionReset, inject
from planasonix_provider.simulator.api.faults import Faults
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from planasonix_provider.simulator.api.request_log import RequestLog
from planasonix_provider.simulator.api.responses import api_error_response
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.workspace import Workspace

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class RequestPipeline:
    """Serves the requests of a workspace's API."""

    def __init__(self, workspace: Workspace, faults: Faults, rate_limit: PerKeyRateLimit) -> None:
        self.workspace = workspace
        self.faults = faults
        self.rate_limit = rate_limit
        self.log = RequestLog()
        # Replaced on reset: a request that was hanging during the reset must not change the new state.
        self._generation = object()

    def reset(self) -> None:
        self._generation = object()
        self.workspace.reset()
        self.faults.clear()
        self.rate_limit.reset()
        self.log.clear()

    async def serve(self, route: str, request: Request, handle: Handler) -> Response:
        """Return the response of a request, or that of a fault."""
        # Starlette caches the body. After a hang it could not be read if the client has disconnected.
        await request.body()
        key = self.workspace.keys.name_of(request.headers.get("authorization"))
        logged = self.log.add(route, request, self.workspace.clock(), key)
        fault = self.faults.next_fault(route)
        respond = partial(self._respond, route, request, handle, self._generation)
        response = await (inject(fault, respond) if fault else respond())
        logged.status = None if fault and fault.kind == "reset" else response.status_code
        return response

    async def _respond(self, route: str, request: Request, handle: Handler, generation: object) -> Response:
        if generation is not self._generation:
            return ConnectionReset()
        headers: dict[str, str] = {}
        try:
            key = self.workspace.keys.authenticate(request.headers.get("authorization"))
            limit = self.rate_limit.consume(key.value)
            headers = limit.headers
            if limit.is_exceeded:
                message = f"more than {limit.limit} requests in a minute; try again in {limit.retry_after} s"
                raise ApiError("rate_limited", message)
            key.require(SCOPE_BY_ROUTE.get(route))
            response = await handle(request)
        except (ApiError, RequestValidationError) as error:
            response = api_error_response(error)
        response.headers.update(headers)
        return response


async def _pipeline(request: Request) -> RequestPipeline:
    pipeline: RequestPipeline = request.app.state.pipeline
    return pipeline


#: The parameter of a route that gets the pipeline of its app.
AppPipeline: TypeAlias = Annotated[RequestPipeline, Depends(_pipeline)]


async def _workspace(pipeline: AppPipeline) -> Workspace:
    return pipeline.workspace


#: The parameter of a route that gets the workspace of its app.
AppWorkspace: TypeAlias = Annotated[Workspace, Depends(_workspace)]


class PipelineRoute(APIRoute):
    """A route whose requests pass the app's pipeline."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_in_pipeline(request: Request) -> Response:
            pipeline: RequestPipeline = request.app.state.pipeline
            return await pipeline.serve(self.name, request, handle)

        return handle_in_pipeline
