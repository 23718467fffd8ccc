"""One valid call of each route, shared by all tests that go through the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args, get_type_hints

from planasonix_provider.api import routes
from planasonix_provider.api.models import Page
from planasonix_provider.api.request import Request
from tests.support.api_reference import Example


@dataclass(frozen=True)
class ExampleCall:
    """A valid call of a route.

    :param command: the command of the shell that calls the route; ids and ``{secret}`` are filled in.
    :param required: as few arguments as the route takes.
    :param optional: values for all other arguments, and unusual ones for the required arguments.
    """

    command: str
    required: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, Any] = field(default_factory=dict)


_START = {"priority": "low", "metadata": {"dag_id": "d", "größe": [1, None]}, "idempotency_key": "mine"}
_JOB = {"job_id": "job_1"}
_BACKFILL = {"backfill_id": "bf_1"}
_WEBHOOK = {"webhook_id": "wh_1"}

EXAMPLE_CALLS = {
    "trigger_sync": ExampleCall("sync {connection_id}", {"connection_id": "conn_1"}, {"pipeline_id": "pl_1", **_START}),
    "trigger_backfill": ExampleCall(
        "backfill {connection_id} --start-at 2025-01-01 --end-at 2025-01-02",
        {"connection_id": "conn_1", "start_at": "2025-01-01", "end_at": "2025-02-01"},
        {
            "connection_id": "conn_größe",
            "end_at": datetime(2025, 3, 1, tzinfo=timezone(timedelta(hours=9))),
            "tables": ["public.orders"],
            **_START,
        },
    ),
    "list_backfills": ExampleCall("backfills", {}, {"connection_id": "conn_1", "status": "running"}),
    "get_backfill": ExampleCall("backfill-status {backfill_id}", _BACKFILL),
    "list_jobs": ExampleCall(
        "jobs",
        {},
        {
            "connection_id": "conn_1",
            "pipeline_id": "pl_1",
            "type": "connection_sync",
            "status": "running",
            "since": "2025-01-01",
            "until": datetime(2025, 3, 1, tzinfo=UTC),
        },
    ),
    "get_job": ExampleCall("job {job_id}", _JOB),
    "get_job_results": ExampleCall("results {job_id}", _JOB),
    "cancel_job": ExampleCall("cancel {job_id}", _JOB),
    "list_webhooks": ExampleCall("webhooks list"),
    "create_webhook": ExampleCall(
        "webhooks create https://example.com --events job.failed --secret-to file:{secret}",
        {"url": "https://hooks.example.com/planasonix", "events": ["job.failed"]},
        {"secret": "whsec_0123456789"},
    ),
    "get_webhook": ExampleCall("webhooks get {webhook_id}", _WEBHOOK),
    "update_webhook": ExampleCall(
        "webhooks update {webhook_id} --enabled",
        {**_WEBHOOK, "enabled": False},
        {"url": "https://hooks.example.com/", "events": ["job.failed", "job.succeeded"]},
    ),
    "delete_webhook": ExampleCall("webhooks delete {webhook_id} --yes", _WEBHOOK),
    "rotate_webhook_secret": ExampleCall("webhooks rotate-secret {webhook_id} --secret-to file:{secret}", _WEBHOOK),
    "test_webhook": ExampleCall("webhooks test {webhook_id}", _WEBHOOK, {"event": "job.succeeded"}),
    "list_webhook_deliveries": ExampleCall("webhooks deliveries {webhook_id}", _WEBHOOK),
    "get_openapi": ExampleCall("openapi"),
}


def make_request(name: str, **arguments: Any) -> Request[Any]:
    """Return the request of a route, with some of the example's arguments replaced."""
    made: Request[Any] = getattr(routes, name)(**{**EXAMPLE_CALLS[name].required, **arguments})
    return made


def is_list(name: str) -> bool:
    return issubclass(_returned(name), Page)


def returned_model(name: str) -> type:
    """Return the type that a route's response is read into; for a list, the type of its items."""
    model: type = _returned(name).__pydantic_generic_metadata__["args"][0] if is_list(name) else _returned(name)
    return model


def _returned(name: str) -> Any:
    (model,) = get_args(get_type_hints(getattr(routes, name))["return"])
    return model


def without_parameter_names(path: str) -> str:
    """Return a path without the names of its parameters, which differ in the reference."""
    return re.sub(r"\{\w+\}", "{}", path)


#: The request of each route.
REQUESTS = {name: make_request(name) for name in EXAMPLE_CALLS}
#: The name of each route, by method and path.
ROUTE_BY_PATH = {(made.method, without_parameter_names(made.path)): name for name, made in REQUESTS.items()}


def route_of(example: Example) -> str:
    """Return the name of the route that an example of the reference belongs to."""
    return ROUTE_BY_PATH[example.method, without_parameter_names(example.path)]
