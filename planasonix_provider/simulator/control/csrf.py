"""Protection against requests that pages of other sites send (CSRF)."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from planasonix_provider.simulator.model.api_errors import ApiError

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


async def forbid_cross_site_requests(request: Request) -> None:
    """Reject a changing request of another site's page, which may be open in the same browser.

    Browsers send the origin in ``Sec-Fetch-Site`` or at least in ``Origin``; a client that sends neither is no browser.
    """
    if request.method in _SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_same_site = site in ("same-origin", "none")
    else:
        is_same_site = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_same_site:
        raise ApiError("forbidden", "a page of another site must not change the simulator")
