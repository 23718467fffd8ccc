"""Renders pages: templates with autoescape, and headers that allow no foreign content."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.responses import STATUS_OF
from planasonix_provider.simulator.control.csrf import forbid_cross_site_requests
from planasonix_provider.simulator.model.api_errors import ApiError

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # With "no-referrer", browsers also hide the origin of forms, which the protection against CSRF checks.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = files("planasonix_provider.simulator.web") / "assets"
_TYPES = {"icon.svg": "image/svg+xml", "page.css": "text/css", "page.js": "text/javascript"}


def path_segment(item_id: str) -> str:
    """Return an id as one segment of a path."""
    return quote(item_id, safe="")


_templates = Environment(
    loader=PackageLoader("planasonix_provider.simulator.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["path_segment"] = path_segment
# An option whose label is its value.
_templates.filters["as_option"] = lambda value: (value, value)


def page(template: str, status: int = 200, **context: Any) -> Response:
    content = _templates.get_template(f"{template}.html").render(context)
    return Response(content, status, _HEADERS, media_type="text/html")


def redirect(path: str) -> Response:
    """Redirect from a submitted form to a page that can be reloaded."""
    return RedirectResponse(path, 303)


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_error_page(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as error:
                return page("error", STATUS_OF[error.code], error=error)

        return handle_with_error_page


def page_router() -> APIRouter:
    """Return a router for pages. They require no key and are not logged as requests of the API."""
    return APIRouter(route_class=PageRoute, redirect_slashes=False, dependencies=[Depends(forbid_cross_site_requests)])


assets_router = page_router()


@assets_router.get("/assets/{name}")
async def asset(name: PathId) -> Response:
    if name not in _TYPES:
        raise ApiError("not_found", f"no file {name!r}")
    return Response((_ASSETS / name).read_bytes(), headers=_HEADERS, media_type=_TYPES[name])
