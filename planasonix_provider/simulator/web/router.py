"""The router of all pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Depends

from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.control.csrf import forbid_cross_site_requests
from planasonix_provider.simulator.web.control_page import ControlPage
from planasonix_provider.simulator.web.detail_pages import DetailPages
from planasonix_provider.simulator.web.list_pages import ListPages
from planasonix_provider.simulator.web.render import PageRoute, asset
from planasonix_provider.simulator.web.start_page import StartPage
from planasonix_provider.simulator.web.webhook_pages import WebhookPages


def web_router(pipeline: RequestPipeline, airflow_url: str | None = None) -> APIRouter:
    """Return the router. Pages require no key and are not logged as requests of the API."""
    if airflow_url is not None and not _is_http_url(airflow_url):
        raise ValueError(f"airflow_url: got {airflow_url!r}, allowed is an http or https URL.")
    router = APIRouter(
        route_class=PageRoute, redirect_slashes=False, dependencies=[Depends(forbid_cross_site_requests)]
    )
    ListPages(pipeline, router)
    DetailPages(pipeline, airflow_url, router)
    WebhookPages(pipeline.workspace.webhooks, router)
    StartPage(pipeline, router)
    ControlPage(pipeline, router)
    router.add_api_route("/assets/{name}", asset, methods=["GET"])
    return router


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
