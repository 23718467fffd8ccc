"""The routes of the Orchestration API: each is a function that returns a :class:`Request`. No I/O.

A function takes the reference's parameters, and raises ``ValueError`` with the name of an invalid one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import uuid4

from pydantic import BaseModel, SecretStr

from planasonix_provider import validators
from planasonix_provider.api import validation
from planasonix_provider.api.models import (
    Backfill,
    BackfillBody,
    BackfillEnvelope,
    BackfillPage,
    BackfillStartEnvelope,
    Delivery,
    DeliveryPage,
    Envelope,
    Job,
    JobEnvelope,
    JobPage,
    JobResults,
    JobResultsEnvelope,
    NewWebhook,
    NewWebhookEnvelope,
    NoContent,
    Page,
    PlainText,
    Priority,
    RotatedSecret,
    RotatedSecretEnvelope,
    SyncBody,
    SyncEnvelope,
    TestDelivery,
    TestDeliveryEnvelope,
    Webhook,
    WebhookBody,
    WebhookEnvelope,
    WebhookPage,
    WebhookPatchBody,
    WebhookTestBody,
)
from planasonix_provider.api.request import Idempotency as Idempotency
from planasonix_provider.api.request import Request as Request
from planasonix_provider.validators import invalid_parameter

T = TypeVar("T")
RouteT = TypeVar("RouteT", bound=Callable[..., Request[Any]])

#: Every route, by the name of its function, with the scope that an API key needs for it; ``None`` if any key will do.
SCOPE_BY_ROUTE: dict[str, str | None] = {}


def route(*, scope: str | None) -> Callable[[RouteT], RouteT]:
    """Register a function as a route.

    :param scope: the scope that an API key needs for it; ``None`` if any key will do.
    :return: the decorator; the requests of the decorated function have its name.
    """

    def register(function: RouteT) -> RouteT:
        name = function.__name__
        SCOPE_BY_ROUTE[name] = scope

        @wraps(function)
        def named(*args: Any, **kwargs: Any) -> Request[Any]:
            return replace(function(*args, **kwargs), route=name)

        return cast("RouteT", named)

    return register


@route(scope="jobs:write")
def trigger_sync(
    connection_id: str,
    *,
    pipeline_id: str | None = None,
    priority: Priority | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Request[Job]:
    """Start an incremental sync (reference: "Trigger a sync job").

    :param connection_id: the connection in Planasonix.
    :param pipeline_id: the pipeline to run; default: the connection's own.
    :param priority: ``low``, ``normal`` or ``high``; default: the server's choice.
    :param metadata: a JSON object that the run history shows and filters by.
    :param idempotency_key: identifies this start, so that the server can recognize a repeated request; default: a new
        key.
    :return: the request; its response contains the started job.
    :raises ValueError: if an argument is invalid.
    """
    given = {"pipeline_id": pipeline_id, "priority": priority, "metadata": metadata}
    body = _body(SyncBody, **validation.validated_start("sync", given))
    return _start("/connections/{connection_id}/sync", SyncEnvelope, body, idempotency_key, connection_id=connection_id)


@route(scope="jobs:write")
def trigger_backfill(
    connection_id: str,
    *,
    start_at: datetime | str,
    end_at: datetime | str,
    tables: Sequence[str] | None = None,
    priority: Priority | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Request[Backfill]:
    """Start a historical load of a window of time (reference: "Trigger a backfill").

    :param connection_id: the connection in Planasonix.
    :param start_at: the start of the window; a time without an offset is UTC.
    :param end_at: the end of the window; a time without an offset is UTC.
    :param tables: the tables to load; default: all.
    :param priority: ``low``, ``normal`` or ``high``; default: the server's choice.
    :param metadata: a JSON object that the run history shows and filters by.
    :param idempotency_key: identifies this start, so that the server can recognize a repeated request; default: a new
        key.
    :return: the request; its response contains the started backfill.
    :raises ValueError: if the window does not end after it starts, or an argument is invalid.
    """
    begin, end = validators.window(start_at, end_at)
    given = {"start_at": begin, "end_at": end, "tables": tables, "priority": priority, "metadata": metadata}
    body = _body(BackfillBody, **validation.validated_start("backfill", given))
    return _start(
        "/connections/{connection_id}/backfill",
        BackfillStartEnvelope,
        body,
        idempotency_key,
        connection_id=connection_id,
    )


@route(scope="jobs:read")
def list_backfills(
    *,
    connection_id: str | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> Request[Page[Backfill]]:
    """List backfills (reference: "List all backfills").

    :param connection_id: only backfills of this connection.
    :param status: only backfills in this state.
    :param limit: the maximum number of backfills; default: all.
    :return: the request for the first page.
    :raises ValueError: if an argument is invalid.
    """
    return Request(
        "GET",
        "/backfills",
        BackfillPage,
        query={
            "connection_id": validation.optional_id("connection_id", connection_id),
            "status": validation.optional_word("status", status),
            "limit": validation.page_size(limit),
        },
        max_items=limit,
    )


@route(scope="jobs:read")
def get_backfill(backfill_id: str) -> Request[Backfill]:
    """Get a backfill's state and progress (reference: "Get backfill status").

    :param backfill_id: the backfill.
    :return: the request; its response contains the backfill.
    :raises ValueError: if the id is invalid.
    """
    return Request("GET", "/backfills/{backfill_id}", BackfillEnvelope, ids={"backfill_id": backfill_id})


@route(scope="jobs:read")
def list_jobs(
    *,
    connection_id: str | None = None,
    pipeline_id: str | None = None,
    type: str | None = None,  # noqa: A002 - the reference's name
    status: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Request[Page[Job]]:
    """List jobs (reference: "List jobs").

    :param connection_id: only jobs of this connection.
    :param pipeline_id: only jobs of this pipeline.
    :param type: only jobs of this type, for example ``connection_sync``.
    :param status: only jobs in this state.
    :param since: only jobs created at this time or later; a time without an offset is UTC.
    :param until: only jobs created at this time or earlier; a time without an offset is UTC.
    :param limit: the maximum number of jobs; default: all.
    :return: the request for the first page.
    :raises ValueError: if an argument is invalid, or ``until`` is before ``since``.
    """
    begin, end = validation.optional_utc("since", since), validation.optional_utc("until", until)
    if begin and end and end < begin:
        raise invalid_parameter(
            "until",
            validators.format_utc(end),
            f"a time that is not before since, which is {validators.format_utc(begin)}",
        )
    return Request(
        "GET",
        "/jobs",
        JobPage,
        query={
            "connection_id": validation.optional_id("connection_id", connection_id),
            "pipeline_id": validation.optional_id("pipeline_id", pipeline_id),
            "type": validation.optional_word("type", type),
            "status": validation.optional_word("status", status),
            "since": begin and validators.format_utc(begin),
            "until": end and validators.format_utc(end),
            "limit": validation.page_size(limit),
        },
        max_items=limit,
    )


@route(scope="jobs:read")
def get_job(job_id: str) -> Request[Job]:
    """Get a job's state and details (reference: "Get job status and details").

    :param job_id: the job.
    :return: the request; its response contains the job.
    :raises ValueError: if the id is invalid.
    """
    return Request("GET", "/jobs/{job_id}", JobEnvelope, ids={"job_id": job_id})


@route(scope="jobs:read")
def get_job_results(job_id: str) -> Request[JobResults]:
    """Get what a job loaded (reference: "Get job results"). While the job runs, the API responds with 409 or a stub.

    :param job_id: the job.
    :return: the request; its response contains the results.
    :raises ValueError: if the id is invalid.
    """
    return Request("GET", "/jobs/{job_id}/results", JobResultsEnvelope, ids={"job_id": job_id})


@route(scope="jobs:write")
def cancel_job(job_id: str) -> Request[Job]:
    """Cancel a job (reference: "Cancel a running job"). Cancelling a finished job does nothing.

    :param job_id: the job.
    :return: the request; its response contains the job's state.
    :raises ValueError: if the id is invalid.
    """
    return Request("POST", "/jobs/{job_id}/cancel", JobEnvelope, ids={"job_id": job_id})


@route(scope="webhooks:read")
def list_webhooks(*, limit: int | None = None) -> Request[Page[Webhook]]:
    """List the webhook subscriptions (reference: "List webhook subscriptions").

    :param limit: the maximum number of items; default: all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is invalid.
    """
    validation.page_size(limit)
    return Request("GET", "/webhooks", WebhookPage, max_items=limit)


@route(scope="webhooks:write")
def create_webhook(url: str, *, events: Sequence[str], secret: SecretStr | str | None = None) -> Request[NewWebhook]:
    """Subscribe a URL to events (reference: "Create webhook subscription").

    :param url: the URL that deliveries go to: https, or http to this machine.
    :param events: the events, for example ``job.succeeded``. An event that this version does not know logs a warning.
    :param secret: signs the deliveries; at least 16 characters; default: the server creates one. No error shows it.
    :return: the request; its response contains the subscription, and as the only one its secret.
    :raises ValueError: if an argument is invalid.
    """
    body = _body(
        WebhookBody,
        url=validators.webhook_url("url", url),
        events=validation.events("events", events),
        secret=validation.webhook_secret(secret),
    )
    return _start("/webhooks", NewWebhookEnvelope, body, None)


@route(scope="webhooks:read")
def get_webhook(webhook_id: str) -> Request[Webhook]:
    """Get a webhook subscription (reference: "Get webhook details"), without its secret.

    :param webhook_id: the subscription.
    :return: the request; its response contains the subscription.
    :raises ValueError: if the id is invalid.
    """
    return Request("GET", "/webhooks/{webhook_id}", WebhookEnvelope, ids={"webhook_id": webhook_id})


@route(scope="webhooks:write")
def update_webhook(
    webhook_id: str, *, url: str | None = None, events: Sequence[str] | None = None, enabled: bool | None = None
) -> Request[Webhook]:
    """Change a webhook subscription (reference: "Update webhook").

    :param webhook_id: the subscription.
    :param url: the new URL.
    :param events: the new events.
    :param enabled: whether events are delivered.
    :return: the request; its response contains the subscription.
    :raises ValueError: if an argument is invalid, or nothing changes.
    """
    body = _body(
        WebhookPatchBody,
        url=validation.optional_url("url", url),
        events=validation.optional_events("events", events),
        enabled=validation.optional_flag("enabled", enabled),
    )
    if not body:
        raise ValueError("url, events, enabled: got None, allowed is one of them at least.")
    return Request("PUT", "/webhooks/{webhook_id}", WebhookEnvelope, ids={"webhook_id": webhook_id}, body=body)


@route(scope="webhooks:write")
def delete_webhook(webhook_id: str) -> Request[None]:
    """Delete a webhook subscription (reference: "Delete webhook").

    :param webhook_id: the subscription.
    :return: the request; its response is empty.
    :raises ValueError: if the id is invalid.
    """
    return Request("DELETE", "/webhooks/{webhook_id}", NoContent, ids={"webhook_id": webhook_id})


@route(scope="webhooks:write")
def rotate_webhook_secret(webhook_id: str) -> Request[RotatedSecret]:
    """Get a new signing secret (reference: "Rotate signing secret"). Each call creates another one.

    :param webhook_id: the subscription.
    :return: the request; only its response contains the secret.
    :raises ValueError: if the id is invalid.
    """
    return _start("/webhooks/{webhook_id}/rotate-secret", RotatedSecretEnvelope, None, None, webhook_id=webhook_id)


@route(scope="webhooks:write")
def test_webhook(webhook_id: str, *, event: str | None = None) -> Request[TestDelivery]:  # noqa: PT028 - no test
    """Send a test event (reference: "Send test event").

    :param webhook_id: the subscription.
    :param event: the event, for example ``job.succeeded``; default: the server's choice. An event that this
        version does not know logs a warning.
    :return: the request; its response contains the delivery.
    :raises ValueError: if an argument is invalid.
    """
    body = _body(WebhookTestBody, event=validation.optional_event("event", event))
    return _start("/webhooks/{webhook_id}/test", TestDeliveryEnvelope, body, None, webhook_id=webhook_id)


@route(scope="webhooks:read")
def list_webhook_deliveries(webhook_id: str, *, limit: int | None = None) -> Request[Page[Delivery]]:
    """List the deliveries to a webhook subscription (reference: "List delivery history").

    :param webhook_id: the subscription.
    :param limit: the maximum number of items; default: all.
    :return: the request for the first page.
    :raises ValueError: if an argument is invalid.
    """
    validation.page_size(limit)
    return Request(
        "GET", "/webhooks/{webhook_id}/deliveries", DeliveryPage, ids={"webhook_id": webhook_id}, max_items=limit
    )


@route(scope=None)
def get_openapi() -> Request[str]:
    """Get the API's OpenAPI document (reference: "OpenAPI specification").

    :return: the request; its response contains the document as YAML.
    """
    return Request("GET", "/openapi.yaml", PlainText)


def _start(path: str, envelope: type[Envelope[T]], body: Mapping[str, Any] | None, key: Any, **ids: str) -> Request[T]:
    """Return a request that must not be repeated blindly."""
    if key is not None and not (isinstance(key, str) and re.fullmatch(r"[!-~]+", key)):
        raise invalid_parameter("idempotency_key", key, "ASCII text without white space, or None")
    return Request(
        "POST",
        path,
        envelope,
        idempotency=Idempotency.NOT_IDEMPOTENT,
        ids=ids,
        body=body,
        idempotency_key=key or str(uuid4()),
    )


def _body(model: type[BaseModel], **fields: Any) -> dict[str, Any]:
    """Return a JSON body without missing fields, because a null may mean something to the server."""
    present = {name: value for name, value in fields.items() if value is not None}
    return model.model_validate(present).model_dump(mode="json", exclude_unset=True)
