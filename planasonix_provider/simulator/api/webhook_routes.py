"""The API's webhook routes, in the order of the reference."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from planasonix_provider.api.models import (
    DeliveryPage,
    NewWebhookEnvelope,
    PageInfo,
    PageMeta,
    RotatedSecretEnvelope,
    TestDeliveryEnvelope,
    WebhookEnvelope,
    WebhookPage,
)
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.responses import json_response, read_body
from planasonix_provider.simulator.model.paging import PageQuery
from planasonix_provider.simulator.webhooks.registry import Webhooks
from planasonix_provider.simulator.webhooks.subscriptions import (
    WebhookPatchRequestBody,
    WebhookRequestBody,
    WebhookTestRequestBody,
)

# The fields of each response in the API reference.
_LISTED = {"id", "url", "events", "enabled", "created_at"}
_CREATED = {*_LISTED, "signing_secret"}
_DETAILS = {*_LISTED, "last_delivery_at", "failure_count_24h"}
_UPDATED = {"id", "url", "events", "enabled", "updated_at"}
_DELIVERY = {"id", "event", "status", "http_status", "attempt", "last_error", "delivered_at"}


class WebhookRoutes:
    """Adds the routes below ``/api/v1/webhooks`` to a router."""

    def __init__(self, webhooks: Webhooks, router: APIRouter) -> None:
        self._webhooks = webhooks
        router.add_api_route("/webhooks", self.list_webhooks, methods=["GET"])
        router.add_api_route("/webhooks", self.create_webhook, methods=["POST"])
        router.add_api_route("/webhooks/{webhook_id}", self.get_webhook, methods=["GET"])
        router.add_api_route("/webhooks/{webhook_id}", self.update_webhook, methods=["PUT"])
        router.add_api_route("/webhooks/{webhook_id}", self.delete_webhook, methods=["DELETE"])
        router.add_api_route("/webhooks/{webhook_id}/rotate-secret", self.rotate_webhook_secret, methods=["POST"])
        router.add_api_route("/webhooks/{webhook_id}/test", self.test_webhook, methods=["POST"])
        router.add_api_route("/webhooks/{webhook_id}/deliveries", self.list_webhook_deliveries, methods=["GET"])

    async def list_webhooks(self, query: Annotated[PageQuery, Query()]) -> Response:
        """List subscriptions, newest first."""
        webhooks, end = self._webhooks.page(limit=query.limit, before=query.before)
        envelope = WebhookPage(data=list(webhooks), meta=_meta(query, end))
        return json_response(envelope, include={"data": {"__all__": _LISTED}, **_with_meta(query, end)})

    async def create_webhook(self, request: Request) -> Response:
        """Create a subscription, and return its secret."""
        body = await read_body(request, WebhookRequestBody)
        webhook = self._webhooks.create(body, idempotency_key=request.headers.get("idempotency-key"))
        return json_response(NewWebhookEnvelope(data=webhook), 201, include={"data": _CREATED}, reveal=True)

    async def get_webhook(self, webhook_id: PathId) -> Response:
        """Return a subscription."""
        return json_response(WebhookEnvelope(data=self._webhooks.get(webhook_id)), include={"data": _DETAILS})

    async def update_webhook(self, webhook_id: PathId, request: Request) -> Response:
        """Change a subscription."""
        body = await read_body(request, WebhookPatchRequestBody, optional=False)
        return json_response(WebhookEnvelope(data=self._webhooks.update(webhook_id, body)), include={"data": _UPDATED})

    async def delete_webhook(self, webhook_id: PathId) -> Response:
        """Delete a subscription."""
        self._webhooks.delete(webhook_id)
        return Response(status_code=204)

    async def rotate_webhook_secret(self, webhook_id: PathId) -> Response:
        """Create and return a new secret."""
        return json_response(RotatedSecretEnvelope(data=self._webhooks.rotate(webhook_id)), reveal=True)

    async def test_webhook(self, webhook_id: PathId, request: Request) -> Response:
        """Send a test event."""
        body = await read_body(request, WebhookTestRequestBody)
        return json_response(TestDeliveryEnvelope(data=self._webhooks.test(webhook_id, body)), 202)

    async def list_webhook_deliveries(self, webhook_id: PathId, query: Annotated[PageQuery, Query()]) -> Response:
        """List the deliveries of a subscription, newest first."""
        deliveries, end = self._webhooks.delivery_page(webhook_id, limit=query.limit, before=query.before)
        envelope = DeliveryPage(data=list(deliveries), meta=_meta(query, end))
        return json_response(envelope, include={"data": {"__all__": _DELIVERY}, **_with_meta(query, end)})


def _meta(query: PageQuery, end: int | None) -> PageMeta:
    return PageMeta(page=PageInfo(limit=query.limit, cursor=query.cursor_after(end)))


def _with_meta(query: PageQuery, end: int | None) -> dict[str, bool]:
    """Include ``meta`` only if there are several pages: lists of webhooks in the API reference have none."""
    return {"meta": True} if query.cursor is not None or end is not None else {}
