from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixRateLimitError,
    PlanasonixResponseError,
    PlanasonixServerError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
    PlanasonixValidationError,
)
from planasonix_provider.api.retry import (
    NO_RETRY,
    ON_KILL,
    LogThrottle,
    RetryPolicy,
    had_no_effect,
    has_unknown_effect,
    is_transient,
)
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import CallStyle, make_config, read, start
from tests.support.raw_server import (
    HTML,
    ONE_JOB,
    RESET,
    SILENCE,
    STARTED,
    RawServer,
    Reaction,
    ReceivedRequest,
    error_response,
    response,
    truncate,
)


class Case(NamedTuple):
    """A response, and how often each kind of request is sent by a policy of three tries."""

    reaction: Reaction
    kind: type[PlanasonixError]
    read: int
    start: int
    ambiguous: bool


CASES = {
    "reset": Case(RESET, PlanasonixTransportError, 3, 1, True),
    "timeout": Case(SILENCE, PlanasonixTransportError, 3, 1, True),
    "truncated": Case(truncate(STARTED), PlanasonixTransportError, 3, 1, True),
    "closed without a response": Case(b"", PlanasonixTransportError, 3, 1, True),
    "not HTTP": Case(b"220 mail.example.com ESMTP\r\n\r\n", PlanasonixTransportError, 3, 1, True),
    "200 HTML": Case(response(200, HTML), PlanasonixUnreadableError, 3, 1, True),
    "200 empty": Case(response(200), PlanasonixUnreadableError, 3, 1, True),
    "429": Case(error_response(429), PlanasonixRateLimitError, 3, 3, False),
    "429 Retry-After": Case(error_response(429, Retry_After="1"), PlanasonixRateLimitError, 3, 3, False),
    "500": Case(error_response(500), PlanasonixServerError, 3, 1, True),
    "501": Case(error_response(501), PlanasonixServerError, 1, 1, False),
    "502": Case(error_response(502), PlanasonixServerError, 3, 1, True),
    "502 HTML": Case(response(502, HTML), PlanasonixServerError, 3, 1, True),
    "503": Case(error_response(503), PlanasonixServerError, 3, 1, True),
    "503 Retry-After": Case(error_response(503, Retry_After="1"), PlanasonixServerError, 3, 3, False),
    "503 Retry-After of zero": Case(error_response(503, Retry_After="0"), PlanasonixServerError, 3, 3, False),
    "503 Retry-After nonsense": Case(error_response(503, Retry_After="soon"), PlanasonixServerError, 3, 1, True),
    "504": Case(error_response(504), PlanasonixServerError, 3, 1, True),
    "524 of a CDN": Case(error_response(524), PlanasonixServerError, 3, 1, True),
    "302": Case(response(302, Location="/"), PlanasonixResponseError, 1, 1, False),
    "400": Case(error_response(400), PlanasonixValidationError, 1, 1, False),
    "401": Case(error_response(401), PlanasonixAuthenticationError, 1, 1, False),
    "403": Case(error_response(403), PlanasonixPermissionError, 1, 1, False),
    "404": Case(error_response(404), PlanasonixNotFoundError, 1, 1, False),
    "409": Case(error_response(409), PlanasonixConflictError, 1, 1, False),
    "409 Retry-After": Case(error_response(409, Retry_After="1"), PlanasonixConflictError, 1, 1, False),
}


def read_results(client: Any) -> Any:
    return client.get_job_results("job_1")


def cancel(client: Any) -> Any:
    return client.cancel_job("job_1")


def failure(
    style: CallStyle, url: str, operation: Callable[[Any], Any], policy: RetryPolicy | None = None, **fields: Any
) -> PlanasonixError:
    with pytest.raises(PlanasonixError) as failed:
        style.call(make_config(url, **fields), operation, policy)
    return failed.value


def patience(case: Case) -> dict[str, float]:
    """Return a short timeout only if the server does not respond, because a slow machine needs a long one."""
    return {"read_timeout": 0.1} if case.reaction is SILENCE else {}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("operation", [read, cancel])
def test_reads_and_cancels_are_retried_after_transient_errors(
    style: CallStyle, raw_server: RawServer, operation: Callable[[Any], Any], case: Case
) -> None:
    raw_server.respond_with(case.reaction)
    assert type(failure(style, raw_server.url, operation, **patience(case))) is case.kind
    assert (len(raw_server.wait_for_requests(case.read)), len(style.clock.slept)) == (case.read, case.read - 1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_start_is_retried_only_if_it_had_no_effect(style: CallStyle, raw_server: RawServer, case: Case) -> None:
    raw_server.respond_with(case.reaction)
    failed = failure(style, raw_server.url, start, **patience(case))
    assert (type(failed), has_unknown_effect(failed)) == (case.kind, case.ambiguous)
    assert (len(raw_server.wait_for_requests(case.start)), len(style.clock.slept)) == (case.start, case.start - 1)
    assert len({seen.headers["idempotency-key"] for seen in raw_server.requests}) == 1


@pytest.mark.parametrize("operation", [read, cancel, start])
def test_every_request_is_retried_after_a_failed_connection(style: CallStyle, operation: Callable[[Any], Any]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening, so it refuses connections
        failed = failure(style, f"http://127.0.0.1:{closed.getsockname()[1]}", operation)
    assert type(failed) is PlanasonixTransportError
    assert not has_unknown_effect(failed)
    assert len(style.clock.slept) == 2


@pytest.mark.parametrize("operation", [read, read_results, cancel, start])
def test_a_retry_after_transient_errors_succeeds(
    style: CallStyle, raw_server: RawServer, operation: Callable[[Any], Any]
) -> None:
    good = {start: STARTED, read_results: response(200, {"data": {"job_id": "job_1", "status": "running"}})}
    raw_server.respond_with(error_response(429), error_response(503, Retry_After="1"), good.get(operation, ONE_JOB))
    assert style.call(make_config(raw_server.url), operation).status == "running"
    assert len(raw_server.requests) == 3


def test_a_permanent_error_ends_the_retries(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500), error_response(404), ONE_JOB)
    failed = failure(style, raw_server.url, read)
    assert (type(failed), len(raw_server.requests)) == (PlanasonixNotFoundError, 2)


def test_the_last_error_has_the_number_of_tries(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500))
    assert failure(style, raw_server.url, read).message.endswith(" (Tried 3 times.)")
    assert "Tried" not in failure(style, raw_server.url, start).message
    assert "Tried" not in failure(style, raw_server.url, read, NO_RETRY).message


def test_a_delay_is_random_up_to_a_bound_that_doubles_to_the_maximum(style: CallStyle, raw_server: RawServer) -> None:
    bounds: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        bounds.append((low, high))
        return high / 4

    raw_server.respond_with(error_response(500))
    failure(style, raw_server.url, read, RetryPolicy(clock=style.clock, uniform=draw))
    highest = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0]
    assert bounds[:7] == [(0.0, bound) for bound in highest]
    assert style.clock.slept == [bound / 4 for bound in highest]
    assert len(raw_server.requests) == 8


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("operation", [read, start])
def test_the_jitter_is_added_to_a_retry_after(
    style: CallStyle, raw_server: RawServer, operation: Callable[[Any], Any], status: int
) -> None:
    raw_server.respond_with(error_response(status, Retry_After="7"))
    failure(style, raw_server.url, operation, style.policy(first_wait=1.0))
    assert style.clock.slept == [8.0, 9.0]


def test_a_retry_after_may_be_a_date(style: CallStyle, raw_server: RawServer) -> None:
    dates = {"Date": "Thu, 27 Mar 2025 14:22:10 GMT", "Retry_After": "Thu, 27 Mar 2025 14:22:40 GMT"}
    raw_server.respond_with(error_response(429, **dates), ONE_JOB)
    style.call(make_config(raw_server.url), read, style.policy(uniform=lambda low, high: low))
    assert style.clock.slept == [30.0]


def test_no_try_starts_after_max_seconds(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500))
    failure(style, raw_server.url, read, style.policy(max_tries=100, max_seconds=10.0, first_wait=1.0, max_wait=4.0))
    assert style.clock.slept == [1.0, 2.0, 4.0]


def test_no_try_starts_after_the_callers_deadline(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500))
    policy = style.policy(max_tries=100, first_wait=1.0, max_wait=4.0, until=style.clock.now + 10.0)
    failure(style, raw_server.url, read, policy)
    failure(style, raw_server.url, read, policy)
    assert style.clock.slept == [1.0, 2.0, 4.0, 1.0]


def test_max_seconds_include_the_duration_of_the_tries(style: CallStyle, raw_server: RawServer) -> None:
    def slow(_: ReceivedRequest) -> bytes:
        style.clock.now += 4.0
        return error_response(500)

    raw_server.respond_with(slow)
    failure(style, raw_server.url, read, style.policy(max_tries=100, max_seconds=10.0, uniform=lambda low, high: low))
    assert len(raw_server.requests) == 3


@pytest.mark.parametrize("seconds", ["120", "86400", "999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_max_seconds_ends_the_retries(
    style: CallStyle, raw_server: RawServer, seconds: str
) -> None:
    raw_server.respond_with(error_response(429, Retry_After=seconds))
    failed = failure(style, raw_server.url, read, RetryPolicy(clock=style.clock))
    assert isinstance(failed, PlanasonixRateLimitError)
    assert (len(raw_server.requests), style.clock.slept) == (1, [])


def test_each_call_has_its_own_max_seconds(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500))
    policy = style.policy(max_seconds=2.0)
    for _ in range(2):
        failure(style, raw_server.url, read, policy)
    assert len(raw_server.requests) == 6


def test_a_long_outage_is_logged_at_its_start_and_then_once_a_minute(
    style: CallStyle, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    raw_server.respond_with(error_response(500))
    with caplog.at_level(logging.DEBUG, logger="planasonix_provider"):
        failure(style, raw_server.url, read, RetryPolicy(max_tries=10, clock=style.clock, uniform=max))
    waits = [(record.levelname, record.getMessage().rpartition(" in ")[2]) for record in caplog.records]
    assert waits == [
        ("INFO", "0.5 s."),
        ("DEBUG", "1.0 s."),
        ("DEBUG", "2.0 s."),
        ("DEBUG", "4.0 s."),
        ("DEBUG", "8.0 s."),
        ("DEBUG", "16.0 s."),
        ("DEBUG", "20.0 s."),
        ("DEBUG", "20.0 s."),
        ("INFO", "20.0 s."),
    ]


def test_requests_with_a_shared_throttle_log_one_line(
    style: CallStyle, raw_server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    raw_server.respond_with(error_response(500))
    policy = RetryPolicy(max_tries=3, clock=style.clock, uniform=max, throttle=LogThrottle())
    with caplog.at_level(logging.INFO, logger="planasonix_provider"):
        for _ in range(3):
            failure(style, raw_server.url, read, policy)
        assert len(caplog.records) == 1
        policy.throttle.is_muted = True  # type: ignore[union-attr]
        style.clock.sleep(100)
        failure(style, raw_server.url, read, policy)
    assert len(caplog.records) == 1


def test_no_retry_sends_one_request(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(429))
    failure(style, raw_server.url, read, NO_RETRY)
    assert (len(raw_server.requests), style.clock.slept) == (1, [])


def test_a_killed_process_retries_for_less_than_five_seconds(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(500))
    failure(style, raw_server.url, cancel, replace(ON_KILL, clock=style.clock, uniform=max))
    assert len(raw_server.requests) > 3
    assert sum(style.clock.slept) < 5.0


def test_the_default_policy_ends_within_two_minutes(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(error_response(503, Retry_After="15"))
    failure(style, raw_server.url, read, RetryPolicy(clock=style.clock, uniform=max))
    assert 60.0 < sum(style.clock.slept) < 120.0


@pytest.mark.parametrize(
    ("failed", "passing", "nothing"),
    [
        (PlanasonixTransportError("", sent=True), True, False),
        (PlanasonixTransportError("", sent=False), True, True),
        (PlanasonixUnreadableError(""), True, False),
        (PlanasonixRateLimitError("", status=429), True, True),
        (PlanasonixServerError("", status=500), True, False),
        *[(PlanasonixServerError("", status=status), False, False) for status in (501, 505, 510, 511)],
        (PlanasonixServerError("", status=503), True, False),
        (PlanasonixServerError("", status=503, retry_after=0.0), True, True),
        (PlanasonixServerError("", status=502, retry_after=1.0), True, False),
        (PlanasonixServerError(""), True, False),
        (PlanasonixConflictError("", status=409), False, False),
        (PlanasonixConfigurationError(""), False, False),
        (PlanasonixError(""), False, False),
        (ValueError(), False, False),
        (KeyboardInterrupt(), False, False),
    ],
    ids=repr,
)
def test_the_effect_is_unknown_after_a_transient_error_that_may_have_had_one(
    failed: BaseException, passing: bool, nothing: bool
) -> None:
    assert (is_transient(failed), had_no_effect(failed)) == (passing, nothing)
    assert has_unknown_effect(failed) is (passing and not nothing)


@pytest.mark.parametrize(
    ("kind", "status"), [("reset", None), ("cut", None), ("html", 502), ("status", 500), ("status", 503)]
)
def test_a_start_with_a_lost_response_creates_one_job(
    style: CallStyle, server: Simulator, kind: Any, status: int | None
) -> None:
    server.fail(kind, route="trigger_sync", when="after", status=status)
    assert has_unknown_effect(failure(style, server.url, start))
    assert len(server.jobs()) == 1


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (503, {"Retry-After": "1"})])
def test_a_start_that_was_first_rejected_creates_one_job(
    style: CallStyle, server: Simulator, status: int, headers: dict[str, str]
) -> None:
    server.fail("status", route="trigger_sync", times=2, status=status, headers=headers)
    job = style.call(make_config(server.url), start)
    assert [made.id for made in server.jobs()] == [job.id]
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
