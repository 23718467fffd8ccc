"""The simulator as a FastAPI app: the API, the control API and the pages."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from planasonix_provider.api.request import PREFIX
from planasonix_provider.simulator.api import api_routes, webhook_routes
from planasonix_provider.simulator.api.faults import Faults
from planasonix_provider.simulator.api.middleware import HeaderMiddleware
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from planasonix_provider.simulator.api.responses import api_error_response
from planasonix_provider.simulator.control import control_routes
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.web import control_page, detail_pages, list_pages, start_page
from planasonix_provider.simulator.web.render import assets_router
from planasonix_provider.simulator.web.views import check_airflow_url
from planasonix_provider.simulator.workspace import Workspace

# include_router() would analyse every route again for each app.
ROUTES = [
    *api_routes.router.routes,
    *webhook_routes.router.routes,
    *control_routes.router.routes,
    *list_pages.router.routes,
    *detail_pages.router.routes,
    *start_page.router.routes,
    *control_page.router.routes,
    *assets_router.routes,
]


def create_app(
    workspace: Workspace,
    *,
    faults: Faults | None = None,
    rate_limit: PerKeyRateLimit | None = None,
    airflow_url: str | None = None,
    allowed_hosts: Collection[str] = (),
) -> FastAPI:
    """Return the app of a workspace. Its ``state.pipeline`` is the :class:`.RequestPipeline`."""
    app = FastAPI(title="Planasonix simulator", routes=ROUTES, openapi_url=None, redirect_slashes=False)
    app.state.airflow_url = check_airflow_url(airflow_url)
    app.state.pipeline = RequestPipeline(workspace, faults or Faults(), rate_limit or PerKeyRateLimit(workspace.clock))
    app.add_middleware(HeaderMiddleware, workspace=workspace, allowed_hosts=allowed_hosts)
    app.add_exception_handler(HTTPException, _respond_without_route)
    app.add_exception_handler(ApiError, _respond_with_error)
    app.add_exception_handler(RequestValidationError, _respond_with_error)
    return app


async def _respond_with_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError | RequestValidationError)  # noqa: S101 - for mypy: the registered types
    return api_error_response(error)


async def _respond_without_route(request: Request, error: Exception) -> Response:
    """Return 404 or 405. Below the API's prefix, even these require a key and count against the rate limit."""
    path = request.scope["path"]
    is_known_path = isinstance(error, HTTPException) and error.status_code == 405
    code = "method_not_allowed" if is_known_path else "not_found"
    message = f"{path} does not allow {request.method}" if is_known_path else f"no route {path}"

    async def handle(_: Request) -> Response:
        return api_error_response(ApiError(code, message))

    pipeline: RequestPipeline = request.app.state.pipeline
    in_api = path.startswith(f"{PREFIX}/")
    response = await (pipeline.serve("unknown", request, handle) if in_api else handle(request))
    if is_known_path:
        response.headers["Allow"] = ", ".join(_allowed_methods(request))
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path; Starlette itself names only those of the first route."""
    routes = [route for route in ROUTES if isinstance(route, APIRoute)]
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted(method for route in matching for method in route.methods)
