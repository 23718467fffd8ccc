"""Every route of the Orchestration API once, as a function that makes a :class:`Request`. No I/O.

A function takes the reference's names as keywords and refuses, by name, what no server could accept. Who sends the
request, and whether it blocks, is no matter of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
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
    :return: the decorator, which returns the function unchanged.
    """

    def register(function: RouteT) -> RouteT:
        SCOPE_BY_ROUTE[function.__name__] = scope
        return function

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

    :param connection_id: Planasonix's connection.
    :param pipeline_id: the pipeline to run, or ``None`` for the connection's own.
    :param priority: ``low``, ``normal`` or ``high``; ``None`` leaves it to the server.
    :param metadata: what the run history is to show and filter by, as a JSON object.
    :param idempotency_key: names this start, so that a server can tell a second delivery of it from a second start;
        ``None`` makes one up.
    :return: the request; its answer is the job that was started.
    :raises ValueError: if an argument is none that a server could accept.
    """
    given = {"pipeline_id": pipeline_id, "priority": priority, "metadata": metadata}
    body = _body(SyncBody, **validation.start_parameters_of("sync", given))
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
    """Start a historical load over a window of time (reference: "Trigger a backfill").

    :param connection_id: Planasonix's connection.
    :param start_at: where the window begins; a time without an offset is UTC.
    :param end_at: where the window ends; a time without an offset is UTC.
    :param tables: the tables to load; ``None`` is all of them.
    :param priority: ``low``, ``normal`` or ``high``; ``None`` leaves it to the server.
    :param metadata: what the run history is to show and filter by, as a JSON object.
    :param idempotency_key: names this start, so that a server can tell a second delivery of it from a second start;
        ``None`` makes one up.
    :return: the request; its answer is the backfill that was started.
    :raises ValueError: if the window is none, or an argument is none that a server could accept.
    """
    begin, end = validators.window(start_at, end_at)
    given = {"start_at": begin, "end_at": end, "tables": tables, "priority": priority, "metadata": metadata}
    body = _body(BackfillBody, **validation.start_parameters_of("backfill", given))
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
    :param limit: how many backfills to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if a filter is empty or no text, or ``limit`` is no number from 1.
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
    :return: the request; its answer is the backfill.
    :raises ValueError: if that can be no id.
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
    :param type: only jobs of this type, as ``connection_sync``.
    :param status: only jobs in this state.
    :param since: only jobs created at this time or later; a time without an offset is UTC.
    :param until: only jobs created at this time or earlier; a time without an offset is UTC.
    :param limit: how many jobs to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if a filter is empty or no text, a bound no time, ``since`` after ``until``, or ``limit`` no
        number from 1.
    """
    begin, end = validation.optional_utc("since", since), validation.optional_utc("until", until)
    if begin and end and end < begin:
        raise invalid_parameter("until", until, f"a time that is not before since ({since!r})")
    return Request(
        "GET",
        "/jobs",
        JobPage,
        query={
            "connection_id": validation.optional_id("connection_id", connection_id),
            "pipeline_id": validation.optional_id("pipeline_id", pipeline_id),
            "type": validation.optional_word("type", type),
            "status": validation.optional_word("status", status),
            "since": validation.timestamp(begin),
            "until": validation.timestamp(end),
            "limit": validation.page_size(limit),
        },
        max_items=limit,
    )


@route(scope="jobs:read")
def get_job(job_id: str) -> Request[Job]:
    """Get a job's state and details (reference: "Get job status and details").

    :param job_id: the job.
    :return: the request; its answer is the job.
    :raises ValueError: if that can be no id.
    """
    return Request("GET", "/jobs/{job_id}", JobEnvelope, ids={"job_id": job_id})


@route(scope="jobs:read")
def get_job_results(job_id: str) -> Request[JobResults]:
    """Get what a job loaded (reference: "Get job results"). While it runs, the API answers 409 or with a stub.

    :param job_id: the job.
    :return: the request; its answer is the job's results.
    :raises ValueError: if that can be no id.
    """
    return Request("GET", "/jobs/{job_id}/results", JobResultsEnvelope, ids={"job_id": job_id})


@route(scope="jobs:write")
def cancel_job(job_id: str) -> Request[Job]:
    """Cancel a job (reference: "Cancel a running job"). A job that is over stays as it is, and that is no error.

    :param job_id: the job.
    :return: the request; its answer is the job's state.
    :raises ValueError: if that can be no id.
    """
    return Request("POST", "/jobs/{job_id}/cancel", JobEnvelope, ids={"job_id": job_id})


@route(scope="webhooks:read")
def list_webhooks(*, limit: int | None = None) -> Request[Page[Webhook]]:
    """List the webhook subscriptions (reference: "List webhook subscriptions").

    :param limit: how many to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is no number from 1.
    """
    validation.page_size(limit)
    return Request("GET", "/webhooks", WebhookPage, max_items=limit)


@route(scope="webhooks:write")
def create_webhook(url: str, *, events: Sequence[str], secret: SecretStr | str | None = None) -> Request[NewWebhook]:
    """Subscribe a URL to events (reference: "Create webhook subscription").

    :param url: where deliveries go: https, or http to this very machine.
    :param events: the events, as ``job.succeeded``. The set is open: one that this version does not know is a warning.
    :param secret: what deliveries are signed with, of 16 characters at least; ``None`` lets the server make one. No
        error shows it.
    :return: the request; its answer is the subscription, and the only one that holds its secret.
    :raises ValueError: if the URL is no such one, there are no events, or the secret is too short.
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
    :return: the request; its answer is the subscription.
    :raises ValueError: if that can be no id.
    """
    return Request("GET", "/webhooks/{webhook_id}", WebhookEnvelope, ids={"webhook_id": webhook_id})


@route(scope="webhooks:write")
def update_webhook(
    webhook_id: str, *, url: str | None = None, events: Sequence[str] | None = None, enabled: bool | None = None
) -> Request[Webhook]:
    """Change a webhook subscription (reference: "Update webhook").

    :param webhook_id: the subscription.
    :param url: where deliveries go from now on; ``None`` leaves it.
    :param events: the events from now on; ``None`` leaves them.
    :param enabled: whether anything is delivered; ``None`` leaves it.
    :return: the request; its answer is the subscription.
    :raises ValueError: if nothing is to change, the URL is not allowed, there are no events, or ``webhook_id`` can be
        no id.
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
    :return: the request; its answer holds nothing.
    :raises ValueError: if that can be no id.
    """
    return Request("DELETE", "/webhooks/{webhook_id}", NoContent, ids={"webhook_id": webhook_id})


@route(scope="webhooks:write")
def rotate_webhook_secret(webhook_id: str) -> Request[RotatedSecret]:
    """Get a new signing secret (reference: "Rotate signing secret"). Each call makes another one.

    :param webhook_id: the subscription.
    :return: the request; its answer is the only one that holds the secret.
    :raises ValueError: if that can be no id.
    """
    return _start("/webhooks/{webhook_id}/rotate-secret", RotatedSecretEnvelope, None, None, webhook_id=webhook_id)


@route(scope="webhooks:write")
def test_webhook(webhook_id: str, *, event: str | None = None) -> Request[TestDelivery]:  # noqa: PT028 - no test
    """Send a test event (reference: "Send test event").

    :param webhook_id: the subscription.
    :param event: which event, as ``job.succeeded``; ``None`` leaves it to the server. The set is open: one that this
        version does not know is a warning.
    :return: the request; its answer is the delivery.
    :raises ValueError: if ``event`` is empty or no text, or ``webhook_id`` can be no id.
    """
    body = _body(WebhookTestBody, event=validation.optional_event("event", event))
    return _start("/webhooks/{webhook_id}/test", TestDeliveryEnvelope, body, None, webhook_id=webhook_id)


@route(scope="webhooks:read")
def list_webhook_deliveries(webhook_id: str, *, limit: int | None = None) -> Request[Page[Delivery]]:
    """List what was sent to a webhook subscription (reference: "List delivery history").

    :param webhook_id: the subscription.
    :param limit: how many to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is no number from 1, or ``webhook_id`` can be no id.
    """
    validation.page_size(limit)
    return Request(
        "GET", "/webhooks/{webhook_id}/deliveries", DeliveryPage, ids={"webhook_id": webhook_id}, max_items=limit
    )


@route(scope=None)
def get_openapi() -> Request[str]:
    """Get the API's own description (reference: "OpenAPI specification").

    :return: the request; its answer is the document, as YAML.
    """
    return Request("GET", "/openapi.yaml", PlainText)


def _start(path: str, reply: type[Envelope[T]], body: Mapping[str, Any] | None, key: Any, **ids: str) -> Request[T]:
    """Ask for what is not to be done twice."""
    if key is not None and not (isinstance(key, str) and re.fullmatch(r"[!-~]+", key)):
        raise invalid_parameter("idempotency_key", key, "ASCII text without white space, or None")
    return Request(
        "POST",
        path,
        reply,
        idempotency=Idempotency.NOT_IDEMPOTENT,
        ids=ids,
        body=body,
        idempotency_key=key or str(uuid4()),
    )


def _body(model: type[BaseModel], **fields: Any) -> dict[str, Any]:
    """Write a body, without what was not given: a server may take a null for more than nothing."""
    given = {name: value for name, value in fields.items() if value is not None}
    return model.model_validate(given).model_dump(mode="json", exclude_unset=True)
