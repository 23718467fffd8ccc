"""Whose requests change something: those of programs and of the simulator's own pages, and of no other page."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from planasonix_provider.simulator.model.api_errors import ApiError

_HARMLESS = ("GET", "HEAD", "OPTIONS")


async def forbid_cross_site_requests(request: Request) -> None:
    """Refuse what a page of another site sends: whoever develops DAGs visits others too, in the same browser.

    A browser tells where a request comes from, in ``Sec-Fetch-Site`` or at least in ``Origin``; what tells neither is
    no browser.

    :param request: the request.
    :raises Refused: as ``forbidden``.
    """
    if request.method in _HARMLESS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        is_own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_own:
        raise ApiError("forbidden", "a page of another site may not steer the simulator")
