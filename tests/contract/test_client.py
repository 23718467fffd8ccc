"""The client sends only requests that the OpenAPI document allows, and can send everything in the document.

``HYPOTHESIS_EXAMPLES=100 pytest tests/contract/test_client.py`` tries a hundred times as many requests as usual.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from planasonix_provider.api import routes, validation
from planasonix_provider.api.client import AsyncClient, Client, ClientConfig
from planasonix_provider.api.event_types import KNOWN_EVENTS
from planasonix_provider.api.models import Priority
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.validators import utc
from tests.api.test_models import JSON
from tests.api.test_routes import IDS
from tests.support.document_server import DocumentServer
from tests.support.example_calls import EXAMPLE_CALLS

TIMES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "1"))
KEY = "plnx_test_c0ffee1234"
ROUTES = sorted(EXAMPLE_CALLS)

WORDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
MOMENTS = st.datetimes(
    datetime.fromisoformat("1001-01-01"),
    datetime.fromisoformat("8999-01-01"),
    timezones=st.none() | st.just(UTC) | st.timezones(),
)
HOSTS = st.sampled_from(
    ["https://hooks.example.com", "https://127.0.0.1:8443", "http://localhost:8080", "http://[::1]"]
)
ENDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)).map("/".__add__)
SECRETS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=validation.MIN_SECRET_LENGTH)
TABLES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
#: Values that types cannot describe: ids, URLs and states are all texts.
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("connection_id", "pipeline_id", "backfill_id", "job_id", "webhook_id"), IDS),
    "url": st.builds(str.__add__, HOSTS, ENDS),
    "secret": SECRETS | SECRETS.map(SecretStr),
    "idempotency_key": st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    "events": st.lists(st.sampled_from(sorted(KNOWN_EVENTS)) | WORDS, min_size=1),
    "tables": st.lists(TABLES, min_size=1, unique=True) | st.lists(TABLES, min_size=1, unique=True).map(tuple),
    "metadata": st.dictionaries(st.text(), JSON, max_size=4),
    "limit": st.integers(3, 2**40),
}
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: WORDS,
    bool: st.booleans(),
    datetime: MOMENTS | MOMENTS.map(datetime.isoformat),
    **{priority: st.just(priority) for priority in typing.get_args(Priority)},
}


def values(parameter: inspect.Parameter) -> st.SearchStrategy[Any]:
    """Return all values of an argument except ``None``."""
    if parameter.name in BY_NAME:
        return BY_NAME[parameter.name]
    kinds = set(typing.get_args(parameter.annotation) or [parameter.annotation]) - {type(None)}
    kinds = {one for kind in kinds for one in (typing.get_args(kind) or [kind])}
    # A time may be given as text, but random texts are no times.
    return st.one_of(*(BY_TYPE[kind] for kind in sorted(kinds - {str} if datetime in kinds else kinds, key=str)))


@st.composite
def arguments(draw: st.DrawFn, name: str, *, whole: bool = False) -> dict[str, Any]:
    """Arguments of a route, with some or all of the optional ones."""
    drawn = {}
    for parameter in inspect.signature(getattr(routes, name), eval_str=True).parameters.values():
        is_needed = parameter.default is parameter.empty
        if whole or is_needed or draw(st.booleans()):
            drawn[parameter.name] = draw(values(parameter) if whole or is_needed else values(parameter) | st.none())
    for first, last in (("start_at", "end_at"), ("since", "until")):
        if drawn.get(first) is not None and drawn.get(last) is not None:
            drawn[first], drawn[last] = sorted((drawn[first], drawn[last]), key=lambda moment: utc("moment", moment))
    if name == "trigger_backfill" and utc("start_at", drawn["start_at"]) == utc("end_at", drawn["end_at"]):
        drawn["end_at"] = datetime(9000, 1, 1, tzinfo=UTC)
    if name == "update_webhook" and all(drawn.get(field) is None for field in ("url", "events", "enabled")):
        drawn["enabled"] = draw(st.booleans())
    return drawn


class Caller:
    """Calls the API in one of the three ways, over persistent connections."""

    def __init__(self, way: str, url: str) -> None:
        self.way = way
        self.runner = asyncio.Runner()
        account = ClientConfig(api_key=SecretStr(KEY), base_url=url, organization_id="org_1")
        self.client: Any = {
            "blocking": lambda: Client(account, NO_RETRY),
            "awaited": lambda: AsyncClient(account, NO_RETRY),
            "hook": lambda: PlanasonixHook("planasonix_document"),
        }[way]()

    def call(self, name: str, given: dict[str, Any]) -> Any:
        """Call a method; read a list to its end."""
        method = getattr(self.client, name)
        if self.way == "awaited":
            return self.runner.run(_awaited(method, given))
        result = method(**given)
        return list(result) if isinstance(result, Iterator) else result

    def close(self) -> None:
        if self.way == "awaited":
            self.runner.run(self.client.close())
        else:
            self.client.close()
        self.runner.close()


async def _awaited(method: Callable[..., Any], given: dict[str, Any]) -> Any:
    result = method(**given)
    return await result if inspect.isawaitable(result) else [item async for item in result]


@pytest.fixture(scope="module")
def server() -> Iterator[DocumentServer]:
    with DocumentServer() as server:
        yield server


@pytest.fixture(params=["blocking", "awaited", "hook"])
def caller(request: pytest.FixtureRequest, server: DocumentServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    monkeypatch.setenv("no_proxy", "*")
    extra = {"organization_id": "org_1", "allow_http": True}
    connection = {"conn_type": "planasonix", "password": KEY, "host": server.url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_PLANASONIX_DOCUMENT", json.dumps(connection))
    caller = Caller(request.param, server.url)
    yield caller
    caller.close()


def test_the_document_has_the_same_operations_as_the_client(server: DocumentServer) -> None:
    assert sorted(server.operations) == ROUTES


@pytest.mark.parametrize("name", ROUTES)
def test_every_request_is_valid_and_its_response_is_read(caller: Caller, server: DocumentServer, name: str) -> None:
    @settings(max_examples=8 * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(arguments(name))
    def try_it(given: dict[str, Any]) -> None:
        server.sent.clear()
        answer = caller.call(name, given)
        assert {sent.operation for sent in server.sent} == {name}
        assert_read(server, name, answer)

    try_it()


def assert_read(server: DocumentServer, name: str, answer: Any) -> None:
    """Check that a call has returned the whole example."""
    kind, example = server.operations[name].answer[1:]
    if kind != "application/json":
        assert answer == (None if kind is None else server.text)
        return
    data = example["data"]
    if isinstance(data, list):
        assert [item.id for item in answer] == [item["id"] for item in data] * len(server.sent)
        pairs = list(zip(answer, data, strict=False))
    else:
        pairs = [(answer, data.get("job", data.get("backfill", data)))]
    for read, shown in pairs:
        dumped = read.model_dump(mode="json", exclude_unset=True, context={"reveal": True})
        assert dumped == shown


@pytest.mark.parametrize("name", ROUTES)
def test_every_part_of_a_documented_request_is_sent(caller: Caller, server: DocumentServer, name: str) -> None:
    @settings(max_examples=3 * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(arguments(name, whole=True))
    def try_it(given: dict[str, Any]) -> None:
        server.sent.clear()
        caller.call(name, given)
        parts = frozenset().union(*(sent.parts for sent in server.sent))
        assert parts == server.operations[name].parts

    try_it()


SYNC = "/api/v1/connections/conn_1/sync"
BACKFILL = "/api/v1/connections/conn_1/backfill"
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("method", "path", "more", "said"),
    [
        ("GET", "/api/v1/job", {}, "GET /api/v1/job: is no operation of the document"),
        ("GET", "/api/v1/jobs/", {}, "path job_id: '' does not match "),
        ("GET", "/api/v1/jobs/a/b", {}, "GET /api/v1/jobs/a/b: is no operation of the document"),
        ("PATCH", "/api/v1/jobs", {}, "PATCH /api/v1/jobs: is no operation of the document"),
        ("GET", "/api/v1/jobs?page=2", {}, "query page: is not in the document"),
        ("GET", "/api/v1/webhooks?limit=2", {}, "query limit: is not in the document"),
        ("GET", "/api/v1/jobs?limit=1&limit=2", {}, "query limit: is there more than once"),
        ("GET", "/api/v1/jobs?limit=0", {}, "query limit: 0 is less than the minimum of 1"),
        ("GET", "/api/v1/jobs?limit=101", {}, "query limit: 101 is greater than the maximum of 100"),
        ("GET", "/api/v1/jobs?limit=x", {}, "query limit: 'x' is not of type 'integer'"),
        ("GET", "/api/v1/jobs?since=2025-01-01", {}, "query since: '2025-01-01' is not a 'date-time'"),
        ("GET", "/api/v1/jobs", {"headers": {"X-Mine": "1"}}, "header x-mine: is not in the document"),
        ("GET", "/api/v1/jobs", {"headers": {"Idempotency-Key": "1"}}, "header idempotency-key: is not in the"),
        ("GET", "/api/v1/jobs", {"headers": {"Authorization": "Basic x"}}, "header Authorization: is no bearer's key"),
        ("GET", "/api/v1/jobs", {"headers": {"Accept": "text/html"}}, "header Accept: is 'text/html', and the"),
        ("GET", "/api/v1/openapi.yaml", {"headers": {"Accept": "application/json"}}, "answers 'application/yaml'"),
        ("POST", "/api/v1/jobs/job_1/cancel", {"json": {}}, "body: is not in the document"),
        ("POST", BACKFILL, {}, "body: is required"),
        ("POST", BACKFILL, {"json": {"end_at": WINDOW["end_at"]}}, "body: 'start_at' is a required property"),
        ("POST", BACKFILL, {"json": {**WINDOW, "start_at": "soon"}}, "body: .start_at 'soon' is not a 'date-time'"),
        ("POST", BACKFILL, {"json": {**WINDOW, "tables": "a"}}, "body: .tables 'a' is not of type 'array'"),
        ("POST", SYNC, {"json": {"lane": 1}}, "('lane' was unexpected)"),
        ("POST", SYNC, {"json": {"metadata": 1}}, "body: .metadata 1 is not of type 'object'"),
        ("POST", SYNC, {"json": []}, "body: [] is not of type 'object'"),
        ("POST", SYNC, {"content": b"{"}, "body: is no JSON"),
        ("POST", SYNC, {"content": b'{"metadata": {"a": NaN}}'}, "body: is no JSON"),
        ("POST", SYNC, {"content": b"a=b", "headers": {"Content-Type": "text/plain"}}, "Content-Type: is 'text/p"),
    ],
)  # fmt: skip
def test_the_server_refuses_undocumented_requests(
    server: DocumentServer, method: str, path: str, more: dict[str, Any], said: str
) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/json", "Content-Type": "application/json"}
    headers |= more.get("headers", {})
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.request(method, path, **{**more, "headers": headers})
    assert answer.status_code == 400
    complaints = [f"{one['field']}: {one['issue']}" for one in answer.json()["error"]["details"]]
    assert len(complaints) == 1
    assert said in complaints[0]
