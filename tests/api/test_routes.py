from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import Client
from planasonix_provider.api.errors import PlanasonixNotFoundError
from planasonix_provider.api.request import Idempotency, Request
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import account
from tests.support.raw_server import STARTED, Peer

#: Every route with an id in its path, with what stands before and behind the id.
WITH_ID: dict[str, tuple[Callable[[str], Request[Any]], str, str]] = {
    "connection_id": (routes.trigger_sync, "/api/v1/connections/", "/sync"),
    "connection_id of a backfill": (
        lambda given: routes.trigger_backfill(given, start_at="2025-01-01", end_at="2025-02-01"),
        "/api/v1/connections/",
        "/backfill",
    ),
    "webhook_id": (routes.get_webhook, "/api/v1/webhooks/", ""),
    "webhook_id of deliveries": (routes.list_webhook_deliveries, "/api/v1/webhooks/", "/deliveries"),
    "backfill_id": (routes.get_backfill, "/api/v1/backfills/", ""),
    "job_id": (routes.get_job, "/api/v1/jobs/", ""),
    "job_id of results": (routes.get_job_results, "/api/v1/jobs/", "/results"),
    "job_id of a cancel": (routes.cancel_job, "/api/v1/jobs/", "/cancel"),
}
#: Ids that are odd, and ids all the same, with how they stand in a path.
ODD = {
    "job.1": "job.1",
    "a..b": "a..b",
    "größe": "gr%C3%B6%C3%9Fe",
    "ジョブ": "%E3%82%B8%E3%83%A7%E3%83%96",
    "b;c:d@e&f=g+h": "b%3Bc%3Ad%40e%26f%3Dg%2Bh",
    '"<>{}|^`': "%22%3C%3E%7B%7D%7C%5E%60",
}
IDS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\?#%"), min_size=1).filter(
    lambda text: text.strip(".") and text != "None"
)


@pytest.fixture
def client(server: Simulator) -> Iterator[Client]:
    with Client(account(server.url)) as client:
        yield client


@pytest.mark.parametrize(("given", "segment"), ODD.items())
@pytest.mark.parametrize(("route", "before", "behind"), WITH_ID.values(), ids=WITH_ID)
def test_an_id_is_one_segment_of_the_path(
    route: Callable[[str], Request[Any]], before: str, behind: str, given: str, segment: str
) -> None:
    assert route(given).url_path == f"{before}{segment}{behind}"


@given(IDS)
def test_any_id_is_one_segment_and_comes_back(text: str) -> None:
    for route, before, behind in WITH_ID.values():
        path = urlsplit(route(text).url_path).path
        assert path.count("/") == (before + behind).count("/")
        segment = path.removeprefix(before).removesuffix(behind)
        assert unquote(segment) == text
        assert segment not in {".", ".."}


@pytest.mark.parametrize(("given", "segment"), ODD.items())
def test_a_server_sees_an_id_as_one_segment(server: Simulator, client: Client, given: str, segment: str) -> None:
    with pytest.raises(PlanasonixNotFoundError, match="no job"):
        client.get_job(given)
    with pytest.raises(PlanasonixNotFoundError, match="no job"):
        client.cancel_job(given)
    server.workspace.add_connection(given)
    started = client.trigger_sync(given)
    assert started.connection_id == given
    assert [(seen.method, seen.path) for seen in server.requests[-3:]] == [
        ("GET", f"/api/v1/jobs/{segment}"),
        ("POST", f"/api/v1/jobs/{segment}/cancel"),
        ("POST", f"/api/v1/connections/{segment}/sync"),
    ]


def test_a_route_names_itself_by_method_and_path() -> None:
    assert str(routes.trigger_sync("conn_1", metadata={"a": "b"})) == "POST /api/v1/connections/conn_1/sync"
    assert str(routes.list_jobs(status="running")) == "GET /api/v1/jobs"


def test_a_start_sends_what_was_given_and_nothing_else() -> None:
    assert routes.trigger_sync("conn_1").body == {}
    full = routes.trigger_sync("conn_1", pipeline_id="pl_1", priority="low", metadata={"dag_id": "d", "n": 1})
    assert full.body == {"pipeline_id": "pl_1", "priority": "low", "metadata": {"dag_id": "d", "n": 1}}


def test_a_backfill_sends_its_window_in_utc_and_nothing_that_was_not_given() -> None:
    plain = routes.trigger_backfill("conn_1", start_at="2025-01-01", end_at=datetime(2025, 3, 1, tzinfo=UTC))
    assert plain.body == {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
    full = routes.trigger_backfill(
        "conn_1",
        start_at="2025-01-01T01:00:00+01:00",
        end_at="2025-03-01T00:00:00",
        tables=("public.orders", "public.order_items"),
        priority="low",
        metadata={"reason": "post_incident_replay"},
    )
    assert full.body == {
        **plain.body,
        "tables": ["public.orders", "public.order_items"],
        "priority": "low",
        "metadata": {"reason": "post_incident_replay"},
    }


def test_backfills_are_listed_by_connection_and_status() -> None:
    request = routes.list_backfills(connection_id="conn_1", status="running", limit=7)
    assert (request.path, request.max_items) == ("/backfills", 7)
    assert request.query == {"connection_id": "conn_1", "status": "running", "limit": 7}


def test_two_requests_for_the_same_have_one_key() -> None:
    assert routes.list_jobs(status="running").key == routes.list_jobs(status="running", pipeline_id=None).key
    assert routes.list_jobs(status="running").key != routes.list_jobs(status="queued").key
    assert routes.get_job("job_1").key != routes.get_job_results("job_1").key


class TestAWebhook:
    HOOK = "https://hooks.example.com/planasonix"

    @pytest.mark.parametrize(
        "url",
        [
            HOOK,
            "https://localhost/",
            "http://127.0.0.1:8080/hook",
            "http://127.0.0.9",
            "http://localhost/hook",
            "http://[::1]/hook",
        ],
    )
    def test_goes_to_https_or_to_this_very_machine(self, url: str) -> None:
        body = routes.create_webhook(url, events=["job.failed"]).body
        assert body == {"url": url, "events": ["job.failed"]}

    def test_has_a_secret_that_is_shown_nowhere(self) -> None:
        secret = "whsec_0123456789"
        for either in (secret, SecretStr(secret)):
            request = routes.create_webhook(self.HOOK, events=["job.failed"], secret=either)
            assert (request.body or {})["secret"] == secret
            assert secret not in repr(request)
            assert secret not in str(request)

    def test_is_changed_only_where_something_is_given(self) -> None:
        assert routes.update_webhook("wh_1", enabled=False).body == {"enabled": False}

    def test_is_not_created_rotated_or_tested_twice_by_a_blind_repeat(self) -> None:
        once = [
            routes.create_webhook(self.HOOK, events=["job.failed"]),
            routes.rotate_webhook_secret("wh_1"),
            routes.test_webhook("wh_1"),
        ]
        assert {request.idempotency for request in once} == {Idempotency.NOT_IDEMPOTENT}
        again: list[Request[Any]] = [
            routes.get_webhook("wh_1"),
            routes.update_webhook("wh_1", enabled=True),
            routes.delete_webhook("wh_1"),
            routes.list_webhooks(),
            routes.list_webhook_deliveries("wh_1"),
            routes.get_openapi(),
        ]
        assert {request.idempotency for request in again} == {Idempotency.SAFE}


@pytest.mark.parametrize(
    "start", [routes.trigger_sync, partial(routes.trigger_backfill, start_at="2025-01-01", end_at="2025-02-01")]
)
def test_every_start_has_an_idempotency_key_of_its_own(start: Callable[..., Request[Any]]) -> None:
    first, second = start("conn_1"), start("conn_1")
    assert first.idempotency_key
    assert second.idempotency_key
    assert first.idempotency_key != second.idempotency_key
    assert start("conn_1", idempotency_key="mine").idempotency_key == "mine"


def test_a_server_sees_the_idempotency_key_and_the_body(peer: Peer) -> None:
    body = {"pipeline_id": "pl_1", "priority": "high", "metadata": {"a": 1}}
    with Client(account(peer.does(STARTED).url)) as client:
        client.trigger_sync("conn_1", **body, idempotency_key="mine")
        client.trigger_sync("conn_1")
    first, second = peer.seen
    assert (first.headers["idempotency-key"], json.loads(first.body)) == ("mine", body)
    assert second.headers["idempotency-key"] not in {"", "mine"}


def test_only_a_start_is_unsafe_to_repeat_and_only_a_start_has_a_key() -> None:
    safe: list[Request[Any]] = [
        routes.list_backfills(),
        routes.get_backfill("b"),
        routes.list_jobs(),
        routes.get_job("j"),
        routes.get_job_results("j"),
        routes.cancel_job("j"),
    ]
    assert {request.idempotency for request in safe} == {Idempotency.SAFE}
    assert {request.idempotency_key for request in safe} == {None}
    backfill = routes.trigger_backfill("c", start_at="2025-01-01", end_at="2025-02-01")
    for start in (routes.trigger_sync("c"), backfill):
        assert start.idempotency is Idempotency.NOT_IDEMPOTENT
        assert start.idempotency_key


@pytest.mark.parametrize(
    "listed",
    [routes.list_backfills, routes.list_jobs, routes.list_webhooks, partial(routes.list_webhook_deliveries, "wh_1")],
)
def test_every_list_knows_how_many_things_are_wanted_in_all(listed: Callable[..., Request[Any]]) -> None:
    assert (listed().max_items, listed(limit=7).max_items) == (None, 7)


@pytest.mark.parametrize(("limit", "page"), [(None, 100), (1, 1), (99, 99), (100, 100), (101, 100), (5000, 100)])
def test_a_list_asks_for_no_larger_page_than_is_wanted_or_allowed(limit: int | None, page: int) -> None:
    request = routes.list_jobs(limit=limit)
    assert (request.query["limit"], request.max_items) == (page, limit)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC), "2025-03-27T14:22:10Z"),
        (datetime(2025, 3, 27, 16, 22, 10, tzinfo=timezone(timedelta(hours=2))), "2025-03-27T14:22:10Z"),
        (datetime(2025, 3, 27, 14, 22, 10), "2025-03-27T14:22:10Z"),  # noqa: DTZ001
        (datetime(2025, 3, 27, 14, 22, 10, 500000, tzinfo=UTC), "2025-03-27T14:22:10.500000Z"),
        ("2025-03-27T14:22:10Z", "2025-03-27T14:22:10Z"),
        ("2025-03-27T16:22:10+02:00", "2025-03-27T14:22:10Z"),
        ("2025-03-27 14:22:10", "2025-03-27T14:22:10Z"),
        ("2025-03-27", "2025-03-27T00:00:00Z"),
        (None, None),
    ],
)
@pytest.mark.parametrize("bound", ["since", "until"])
def test_a_bound_goes_out_in_utc(bound: str, given: datetime | str | None, sent: str | None) -> None:
    assert routes.list_jobs(**{bound: given}).query[bound] == sent  # type: ignore[arg-type]


def test_a_server_sees_only_the_filters_that_were_given(server: Simulator, client: Client) -> None:
    moment = datetime(2025, 3, 27, 14, 22, 10, tzinfo=timezone(timedelta(hours=-5)))
    list(client.list_jobs(connection_id="a&b", status="running", type="connection_sync", since=moment, until=moment))
    query = "connection_id=a%26b&type=connection_sync&status=running"
    query += "&since=2025-03-27T19%3A22%3A10Z&until=2025-03-27T19%3A22%3A10Z&limit=100"
    assert unquote(server.requests[-1].query) == unquote(query)
    assert server.requests[-1].query.startswith("connection_id=a%26b&")
    list(client.list_jobs(pipeline_id="pl_1"))
    assert server.requests[-1].query == "pipeline_id=pl_1&limit=100"


def test_the_next_page_is_the_same_request_with_a_cursor() -> None:
    first = routes.list_jobs(status="running", limit=7)
    after = first.next_page("c1")
    assert after.query == {**first.query, "cursor": "c1"}
    assert (after.max_items, after.path) == (7, "/jobs")
    assert "cursor" not in first.query
