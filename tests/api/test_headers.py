from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from planasonix_provider.api.headers import RateLimit, rate_limit, retry_after, server_time

NOW = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
THERE = {"date": "Thu, 27 Mar 2025 14:22:40 GMT"}


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            (" 30 ", 30),
            ("1.5", 1.5),
            ("86400", 86400),
            ("999999999", 999999999),
            ("Thu, 27 Mar 2025 14:23:10 GMT", 60),
            ("Thu, 27 Mar 2025 16:23:10 +0200", 60),
            ("Thu, 27 Mar 2025 14:22:10 GMT", 0),
            ("Thu, 27 Mar 2025 14:20:10 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 251659215469),
            ("Fri, 31 Dec 9999 23:59:59 -2300", None),
            ("1743085330", None),  # Unix seconds, which no standard allows here
            *((text, None) for text in ("", "-1", "soon", "1e3", "inf", "nan", "7s", "٣٠", "9" * 30)),
        ],
    )
    def test_is_seconds_or_a_date(self, value: str, seconds: float | None) -> None:
        assert retry_after({"retry-after": value}) == seconds

    def test_a_date_is_compared_with_the_servers_clock(self) -> None:
        assert retry_after({"retry-after": "Thu, 27 Mar 2025 14:23:10 GMT", **THERE}) == 30

    def test_is_none_without_the_header(self) -> None:
        assert retry_after({}) is None


@given(st.text(), st.text())
def test_any_retry_after_can_be_read(value: str, date: str) -> None:
    seconds = retry_after({"retry-after": value, "date": date})
    assert seconds is None or seconds >= 0


class TestRateLimit:
    def test_has_the_remaining_requests_and_seconds(self) -> None:
        headers = {"x-ratelimit-limit": "1200", "x-ratelimit-remaining": "1190"}
        reset = {"x-ratelimit-reset": str(int(NOW.timestamp()) + 45)}
        assert rate_limit(headers | reset) == RateLimit(1200, 1190, 45)
        assert rate_limit(headers | reset | THERE) == RateLimit(1200, 1190, 15)
        assert rate_limit(headers) == RateLimit(1200, 1190, 60)

    @pytest.mark.parametrize("reset", ["0", "30", "9999999999", "-5", "noon", "1" * 40])
    def test_an_invalid_reset_is_replaced_by_a_minute(self, reset: str) -> None:
        headers = {"x-ratelimit-limit": "1200", "x-ratelimit-remaining": "1190", "x-ratelimit-reset": reset}
        assert rate_limit(headers) == RateLimit(1200, 1190, 60)

    def test_remaining_is_at_most_the_limit(self) -> None:
        assert rate_limit({"x-ratelimit-limit": "10", "x-ratelimit-remaining": "99"}) == RateLimit(10, 10, 60)

    @pytest.mark.parametrize(("limit", "remaining"), [("", "5"), ("5", ""), ("0", "0"), ("many", "5"), ("5", "-1")])
    def test_is_none_if_the_headers_are_invalid(self, limit: str, remaining: str) -> None:
        assert rate_limit({"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining}) is None


def test_the_server_time_is_its_date_or_else_the_local_time() -> None:
    assert server_time(THERE) == NOW.replace(second=40)
    assert server_time({}) == server_time({"date": "noon"}) == NOW
