"""The pages of webhook subscriptions and their deliveries."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.model.paging import PageQuery
from planasonix_provider.simulator.web.filters import next_page_query, read_filter
from planasonix_provider.simulator.web.render import page, path_segment, redirect
from planasonix_provider.simulator.webhooks.registry import Webhooks


class WebhookPages:
    """Adds the pages of the webhooks to a router. They contain no signing secret."""

    def __init__(self, webhooks: Webhooks, router: APIRouter) -> None:
        self._webhooks = webhooks
        router.add_api_route("/webhooks", self.subscriptions, methods=["GET"])
        router.add_api_route("/webhooks/{webhook_id}", self.subscription, methods=["GET"])
        router.add_api_route("/webhooks/{webhook_id}/test", self.test, methods=["POST"])

    async def subscriptions(self, request: Request) -> Response:
        """List subscriptions, newest first."""
        filters = read_filter(PageQuery, request.query_params)
        webhooks, end = self._webhooks.page(limit=filters.limit, before=filters.before)
        return page(
            "webhooks", webhooks=webhooks, older=next_page_query(filters, end), is_newest=filters.cursor is None
        )

    async def subscription(self, webhook_id: PathId, request: Request) -> Response:
        """Show a subscription and its deliveries, newest first."""
        filters = read_filter(PageQuery, request.query_params)
        deliveries, end = self._webhooks.delivery_page(webhook_id, limit=filters.limit, before=filters.before)
        webhook = self._webhooks.get(webhook_id)
        return page(
            "webhook",
            webhook=webhook,
            deliveries=deliveries,
            older=next_page_query(filters, end),
            is_newest=filters.cursor is None,
        )

    async def test(self, webhook_id: PathId) -> Response:
        """Send a test event."""
        self._webhooks.test(webhook_id)
        return redirect(f"/webhooks/{path_segment(webhook_id)}")
