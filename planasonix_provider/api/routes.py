"""Every route of the Orchestration API once, as a function that makes a :class:`Request`. No I/O.

A function takes the reference's names as keywords and refuses, by name, what no server could accept. Who sends the
request, and whether it blocks, is no matter of this module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from ipaddress import ip_address
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticSerializationError, to_json

from planasonix_provider import parameters
from planasonix_provider.api.events import warn_of_unknown
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
)
from planasonix_provider.parameters import refusal

T = TypeVar("T")

#: Where the routes live below the base URL.
PREFIX = "/api/v1"
#: The most that one page of a list holds.
PAGE_SIZE = 100
#: How many characters a webhook's secret has at least.
SHORTEST_SECRET = 16


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
            parameters.identifier(name, value)

    @property
    def url_path(self) -> str:
        """The path to ask for, each id percent-encoded as one segment."""
        return PREFIX + re.sub(r"\{(\w+)\}", lambda found: quote(self.ids[found[1]], safe=""), self.path)

    @property
    def can_wait(self) -> bool:
        """Whether nothing is lost if it is sent later: a start and a cancel are wanted now."""
        return self.method == "GET"

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
    :raises ValueError: if an argument is none that a server could accept.
    """
    body = _body(
        SyncBody,
        pipeline_id=_optional_id("pipeline_id", pipeline_id),
        priority=_optional_priority("priority", priority),
        metadata=_optional_metadata("metadata", metadata),
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
    :raises ValueError: if the window is none, or an argument is none that a server could accept.
    """
    begin, end = parameters.utc("start_at", start_at), parameters.utc("end_at", end_at)
    if end <= begin:
        raise refusal("end_at", end_at, f"a time after start_at ({start_at!r})")
    body = _body(
        BackfillBody,
        start_at=begin,
        end_at=end,
        tables=_optional_tables("tables", tables),
        priority=_optional_priority("priority", priority),
        metadata=_optional_metadata("metadata", metadata),
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
    :raises ValueError: if a filter is empty or no text, or ``limit`` is no number from 1.
    """
    return Request(
        "GET",
        "/backfills",
        BackfillPage,
        query={
            "connection_id": _optional_id("connection_id", connection_id),
            "status": _optional_word("status", status),
            "limit": _page_size(limit),
        },
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
    :raises ValueError: if a filter is empty or no text, a bound no time, ``since`` after ``until``, or ``limit`` no
        number from 1.
    """
    begin, end = _optional_utc("since", since), _optional_utc("until", until)
    if begin and end and end < begin:
        raise refusal("until", until, f"a time that is not before since ({since!r})")
    return Request(
        "GET",
        "/jobs",
        JobPage,
        query={
            "connection_id": _optional_id("connection_id", connection_id),
            "pipeline_id": _optional_id("pipeline_id", pipeline_id),
            "type": _optional_word("type", type),
            "status": _optional_word("status", status),
            "since": _timestamp(begin),
            "until": _timestamp(end),
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
    :raises ValueError: if ``limit`` is no number from 1.
    """
    _page_size(limit)
    return Request("GET", "/webhooks", WebhookPage, at_most=limit)


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
        WebhookBody, url=_webhook_url("url", url), events=_events("events", events), secret=_webhook_secret(secret)
    )
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
    body = _body(
        WebhookChange,
        url=_optional_url("url", url),
        events=_optional_events("events", events),
        enabled=_optional_flag("enabled", enabled),
    )
    if not body:
        raise ValueError("url, events, enabled: got None, allowed is one of them at least.")
    return Request("PUT", "/webhooks/{webhook_id}", WebhookReply, ids={"webhook_id": webhook_id}, body=body)


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
    :param event: which event, as ``job.succeeded``; ``None`` leaves it to the server. The set is open: one that this
        version does not know is a warning.
    :return: the request; its answer is the delivery.
    :raises ValueError: if ``event`` is empty or no text.
    """
    body = _body(WebhookTestBody, event=_optional_event("event", event))
    return _start("/webhooks/{webhook_id}/test", TestDeliveryReply, body, None, webhook_id=webhook_id)


def list_webhook_deliveries(webhook_id: str, *, limit: int | None = None) -> Request[Page[Delivery]]:
    """List what was sent to a webhook subscription (reference: "List delivery history").

    :param webhook_id: the subscription.
    :param limit: how many to give in all; ``None`` gives all.
    :return: the request for the first page.
    :raises ValueError: if ``limit`` is no number from 1.
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


def _webhook_url(name: str, value: Any) -> str:
    """Refuse a URL that would send signed events over an open wire."""
    allowed = "an https URL, or an http one of this very machine, in ASCII characters without blanks"
    try:
        parts = urlsplit(value)
        is_url = re.fullmatch(r"[!-~]+", value) and parts.hostname and parts.port != 0
        is_safe = value.startswith("https://") or (value.startswith("http://") and _is_here(parts.hostname))
    except (AttributeError, TypeError, ValueError):
        is_url = is_safe = False
    if not is_url or not is_safe:
        raise refusal(name, _without_secrets(value), allowed)
    return str(value)


def _without_secrets(url: Any) -> Any:
    """Show of a URL what stands before its path: who knows the rest may often send there."""
    if not isinstance(url, str):
        return type(url)
    scheme, user, host, rest = re.findall(r"(?s)^([^/?#]*//)?([^/?#]*@)?([^/?#]*)(.*)$", url)[0]
    return f"{scheme}{'***@' if user else ''}{host}{'/…' if rest else ''}"


def _is_here(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _webhook_secret(secret: Any) -> str | None:
    plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if plain is None:
        return None
    if not isinstance(plain, str):
        raise ValueError(f"secret: got a {type(plain).__name__}, allowed is a text, or None.")
    if len(plain) < SHORTEST_SECRET:
        raise ValueError(f"secret: got {len(plain)} characters, allowed are {SHORTEST_SECRET} at least, or None.")
    # Whoever checks signatures would have to have the very same white space, which nobody sees.
    if not plain.isprintable() or plain != plain.strip():
        raise ValueError(
            "secret: got one with white space around it or a control character in it, as the line break at a file's "
            "end, allowed is a text without."
        )
    return plain


def _word(name: str, value: Any) -> str:
    """Refuse what names nothing: as a filter it would be left out, or find nothing."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise refusal(name, value, "a text that is not empty, without control characters")
    return value


def _event(name: str, value: Any) -> str:
    warn_of_unknown(name, {_word(name, value)})
    return str(value)


def _events(name: str, value: Any) -> list[str]:
    is_some = isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)) and value
    if not is_some or not all(isinstance(event, str) and event.strip() and event.isprintable() for event in value):
        raise refusal(name, value, "a list of events, as ['job.succeeded']")
    warn_of_unknown(name, set(value))
    return list(value)


def _written(check: parameters.Check) -> parameters.Check:
    """Make a check that refuses as well what is fine for Python and cannot be written."""

    def checked(name: str, value: Any) -> Any:
        try:
            checked_value = check(name, value)
            to_json(checked_value)
        except (RecursionError, PydanticSerializationError):
            raise ValueError(
                f"{name}: got what is nested too deep, or holds half a character (a lone surrogate), allowed is what "
                "JSON can hold."
            ) from None
        return checked_value

    return parameters.optional(checked)


def _start(path: str, reply: type[Reply[T]], body: Mapping[str, Any] | None, key: Any, **ids: str) -> Request[T]:
    """Ask for what is not to be done twice."""
    if key is not None and not (isinstance(key, str) and re.fullmatch(r"[!-~]+", key)):
        raise refusal("idempotency_key", key, "ASCII text without white space, or None")
    return Request(
        "POST",
        path,
        reply,
        repeat=Repeat.STARTS_WORK,
        ids=ids,
        body=body,
        idempotency_key=key or str(uuid4()),
    )


def _body(model: type[BaseModel], **fields: Any) -> dict[str, Any]:
    """Write a body, without what was not given: a server may take a null for more than nothing."""
    given = {name: value for name, value in fields.items() if value is not None}
    return model.model_validate(given).model_dump(mode="json", exclude_unset=True)


def _page_size(limit: Any) -> int:
    """Choose the pages of a list by how many items are wanted in all."""
    if limit is None:
        return PAGE_SIZE
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise refusal("limit", limit, "a whole number from 1, or None for all")
    return min(limit, PAGE_SIZE)


def _timestamp(moment: datetime | None) -> str | None:
    """Write a time as the reference does, in UTC."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


_optional_id = parameters.optional(parameters.identifier)
_optional_url = parameters.optional(_webhook_url)
_optional_event = parameters.optional(_event)
_optional_events = parameters.optional(_events)
_optional_flag = parameters.optional(parameters.flag)
_optional_word = parameters.optional(_word)
_optional_utc = parameters.optional(parameters.utc)
_optional_tables = _written(parameters.tables)
_optional_metadata = _written(parameters.metadata)
_optional_priority = parameters.optional(parameters.priority)
