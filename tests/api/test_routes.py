from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import Client
from planasonix_provider.api.errors import PlanasonixNotFoundError
from planasonix_provider.api.request import PREFIX, Idempotency
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import make_config
from tests.support.example_calls import REQUESTS, is_list, make_request
from tests.support.raw_server import STARTED, RawServer

#: The routes with an id in their path.
WITH_ID = [name for name, request in REQUESTS.items() if request.ids]
#: The routes whose requests must not be repeated blindly.
STARTS = {"trigger_sync", "trigger_backfill", "create_webhook", "rotate_webhook_secret", "test_webhook"}
#: Unusual but valid ids, and how a path contains them.
ODD_IDS = {
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
    with Client(make_config(server.url)) as client:
        yield client


def path_with_id(route: str, value: str) -> tuple[str, str]:
    """Return the path for an id, and the path with its parameter in braces."""
    (parameter,) = REQUESTS[route].ids
    return make_request(route, **{parameter: value}).url_path, PREFIX + REQUESTS[route].path


@pytest.mark.parametrize(("given", "segment"), ODD_IDS.items())
@pytest.mark.parametrize("route", WITH_ID)
def test_an_id_is_one_segment_of_the_path(route: str, given: str, segment: str) -> None:
    path, template = path_with_id(route, given)
    assert path == re.sub(r"\{\w+\}", lambda _: segment, template)


@pytest.mark.heavy
@given(IDS)
def test_any_id_can_be_decoded_from_its_segment(text: str) -> None:
    for route in WITH_ID:
        path, template = path_with_id(route, text)
        assert path.count("/") == template.count("/")
        before, _, behind = re.split(r"(\{\w+\})", template)
        segment = urlsplit(path).path.removeprefix(before).removesuffix(behind)
        assert unquote(segment) == text
        assert segment not in {".", ".."}


@pytest.mark.parametrize(("given", "segment"), ODD_IDS.items())
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


def test_the_text_of_a_request_is_its_method_and_path() -> None:
    assert str(routes.trigger_sync("conn_1", metadata={"a": "b"})) == "POST /api/v1/connections/conn_1/sync"
    assert str(routes.list_jobs(status="running")) == "GET /api/v1/jobs"


def test_a_start_sends_only_the_given_fields() -> None:
    assert routes.trigger_sync("conn_1").body == {}
    full = routes.trigger_sync("conn_1", pipeline_id="pl_1", priority="low", metadata={"dag_id": "d", "n": 1})
    assert full.body == {"pipeline_id": "pl_1", "priority": "low", "metadata": {"dag_id": "d", "n": 1}}


def test_a_backfill_sends_its_window_in_utc_and_only_the_given_fields() -> None:
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


def test_equal_requests_have_the_same_key() -> None:
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
    def test_has_a_url_with_https_or_of_this_machine(self, url: str) -> None:
        body = routes.create_webhook(url, events=["job.failed"]).body
        assert body == {"url": url, "events": ["job.failed"]}

    def test_does_not_show_its_secret(self) -> None:
        secret = "whsec_0123456789"
        for either in (secret, SecretStr(secret)):
            request = routes.create_webhook(self.HOOK, events=["job.failed"], secret=either)
            assert (request.body or {})["secret"] == secret
            assert secret not in repr(request)
            assert secret not in str(request)

    def test_update_sends_only_the_given_fields(self) -> None:
        assert routes.update_webhook("wh_1", enabled=False).body == {"enabled": False}


@pytest.mark.parametrize("route", REQUESTS)
def test_only_starts_are_not_idempotent_and_have_a_key(route: str) -> None:
    is_start = route in STARTS
    assert REQUESTS[route].idempotency is (Idempotency.NOT_IDEMPOTENT if is_start else Idempotency.SAFE)
    assert bool(REQUESTS[route].idempotency_key) is is_start


@pytest.mark.parametrize("route", ["trigger_sync", "trigger_backfill"])
def test_every_start_has_its_own_idempotency_key(route: str) -> None:
    assert make_request(route).idempotency_key != make_request(route).idempotency_key
    assert make_request(route, idempotency_key="mine").idempotency_key == "mine"


def test_a_server_sees_the_idempotency_key_and_the_body(raw_server: RawServer) -> None:
    body = {"pipeline_id": "pl_1", "priority": "high", "metadata": {"a": 1}}
    with Client(make_config(raw_server.respond_with(STARTED).url)) as client:
        client.trigger_sync("conn_1", **body, idempotency_key="mine")
        client.trigger_sync("conn_1")
    first, second = raw_server.requests
    assert (first.headers["idempotency-key"], json.loads(first.body)) == ("mine", body)
    assert second.headers["idempotency-key"] not in {"", "mine"}


@pytest.mark.parametrize("route", [route for route in REQUESTS if is_list(route)])
def test_a_list_has_the_maximum_number_of_items(route: str) -> None:
    assert (REQUESTS[route].max_items, make_request(route, limit=7).max_items) == (None, 7)


@pytest.mark.parametrize(("limit", "page"), [(None, 100), (1, 1), (99, 99), (100, 100), (101, 100), (5000, 100)])
def test_the_page_size_is_at_most_the_limit_and_the_maximum(limit: int | None, page: int) -> None:
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
def test_a_bound_is_sent_in_utc(bound: str, given: datetime | str | None, sent: str | None) -> None:
    assert routes.list_jobs(**{bound: given}).query[bound] == sent  # type: ignore[arg-type]


def test_a_server_sees_only_the_given_filters(server: Simulator, client: Client) -> None:
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
