"""Invalid arguments raise before any request, with the argument's name, its value and the allowed values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, Client
from planasonix_provider.api.errors import PlanasonixValidationError
from planasonix_provider.api.event_types import KNOWN_EVENTS
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import CallStyle, make_config
from tests.support.error_text import log_text
from tests.support.example_calls import EXAMPLE_CALLS, make_request
from tests.support.raw_server import RawServer

Wrong = list[Any]
AN_ID = "an id as Planasonix gives it: no white space, no control character, none of / \\ ? # %, not only dots"
NO_IDS: Wrong = [
    *("a b", " a", "a\n", "a\r\nX-Evil: 1", "a\0", "\x7f", "\u200b", "\ud800"),
    *(".", "..", "...", "../webhooks", "/", "a/b", "a\\b", "a?status=failed", "a#b", "100%", "a%2Fb"),
    *("https://app.planasonix.com/jobs/job_1", 7, True, b"job_1", ["job_1"], {"id": "job_1"}),
]
#: The results of templates that render to nothing.
NOTHING: Wrong = ["", " ", "\t", "\xa0", "\u2028", "None"]
SOMETHING = (
    "an id as Planasonix gives it. A template that renders to nothing gives such a value: check the task and the key "
    "that it pulls from"
)
A_WORD = "a text that is not empty, without control characters"
NO_WORDS: Wrong = ["", " ", "a\n", "\ud800", 7, True, ["running"], b"running"]
A_TIME = "a time: a datetime, or ISO 8601 text as 2025-01-01T00:00:00Z"
NO_TIMES: Wrong = [
    *("yesterday", "2025-02-30", "2025-01-01T25:00:00Z", "12:00", "0001-01-01", "9999-12-31T23:59:59-01:00"),
    *(0, 1743085330.5, True, timedelta(1), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23)))),
]
A_RENDERED_TIME = (
    f"{A_TIME}. A template that renders to nothing gives such a value. A run without a logical date has no data "
    "interval: use dag_run.run_after there, or a param"
)
A_NUMBER = "a whole number from 1, or None for all"
NO_NUMBERS: Wrong = [0, -1, 1.0, 0.5, float("nan"), "1", "", True, False, [1]]
A_URL = "an https URL, or an http one of this machine, in ASCII characters without blanks"
SOME_EVENTS = "a list of events, such as ['job.succeeded']"
NO_KEYS: Wrong = ["", " ", "a b", "a\r\nX-Evil: 1", "größe", "\x7f", 7, True, b"mine"]
TOO_DEEP = (
    "got a value that is nested too deep, or contains half a character (a lone surrogate), allowed is what JSON can "
    "hold."
)


def nested(depth: int) -> Any:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def messages(name: str, values: Wrong, allowed: str) -> list[tuple[Any, str]]:
    return [(value, f"{name}: got {value!r}, allowed is {allowed}.") for value in values]


#: The invalid values of each argument, in all routes, with their messages.
REFUSED: dict[str, list[tuple[Any, str]]] = {
    **{
        name: [*messages(name, NO_IDS, AN_ID), *messages(name, NOTHING, SOMETHING)]
        for name in ("connection_id", "pipeline_id", "backfill_id", "job_id", "webhook_id")
    },
    **{name: messages(name, NO_WORDS, A_WORD) for name in ("type", "status", "event")},
    **{
        name: [*messages(name, NO_TIMES, A_TIME), *messages(name, ["", " ", "None"], A_RENDERED_TIME)]
        for name in ("since", "until", "start_at", "end_at")
    },
    "limit": messages("limit", NO_NUMBERS, A_NUMBER),
    "idempotency_key": messages("idempotency_key", NO_KEYS, "ASCII text without white space, or None"),
    "priority": messages("priority", ["urgent", "", "Low", "low ", 1, True, ["low"]], "low, normal, high"),
    "enabled": messages("enabled", [0, 1, "False", "", []], "True or False"),
    "events": messages(
        "events",
        [[], (), "job.failed", b"job.failed", [""], [" "], ["job.failed", "a\n"], ["\ud800"], [1], {"a": 1}, 7, True],
        SOME_EVENTS,
    ),
    "tables": [
        *messages("tables", [[], "public.orders", {"a"}, 7, True], "a list of table names, or None for all tables"),
        *messages("tables", [[""], ["a", " "], [1], [None]], "table names that are texts and not blank"),
        (["a", "b", "a"], "tables: got ['a', 'b', 'a'], allowed is each table once; twice there is a."),
        (["\ud800"], f"tables: {TOO_DEEP}"),
    ],
    "metadata": [
        *messages("metadata", ["a", 7, True, [], [("a", 1)], {1: "a"}, {None: 1}], "a mapping whose keys are texts"),
        ({"a": {1}}, "metadata: got {'a': {1}}, allowed is what JSON can hold "),
        ({"a": float("nan")}, "metadata: got {'a': nan}, allowed is what JSON can hold "),
        (nested(300), f"metadata: {TOO_DEEP}"),
        (nested(5000), f"metadata: {TOO_DEEP}"),
        ({"a": ["\ud800"]}, f"metadata: {TOO_DEEP}"),
        ({"a": {"\ud800": 1}}, f"metadata: {TOO_DEEP}"),
    ],
    # The path and the credentials of a URL are secrets, because they suffice to send deliveries.
    "url": [
        (value, f"url: got {shown}, allowed is {A_URL}.")
        for value, shown in {
            "http://hooks.example.com": "'http://hooks.example.com'",
            "http://hooks.example.com/services/T0/B0/XYZ": "'http://hooks.example.com/…'",
            "http://hooks.example.com?token=XYZ": "'http://hooks.example.com/…'",
            "http://hooks.example.com#XYZ": "'http://hooks.example.com/…'",
            "http://user:XYZ@hooks.example.com:80/": "'http://***@hooks.example.com:80/…'",
            "user:XYZ@hooks.example.com": "'***@hooks.example.com'",
            "http://localhost.example.com/": "'http://localhost.example.com/…'",
            "http://127.0.0.1.example.com/": "'http://127.0.0.1.example.com/…'",
            "ftp://a.b/": "'ftp://a.b/…'",
            "HTTPS://hooks.example.com": "'HTTPS://hooks.example.com'",
            "hooks.example.com": "'hooks.example.com'",
            "//hooks.example.com/XYZ": "'//hooks.example.com/…'",
            "": "''",
            "https://": "'https://'",
            "https:///XYZ": "'https:///…'",
            "https://[::1": "'https://[::1'",
            "https://hooks.example.com:0/": "'https://hooks.example.com:0/…'",
            "https://hooks.example.com:65536/": "'https://hooks.example.com:65536/…'",
            "https://hooks.example.com/\n": "'https://hooks.example.com/…'",
            "https://hooks example.com/": "'https://hooks example.com/…'",
            "https://größe.example.com/": "'https://größe.example.com/…'",
            "https://hooks.example.com/größe": "'https://hooks.example.com/…'",
            "\ud800": "'\\ud800'",
            7: "<class 'int'>",
            b"https://hooks.example.com/XYZ": "<class 'bytes'>",
            ("https://hooks.example.com/XYZ",): "<class 'tuple'>",
        }.items()
    ],
    "secret": [
        *(
            (value, "secret: got 15 characters, allowed are at least 16, or None.")
            for value in ("whsec_XYZ_89012", SecretStr("whsec_XYZ_89012"), "\n" * 15)
        ),
        ("", "secret: got 0 characters, allowed are at least 16, or None."),
        *(
            (
                value,
                "secret: got one with white space around it or a control character in it, as the line break at a file's"
                " end, allowed is a text without.",
            )
            for value in ("whsec_XYZ_8901234\n", " whsec_XYZ_8901234", "whsec_XYZ\0_8901234", "whsec_XYZ_8901234\ud800")
        ),
        (b"whsec_XYZ_8901234", "secret: got a bytes, allowed is a text, or None."),
        (1234567890123456, "secret: got a int, allowed is a text, or None."),
        (["whsec_XYZ_8901234"], "secret: got a list, allowed is a text, or None."),
    ],
}  # fmt: skip


ARGUMENTS = [
    (name, argument) for name in EXAMPLE_CALLS for argument in inspect.signature(getattr(routes, name)).parameters
]


@pytest.fixture(params=[Client, AsyncClient])
def client(request: pytest.FixtureRequest, raw_server: RawServer) -> Any:
    """A client of each kind, with a server that stores all requests."""
    return request.param(make_config(raw_server.url))


def refusal_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError, match=":") as refused:
        call()
    assert "XYZ" not in log_text(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_an_invalid_argument_raises_with_its_name_before_any_request(
    client: Any, raw_server: RawServer, name: str, argument: str
) -> None:
    assert argument in REFUSED, f"add invalid values of {argument} to REFUSED in this file"
    for wrong, message in REFUSED[argument]:
        said = refusal_of(
            lambda wrong=wrong: getattr(client, name)(**{**EXAMPLE_CALLS[name].required, argument: wrong})
        )  # type: ignore[misc]
        # Python's reason why JSON cannot hold a value differs between versions.
        assert (said.partition("(")[0] if message.endswith("hold ") else said) == message
    assert raw_server.requests == []


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, argument in ARGUMENTS
        if inspect.signature(getattr(routes, name)).parameters[argument].default is inspect.Parameter.empty
    ],
)
def test_none_raises_for_a_required_argument(client: Any, raw_server: RawServer, name: str, argument: str) -> None:
    said = refusal_of(lambda: getattr(client, name)(**{**EXAMPLE_CALLS[name].required, argument: None}))
    assert said.startswith((f"{argument}: got None, allowed is", f"{argument}: got <class 'NoneType'>, allowed is"))
    assert raw_server.requests == []


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        (
            "trigger_backfill",
            {"start_at": "2025-02-01", "end_at": "2025-02-01T00:00:00Z"},
            "end_at: got '2025-02-01T00:00:00Z', allowed is a time after start_at (2025-02-01).",
        ),
        (
            "trigger_backfill",
            {"start_at": "2025-02-01", "end_at": "2025-02-01T01:00:00+02:00"},
            "end_at: got '2025-02-01T01:00:00+02:00', allowed is a time after start_at (2025-02-01).",
        ),
        (
            "list_jobs",
            {"since": "2025-02-01T00:00:00+01:00", "until": datetime(2025, 1, 31, 22, 59, 59, tzinfo=UTC)},
            "until: got '2025-01-31T22:59:59Z', allowed is a time that is not before since, which is "
            "2025-01-31T23:00:00Z.",
        ),
        ("update_webhook", {"enabled": None}, "url, events, enabled: got None, allowed is one of them at least."),
    ],
)
def test_contradictory_arguments_raise(
    client: Any, raw_server: RawServer, name: str, wrong: dict[str, Any], message: str
) -> None:
    assert refusal_of(lambda: getattr(client, name)(**{**EXAMPLE_CALLS[name].required, **wrong})) == message
    assert raw_server.requests == []


def test_since_and_until_may_be_equal() -> None:
    query = routes.list_jobs(since="2025-02-01", until="2025-02-01T01:00:00+01:00").query
    assert query["since"] == query["until"] == "2025-02-01T00:00:00Z"


@pytest.mark.parametrize(
    ("name", "argument", "given"),
    [
        ("create_webhook", "events", ["job.failed", "job.paused"]),
        ("update_webhook", "events", ["job.paused"]),
        ("test_webhook", "event", "job.paused"),
    ],
)
def test_an_unknown_event_logs_a_warning(
    caplog: pytest.LogCaptureFixture, name: str, argument: str, given: Any
) -> None:
    assert make_request(name, **{argument: given}).body[argument] == given
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"{argument}: this version of airflow-provider-planasonix does not know job.paused, which may never come. "
        "Check the spelling; known are backfill.completed, job.cancelled, job.failed, job.queued, job.succeeded.",
    )


def test_known_events_log_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    routes.create_webhook("https://hooks.example.com/", events=sorted(KNOWN_EVENTS))
    routes.test_webhook("wh_1", event="job.queued")
    assert caplog.records == []


def test_the_api_rejects_a_cursor_of_another_list(style: CallStyle, simulator: Simulator) -> None:
    for connection_id in simulator.workspace.connections[:2]:
        simulator.workspace.start_sync(connection_id)
    here = make_config(simulator.url, api_key=SecretStr(simulator.api_key))
    cursor = style.call(here, lambda client: client.send(routes.list_jobs(limit=1))).cursor
    for request, problem in (
        (routes.list_jobs(status="running").next_page(cursor), "cursor: belongs to a list with other filters"),
        (routes.list_backfills().next_page(cursor), "cursor: belongs to a list with other filters"),
        (routes.list_jobs().next_page("page 2"), "cursor: is not a cursor"),
    ):
        with pytest.raises(PlanasonixValidationError) as refused:
            style.call(here, lambda client, request=request: client.send(request))  # type: ignore[misc]
        assert str(refused.value).startswith(f"{request}: answered 400 Bad Request (invalid_request: ")
        assert f"; {problem}. Correct what the answer names." in str(refused.value)
        assert refused.value.fields == ("cursor",)
