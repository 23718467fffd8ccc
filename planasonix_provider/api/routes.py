"""Every route of the Orchestration API once, as a function that makes a :class:`Request`. No I/O.

A function takes the reference's names as keywords and refuses what no server could accept. Who sends the request,
and whether it blocks, is no matter of this module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

from pydantic import BaseModel, SecretStr

from planasonix_provider.api.models import (
    Backfill,
    BackfillBody,
    BackfillPage,
    BackfillReply,
    BackfillStartReply,
    Delivery,
    DeliveryPage,
    Job,
    JobPage,
    JobReply,
    JobResults,
    JobResultsReply,
    NewWebhook,
    NewWebhookReply,
    NoContent,
    Page,
    PlainText,
    Priority,
    Reply,
    RotatedSecret,
    RotatedSecretReply,
    SyncBody,
    SyncReply,
    TestDelivery,
    TestDeliveryReply,
    Webhook,
    WebhookBody,
    WebhookChange,
    WebhookPage,
    WebhookReply,
    WebhookTestBody,
    as_utc,
)

T = TypeVar("T")

#: Where the routes live below the base URL.
PREFIX = "/api/v1"
#: The most that one page of a list holds.
PAGE_SIZE = 100
#: How many characters a webhook's secret has at least.
SHORTEST_SECRET = 16
#: The events that the reference names; the set is open.
KNOWN_EVENTS = frozenset({"job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"})

log = logging.getLogger(__name__)


class Repeat(Enum):
    """What repeating a request does, which decides what may be tried again."""

    SAFE = "safe"
    """A read, or a cancel: the second time changes nothing."""
    STARTS_WORK = "starts work"
    """A start: the second one may start the work twice, so it is repeated only where the first surely did nothing."""


@dataclass(frozen=True)
class Request(Generic[T]):
    """One call of the API, as a value.

    :param method: the HTTP method.
    :param path: the route as the reference writes it, below ``/api/v1``, with its parameters in braces.
    :param reply: the envelope of the answer.
    :param repeat: what repeating it does.
    :param ids: the values of the parameters in ``path``.
    :param query: the query parameters; ``None`` is left out.
    :param body: what is sent as JSON, or ``None`` for no body.
    :param idempotency_key: for a start, what makes a second delivery of it recognisable.
    :param at_most: for a list, how many items the caller wants in all; ``None`` is all.
    """

    method: str
    path: str
    reply: type[Reply[T]]
    repeat: Repeat = Repeat.SAFE
    ids: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    # In no repr: there may be a secret in it.
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    at_most: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.ids.items():
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name}: got {value!r}, allowed is a text that is not empty.")

    @property
    def url_path(self) -> str:
        """The path to ask for, each id percent-encoded as one segment."""
        return PREFIX + re.sub(r"\{(\w+)\}", lambda found: _segment(self.ids[found[1]]), self.path)

    @property
    def key(self) -> str:
        """What is equal for two requests that ask for the same."""
        return f"{self} {sorted((name, value) for name, value in self.query.items() if value is not None)}"

    def __str__(self) -> str:
        """The request as messages name it: method and path, without the query."""
        return f"{self.method} {self.url_path}"

    def after(self, cursor: str) -> Request[T]:
        """Ask for the page behind a cursor.

        :param cursor: what the page before this one named.
        :return: the same request, for the next page.
        """
        return replace(self, query={**self.query, "cursor": cursor})


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
    :raises ValueError: if ``connection_id`` is empty, or an argument is not what the reference allows.
    """
    body = SyncBody.model_validate(
        _given(
            pipeline_id=pipeline_id,
            priority=priority,
            metadata=None if metadata is None else dict(metadata),
        )
    )
    return _start("/connections/{connection_id}/sync", SyncReply, body, idempotency_key, connection_id=connection_id)


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
    :raises ValueError: if ``connection_id`` or ``tables`` is empty, the window is none, or an argument is not what the
        reference allows.
    """
    begin, end = _moment("start_at", start_at), _moment("end_at", end_at)
    if end <= begin:
        raise ValueError(f"end_at: got {end_at!r}, allowed is a time after start_at ({start_at!r}).")
    if tables is not None and (isinstance(tables, str) or not tables):
        raise ValueError(f"tables: got {tables!r}, allowed is a list of table names, or None for all tables.")
    body = BackfillBody.model_validate(
        _given(
            start_at=begin,
            end_at=end,
            tables=None if tables is None else list(tables),
            priority=priority,
            metadata=None if metadata is None else dict(metadata),
        )
    )
    return _start(
        "/connections/{connection_id}/backfill", BackfillStartReply, body, idempotency_key, connection_id=connection_id
    )


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
    :raises ValueError: if ``limit`` is no positive number.
    """
    return Request(
        "GET",
        "/backfills",
        BackfillPage,
        query={"connection_id": connection_id, "status": status, "limit": _page_size(limit)},
        at_most=limit,
    )


def get_backfill(backfill_id: str) -> Request[Backfill]:
    """Get a backfill's state and progress (reference: "Get backfill status").

    :param backfill_id: the backfill.
    :return: the request; its answer is the backfill.
    """
    return Request("GET", "/backfills/{backfill_id}", BackfillReply, ids={"backfill_id": backfill_id})


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
    :raises ValueError: if ``limit`` is no positive number, or a bound no time.
    """
    return Request(
        "GET",
        "/jobs",
        JobPage,
        query={
            "connection_id": connection_id,
            "pipeline_id": pipeline_id,
            "type": type,
            "status": status,
            "since": _timestamp("since", since),
            "until": _timestamp("until", until),
            "limit": _page_size(limit),
        },
        at_most=limit,
    )


def get_job(job_id: str) -> Request[Job]:
    """Get a job's state and details (reference: "Get job status and details").

    :param job_id: the job.
    :return: the request; its answer is the job.
    """
    return Request("GET", "/jobs/{job_id}", JobReply, ids={"job_id": job_id})


def get_job_results(job_id: str) -> Request[JobResults]:
    """Get what a job loaded (reference: "Get job results"). While it runs, the API answers 409 or with a stub.

    :param job_id: the job.
    :return: the request; its answer is the job's results.
    """
    return Request("GET", "/jobs/{job_id}/results", JobResultsReply, ids={"job_id": job_id})


def cancel_job(job_id: str) -> Request[Job]:
    """Cancel a job (reference: "Cancel a running job"). A job that is over stays as it is, and that is no error.

    :param job_id: the job.
    :return: the request; its answer is the job's state.
    """
    return Request("POST", "/jobs/{job_id}/cancel", JobReply, ids={"job_id": job_id})


def list_webhooks(*, limit: int | None = None) -> Request[Page[Webhook]]:
    """List the webhook subscriptions (reference: "List webhook subscriptions").

    :param limit: how many to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is no positive number.
    """
    _page_size(limit)
    return Request("GET", "/webhooks", WebhookPage, at_most=limit)


def create_webhook(url: str, *, events: Sequence[str], secret: SecretStr | str | None = None) -> Request[NewWebhook]:
    """Subscribe a URL to events (reference: "Create webhook subscription").

    :param url: where deliveries go: https, or http to this very machine.
    :param events: the events, as ``job.succeeded``. The set is open: one that this version does not know is a warning.
    :param secret: what deliveries are signed with, of 16 characters at least; ``None`` lets the server make one.
    :return: the request; its answer is the subscription, and the only one that holds its secret.
    :raises ValueError: if the URL is no such one, there are no events, or the secret is too short.
    """
    plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if plain is not None and len(plain) < SHORTEST_SECRET:
        raise ValueError(f"secret: got {len(plain)} characters, allowed are {SHORTEST_SECRET} at least, or None.")
    body = WebhookBody.model_validate(_given(url=_webhook_url(url), events=_events(events), secret=plain))
    return _start("/webhooks", NewWebhookReply, body, None)


def get_webhook(webhook_id: str) -> Request[Webhook]:
    """Get a webhook subscription (reference: "Get webhook details"), without its secret.

    :param webhook_id: the subscription.
    :return: the request; its answer is the subscription.
    """
    return Request("GET", "/webhooks/{webhook_id}", WebhookReply, ids={"webhook_id": webhook_id})


def update_webhook(
    webhook_id: str, *, url: str | None = None, events: Sequence[str] | None = None, enabled: bool | None = None
) -> Request[Webhook]:
    """Change a webhook subscription (reference: "Update webhook").

    :param webhook_id: the subscription.
    :param url: where deliveries go from now on; ``None`` leaves it.
    :param events: the events from now on; ``None`` leaves them.
    :param enabled: whether anything is delivered; ``None`` leaves it.
    :return: the request; its answer is the subscription.
    :raises ValueError: if nothing is to change, the URL is not allowed, or there are no events.
    """
    changes = _given(
        url=None if url is None else _webhook_url(url),
        events=None if events is None else _events(events),
        enabled=enabled,
    )
    if not changes:
        raise ValueError("url, events, enabled: got None, allowed is one of them at least.")
    body = WebhookChange.model_validate(changes)
    return Request(
        "PUT",
        "/webhooks/{webhook_id}",
        WebhookReply,
        ids={"webhook_id": webhook_id},
        body=body.model_dump(mode="json", exclude_unset=True),
    )


def delete_webhook(webhook_id: str) -> Request[None]:
    """Delete a webhook subscription (reference: "Delete webhook").

    :param webhook_id: the subscription.
    :return: the request; its answer holds nothing.
    """
    return Request("DELETE", "/webhooks/{webhook_id}", NoContent, ids={"webhook_id": webhook_id})


def rotate_webhook_secret(webhook_id: str) -> Request[RotatedSecret]:
    """Get a new signing secret (reference: "Rotate signing secret"). Each call makes another one.

    :param webhook_id: the subscription.
    :return: the request; its answer is the only one that holds the secret.
    """
    return _start("/webhooks/{webhook_id}/rotate-secret", RotatedSecretReply, None, None, webhook_id=webhook_id)


def test_webhook(webhook_id: str, *, event: str | None = None) -> Request[TestDelivery]:  # noqa: PT028 - no test
    """Send a test event (reference: "Send test event").

    :param webhook_id: the subscription.
    :param event: which event, as ``job.succeeded``; ``None`` leaves it to the server.
    :return: the request; its answer is the delivery.
    """
    body = WebhookTestBody.model_validate(_given(event=event))
    return _start("/webhooks/{webhook_id}/test", TestDeliveryReply, body, None, webhook_id=webhook_id)


def list_webhook_deliveries(webhook_id: str, *, limit: int | None = None) -> Request[Page[Delivery]]:
    """List what was sent to a webhook subscription (reference: "List delivery history").

    :param webhook_id: the subscription.
    :param limit: how many to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is no positive number.
    """
    _page_size(limit)
    return Request(
        "GET", "/webhooks/{webhook_id}/deliveries", DeliveryPage, ids={"webhook_id": webhook_id}, at_most=limit
    )


def get_openapi() -> Request[str]:
    """Get the API's own description (reference: "OpenAPI specification").

    :return: the request; its answer is the document, as YAML.
    """
    return Request("GET", "/openapi.yaml", PlainText)


def _webhook_url(url: str) -> str:
    """Refuse a URL that would send signed events over an open wire."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    is_here = parts is not None and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts is None or not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_here)):
        raise ValueError(f"url: got {url!r}, allowed is an https URL, or an http one of this very machine.")
    return url


def _events(events: Sequence[str]) -> list[str]:
    names = [] if isinstance(events, str) else list(events)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"events: got {events!r}, allowed is a list of events, as ['job.succeeded'].")
    if unknown := sorted(set(names) - KNOWN_EVENTS):
        log.warning("events: this version does not know %s; known are %s.", unknown, sorted(KNOWN_EVENTS))
    return names


def _start(path: str, reply: type[Reply[T]], body: BaseModel | None, key: str | None, **ids: str) -> Request[T]:
    """Ask for what is not to be done twice."""
    return Request(
        "POST",
        path,
        reply,
        repeat=Repeat.STARTS_WORK,
        ids=ids,
        body=None if body is None else body.model_dump(mode="json", exclude_unset=True),
        idempotency_key=key or str(uuid4()),
    )


def _segment(text: str) -> str:
    """Encode an id so that no server can read it as more, or other, than one segment of the path."""
    # Dots need no encoding, but "." and ".." would be resolved as steps in the path.
    return quote(text, safe="") if text.strip(".") else "%2E" * len(text)


def _given(**fields: Any) -> dict[str, Any]:
    """Leave out what was not given: a server may take a null for more than nothing."""
    return {name: value for name, value in fields.items() if value is not None}


def _page_size(limit: int | None) -> int:
    """Choose the pages of a list by how many items are wanted in all."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit: got {limit!r}, allowed is a number from 1, or None for all.")
    return min(limit or PAGE_SIZE, PAGE_SIZE)


def _moment(name: str, given: datetime | str) -> datetime:
    try:
        return as_utc(given if isinstance(given, datetime) else datetime.fromisoformat(given))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: got {given!r}, allowed is an ISO 8601 time.") from None


def _timestamp(name: str, given: datetime | str | None) -> str | None:
    """Write a time as the reference does, in UTC."""
    return None if given is None else _moment(name, given).isoformat().replace("+00:00", "Z")
