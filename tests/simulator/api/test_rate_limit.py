from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit

# The clock begins at 14:22:10, so its window ends in 50 s.
RESET = 1743085380


def test_headers_count_down(clock):
    limits = PerKeyRateLimit(clock, 3)
    remaining = [limits.consume("k").headers["X-RateLimit-Remaining"] for _ in range(4)]
    assert remaining == ["2", "1", "0", "0"]
    assert limits.consume("k").headers["X-RateLimit-Limit"] == "3"


def test_window_is_a_minute_of_the_clock(clock):
    limits = PerKeyRateLimit(clock, 1)
    assert limits.consume("k").reset_at == RESET
    clock.move(49)
    assert limits.consume("k").is_exceeded
    clock.move(1)
    allowance = limits.consume("k")
    assert (allowance.is_exceeded, allowance.reset_at) == (False, RESET + 60)


def test_retry_after_only_beyond_the_limit(clock):
    limits = PerKeyRateLimit(clock, 1)
    assert "Retry-After" not in limits.consume("k").headers
    clock.move(0.5)
    assert limits.consume("k").headers["Retry-After"] == "50", "rounded up, or the retry comes too early"


def test_keys_have_separate_limits(clock):
    limits = PerKeyRateLimit(clock, 1)
    limits.consume("k")
    assert not limits.consume("l").is_exceeded


def test_limit_can_change_in_a_window(clock):
    limits = PerKeyRateLimit(clock, 1)
    limits.consume("k")
    limits.configure(5)
    assert limits.consume("k").headers["X-RateLimit-Remaining"] == "3"
    limits.reset()
    allowance = limits.consume("k")
    assert (allowance.limit, allowance.used) == (1, 1)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_must_be_positive(clock, limit):
    with pytest.raises(ValueError, match=f"per_minute: got {limit}"):
        PerKeyRateLimit(clock, limit)
    with pytest.raises(ValueError, match=f"per_minute: got {limit}"):
        PerKeyRateLimit(clock).configure(limit)


def test_counts_are_thread_safe(clock):
    limits = PerKeyRateLimit(clock)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: limits.consume("k"), range(400)))
    assert limits.consume("k").used == 401
