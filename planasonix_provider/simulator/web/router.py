"""All pages, on one router."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Depends

from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.csrf import forbid_cross_site_requests
from planasonix_provider.simulator.web.control_page import ControlPage
from planasonix_provider.simulator.web.detail_pages import DetailPages
from planasonix_provider.simulator.web.list_pages import ListPages
from planasonix_provider.simulator.web.render import PageRoute, asset
from planasonix_provider.simulator.web.start_page import StartPage
from planasonix_provider.simulator.web.webhook_pages import WebhookPages


def web_router(gate: RequestPipeline, airflow_url: str | None = None) -> APIRouter:
    """Make all pages. They take no key, and are no requests of the API.

    :param gate: what they show and steer.
    :param airflow_url: where the pages of Airflow 3 are, for links to the tasks that started things; by default there
        are none.
    :return: their router.
    :raises ValueError: if the address is not one of web pages.
    """
    if airflow_url is not None and not _is_web(airflow_url):
        raise ValueError(f"airflow_url: got {airflow_url!r}, allowed is an http or https URL.")
    router = APIRouter(
        route_class=PageRoute, redirect_slashes=False, dependencies=[Depends(forbid_cross_site_requests)]
    )
    ListPages(gate.workspace, router)
    DetailPages(gate, airflow_url, router)
    WebhookPages(gate.workspace.webhooks, router)
    StartPage(gate, router)
    ControlPage(gate, router)
    router.add_api_route("/assets/{name}", asset, methods=["GET"])
    return router


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
