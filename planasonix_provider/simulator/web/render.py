"""How a page is made: templates that escape whatever they are given, and headers that let it run nothing else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.responses import STATUS_OF
from planasonix_provider.simulator.model.api_errors import ApiError

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # With "no-referrer" browsers hide the origin of forms, too.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = files("planasonix_provider.simulator.web") / "assets"
_TYPES = {"icon.svg": "image/svg+xml", "page.css": "text/css", "page.js": "text/javascript"}


def path_segment(thing_id: str) -> str:
    """Make an id one segment of a path.

    :param thing_id: the id.
    :return: the segment.
    """
    return quote(thing_id, safe="")


_templates = Environment(
    loader=PackageLoader("planasonix_provider.simulator.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["segment"] = path_segment
_templates.filters["twice"] = lambda value: (value, value)


def page(template: str, status: int = 200, **shown: Any) -> Response:
    """Make a page.

    :param template: the name of its template, without ``.html``.
    :param status: the HTTP status.
    :param shown: what the template shows.
    :return: the page.
    """
    content = _templates.get_template(f"{template}.html").render(shown)
    return Response(content, status, _HEADERS, media_type="text/html")


def redirect(path: str) -> Response:
    """Lead from a form that was sent to a page, which may be loaded again without sending it again.

    :param path: the page.
    :return: the answer.
    """
    return RedirectResponse(path, 303)


async def asset(name: PathId) -> Response:
    """Give the style, the script or the icon of all pages.

    :param name: the file's name.
    :return: the file.
    :raises Refused: as ``not_found``, if there is no such file.
    """
    if name not in _TYPES:
        raise ApiError("not_found", f"no file {name!r}")
    return Response((_ASSETS / name).read_bytes(), headers=_HEADERS, media_type=_TYPES[name])


class PageRoute(APIRoute):
    """A route whose refusals are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Put a page in the place of what is refused."""
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as refused:
                return page("refused", STATUS_OF[refused.code], refused=refused)

        return handle_for_people
