"""The API's webhook routes, in the order of the reference."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Request, Response

from planasonix_provider.api.models import (
    DeliveryPage,
    NewWebhookEnvelope,
    RotatedSecretEnvelope,
    TestDeliveryEnvelope,
    WebhookEnvelope,
    WebhookPage,
)
from planasonix_provider.api.request import PREFIX
from planasonix_provider.simulator.api.middleware import PathId
from planasonix_provider.simulator.api.pipeline import AppWorkspace, PipelineRoute
from planasonix_provider.simulator.api.responses import json_response, page_meta, read_body
from planasonix_provider.simulator.model.paging import PageQuery
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


_PageQuery: TypeAlias = Annotated[PageQuery, Query()]

router = APIRouter(prefix=f"{PREFIX}/webhooks", route_class=PipelineRoute, redirect_slashes=False)


@router.get("")
async def list_webhooks(query: _PageQuery, workspace: AppWorkspace) -> Response:
    webhooks, end = workspace.webhooks.page(limit=query.limit, before=query.before)
    envelope = WebhookPage(data=list(webhooks), meta=page_meta(query, end))
    return json_response(envelope, include={"data": {"__all__": _LISTED}, **_with_meta(query, end)})


@router.post("")
async def create_webhook(request: Request, workspace: AppWorkspace) -> Response:
    body = await read_body(request, WebhookRequestBody)
    webhook = workspace.webhooks.create(body, idempotency_key=request.headers.get("idempotency-key"))
    return json_response(NewWebhookEnvelope(data=webhook), 201, include={"data": _CREATED}, reveal=True)


@router.get("/{webhook_id}")
async def get_webhook(webhook_id: PathId, workspace: AppWorkspace) -> Response:
    return json_response(WebhookEnvelope(data=workspace.webhooks.get(webhook_id)), include={"data": _DETAILS})


@router.put("/{webhook_id}")
async def update_webhook(webhook_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    body = await read_body(request, WebhookPatchRequestBody, optional=False)
    return json_response(WebhookEnvelope(data=workspace.webhooks.update(webhook_id, body)), include={"data": _UPDATED})


@router.delete("/{webhook_id}")
async def delete_webhook(webhook_id: PathId, workspace: AppWorkspace) -> Response:
    workspace.webhooks.delete(webhook_id)
    return Response(status_code=204)


@router.post("/{webhook_id}/rotate-secret")
async def rotate_webhook_secret(webhook_id: PathId, workspace: AppWorkspace) -> Response:
    return json_response(RotatedSecretEnvelope(data=workspace.webhooks.rotate(webhook_id)), reveal=True)


@router.post("/{webhook_id}/test")
async def test_webhook(webhook_id: PathId, request: Request, workspace: AppWorkspace) -> Response:
    body = await read_body(request, WebhookTestRequestBody)
    return json_response(TestDeliveryEnvelope(data=workspace.webhooks.test(webhook_id, body)), 202)


@router.get("/{webhook_id}/deliveries")
async def list_webhook_deliveries(webhook_id: PathId, query: _PageQuery, workspace: AppWorkspace) -> Response:
    deliveries, end = workspace.webhooks.delivery_page(webhook_id, limit=query.limit, before=query.before)
    envelope = DeliveryPage(data=list(deliveries), meta=page_meta(query, end))
    return json_response(envelope, include={"data": {"__all__": _DELIVERY}, **_with_meta(query, end)})


def _with_meta(query: PageQuery, end: int | None) -> dict[str, bool]:
    """Include ``meta`` only if there are several pages: lists of webhooks in the API reference have none."""
    return {"meta": True} if query.cursor is not None or end is not None else {}
