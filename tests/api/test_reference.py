"""The client and the reference agree on every route, and on every body that the reference shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.operations import Operations
from tests.support import api_reference
from tests.support.api_reference import Example
from tests.support.example_calls import EXAMPLE_CALLS, REQUESTS, ROUTE_BY_PATH, route_of, without_parameter_names


def test_the_client_has_the_seventeen_routes_of_the_reference() -> None:
    theirs = [(method, without_parameter_names(path)) for method, path in api_reference.routes()]
    assert len(theirs) == 17
    assert sorted(theirs) == sorted(ROUTE_BY_PATH)


def test_each_route_is_a_method_of_the_clients_and_has_an_example_call() -> None:
    methods = {name for name in vars(Operations) if not name.startswith("_")}
    assert methods == set(routes.SCOPE_BY_ROUTE) == set(EXAMPLE_CALLS)


def test_the_reference_shows_twenty_bodies() -> None:
    assert len(api_reference.examples()) == 20


@pytest.mark.parametrize("example", [one for one in api_reference.examples() if one.status], ids=str)
def test_a_response_of_the_reference_is_serialized_without_loss(example: Example) -> None:
    reply = REQUESTS[route_of(example)].envelope.parse(json.dumps(example.body).encode())
    assert reply.model_dump(mode="json", exclude_unset=True, context={"reveal": True}) == example.body


@pytest.mark.parametrize("example", [one for one in api_reference.examples() if not one.status], ids=str)
def test_a_request_body_of_the_reference_can_be_sent(example: Example) -> None:
    route = route_of(example)
    assert getattr(routes, route)(**REQUESTS[route].ids, **example.body).body == example.body


def read(name: str) -> Any:
    """Return the content of a route's example response."""
    (body,) = [one.body for one in api_reference.examples() if one.status and route_of(one) == name]
    return REQUESTS[name].envelope.parse(json.dumps(body).encode()).content


def test_a_job_has_typed_attributes() -> None:
    job = read("get_job")
    assert (job.id, job.status, job.type) == ("job_01jq8syncabc", "running", "connection_sync")
    assert (job.connection_id, job.pipeline_id) == ("conn_01jq8k2m3n4p5q6r7s8t9u0v1", "pl_01hqxyz")
    assert job.started_at == datetime(2025, 3, 27, 14, 22, 12, tzinfo=UTC)
    assert (job.finished_at, job.duration_seconds, job.error) == (None, None, None)
    assert (job.metrics.rows_extracted, job.metrics.rows_loaded, job.metrics.bytes_read) == (45210, 44802, 67108864)


def test_an_envelope_has_the_requested_object() -> None:
    assert read("trigger_sync").id == "job_01jq8syncabc"
    assert read("cancel_job").cancel_requested_at == datetime(2025, 3, 27, 14, 30, tzinfo=UTC)
    assert read("get_job_results").tables[0].rows_loaded == 44802
    assert read("get_job_results").warnings[0].code == "column_type_widened"
    assert read("list_jobs").cursor is None
    assert read("trigger_backfill").status == "running"
    assert read("get_backfill").job_ids == ["job_01jq8chunk01", "job_01jq8chunk02"]
    assert read("list_backfills").data[0].progress_percent == 37
    assert read("list_backfills").cursor == "eyJiZiI6ImJmXzAxanE4YmZpbGwwMSJ9"
    assert read("list_webhooks").data[0].events == ["job.succeeded", "job.failed", "backfill.completed"]
    assert read("get_webhook").failure_count_24h == 0
    assert [delivery.http_status for delivery in read("list_webhook_deliveries").data] == [200, 503]
    assert read("test_webhook").delivery_id == "whd_01jq8test01"


@pytest.mark.parametrize("name", ["create_webhook", "rotate_webhook_secret"])
def test_a_signing_secret_is_returned_but_not_shown(name: str) -> None:
    value = read(name)
    secret = value.signing_secret.get_secret_value()
    assert secret.startswith("whsec_01jq8")
    for shown in (repr(value), str(value), value.model_dump_json(), str(value.model_dump()), str(vars(value))):
        assert secret not in shown
    assert secret in value.model_dump_json(context={"reveal": True})
