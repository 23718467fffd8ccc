from __future__ import annotations

import heapq
import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count, pairwise

import pytest
from pydantic import SecretStr

from planasonix_provider.api.rate_limiter import (
    MAX_DELAY_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    RateLimiter,
    rate_limiter_for,
)
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from tests.support.api_clients import Clock

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


class Key:
    """An API key with a rate limit, on a simulated clock."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.clock = clock
        self.limits = PerKeyRateLimit(self.now, limit)
        self.asked = self.refused = 0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.clock.now)

    def ask(self, pace: RateLimiter | None = None) -> bool:
        """Send a request with the key, and update a rate limiter from the response."""
        allowance = self.limits.consume("key")
        self.asked += 1
        self.refused += allowance.is_exceeded
        headers = {name.lower(): value for name, value in allowance.headers.items()}
        headers["date"] = format_datetime(self.now(), usegmt=True)
        if pace:
            pace.update(429 if allowance.is_exceeded else 200, headers)
        return not allowance.is_exceeded


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 0.0
    return clock


@pytest.fixture
def pace(clock: Clock) -> RateLimiter:
    return RateLimiter(clock, lambda low, high: high / 2)


def headers(remaining: int, *, limit: int = 100, seconds: int = 50) -> dict[str, str]:
    date = format_datetime(BEGAN, usegmt=True)
    reset = str(int(BEGAN.timestamp()) + seconds)
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": reset,
        "date": date,
    }


class TestARetryAfter:
    def test_lasts_for_the_seconds_of_the_429(self, pace: RateLimiter, clock: Clock) -> None:
        pace.update(429, {"retry-after": "30"})
        clock.now += 10
        assert pace.retry_after_remaining() == 20
        clock.now += 30
        assert pace.retry_after_remaining() == 0

    def test_is_not_shortened_by_a_later_429_without_seconds(self, pace: RateLimiter) -> None:
        pace.update(429, {"retry-after": "30"})
        pace.update(429, {})
        assert pace.retry_after_remaining() == 30

    def test_of_a_year_is_limited_to_a_quarter_of_an_hour(self, pace: RateLimiter) -> None:
        pace.update(429, {"retry-after": "31536000"})
        assert pace.retry_after_remaining() == MAX_RETRY_AFTER_SECONDS

    def test_of_a_503_is_ignored(self, pace: RateLimiter) -> None:
        pace.update(503, {"retry-after": "30"})
        assert pace.retry_after_remaining() == 0


class TestADelay:
    def test_is_zero_before_the_first_headers(self, pace: RateLimiter) -> None:
        assert pace.delay() == 0
        pace.update(200, {})
        assert pace.delay() == 0

    def test_is_zero_for_a_single_process_while_half_is_left(self, clock: Clock) -> None:
        key, pace = Key(100, clock), RateLimiter(clock)
        for _ in range(49):
            assert pace.delay() == 0
            key.ask(pace)
        key.ask(pace)
        assert pace.delay() > 0

    def test_spreads_the_remaining_requests_over_the_remaining_time(self, pace: RateLimiter) -> None:
        for remaining in range(99, 39, -1):
            pace.update(200, headers(remaining))
        # 40 are left, of which 10 are for others.
        assert pace.delay() == pytest.approx(50 / 30)

    def test_grows_with_the_requests_of_other_processes(self, pace: RateLimiter, clock: Clock) -> None:
        pace.update(200, headers(60))
        clock.now += 10
        pace.update(200, headers(30, seconds=40))
        # Others send over thirty requests for each of its own, so its share of the usable twenty is below one.
        crowd = (40 * 0.6 + 30) / (0.6 + 1)
        assert pace.delay() == pytest.approx(min(60, 40 / (20 / crowd)))

    @pytest.mark.parametrize(("remaining", "is_free"), [(1_128, True), (601, True), (600, False)])
    def test_is_zero_among_many_processes_while_half_is_left(
        self, pace: RateLimiter, remaining: int, is_free: bool
    ) -> None:
        # Others used most of it before this process sent a request, as after each start of a worker.
        pace.update(200, headers(remaining, limit=1_200))
        assert (pace.delay() == 0) is is_free

    def test_assumes_that_other_processes_have_continued(self, pace: RateLimiter, clock: Clock) -> None:
        pace.update(200, headers(80))
        clock.now += 10
        pace.update(200, headers(60, seconds=40))
        clock.now += 25
        # Others have used the rest by now, so it ends in the next window, but not in its first moment.
        assert pace.delay() > 15

    def test_of_a_used_up_key_ends_in_the_next_window_at_random(self, clock: Clock) -> None:
        rests = []
        for lot in (0.0, 1.0):
            pace = RateLimiter(clock, lambda low, high, lot=lot: lot)
            pace.update(200, headers(99, seconds=0))
            clock.now += 1
            pace.update(200, headers(0, seconds=20))
            rests.append(pace.delay())
        assert rests[0] == pytest.approx(20)
        assert rests[1] > 20

    def test_is_limited(self, pace: RateLimiter) -> None:
        pace.update(200, headers(0, limit=1, seconds=900))
        assert pace.delay() == MAX_DELAY_SECONDS
        assert sum(pace.acquire()) == MAX_DELAY_SECONDS

    def test_is_zero_if_the_headers_are_invalid(self, pace: RateLimiter) -> None:
        pace.update(200, dict.fromkeys(headers(1), "⅔"))
        assert pace.delay() == 0

    def test_tolerates_responses_in_another_order(self, pace: RateLimiter) -> None:
        for remaining in (90, 70, 71, 72, 69, 60, 65, 40):
            pace.update(200, headers(remaining))
        assert 50 / 30 < pace.delay() < 50 * 10 / 30

    def test_starts_over_in_a_new_window(self, pace: RateLimiter, clock: Clock) -> None:
        pace.update(200, headers(99))
        pace.update(200, headers(2))
        assert pace.delay() > 50
        clock.now += 51
        for remaining in range(99, 60, -1):
            pace.update(200, headers(remaining))
        assert pace.delay() < 5

    def test_separates_consecutive_requests(self, pace: RateLimiter, clock: Clock) -> None:
        for remaining in range(99, 39, -1):
            pace.update(200, headers(remaining))
        moments = []
        for _ in range(3):
            for seconds in pace.acquire():
                clock.sleep(seconds)
            moments.append(clock.now)
        apart = [later - sooner for sooner, later in pairwise(moments)]
        assert min(apart) > 1

    def test_that_is_long_is_logged_once_a_minute(self, pace: RateLimiter, caplog: pytest.LogCaptureFixture) -> None:
        pace.update(200, headers(0))
        with caplog.at_level(logging.INFO):
            pace.delay()
            pace.delay()
        assert caplog.messages == [
            "The API key has 0 of 100 requests left for the next 50 s. Requests that can wait are spread over that "
            "time."
        ]


class Process:
    """A worker process that starts a job, polls it once per interval until its end, and fetches the results."""

    def __init__(self, key: Key, lots: random.Random, *, paced: bool) -> None:
        self.key = key
        self.lots = lots
        self.paced = paced
        self.pace = RateLimiter(key.clock, lots.uniform)

    def live(self, job_seconds: float, interval: float = 10.0) -> Iterator[float]:
        """Run the process; yield the seconds until its next step."""
        yield from self.ask(can_wait=False)
        over = self.key.clock.now + job_seconds
        while True:
            yield interval
            yield from self.ask()
            if self.key.clock.now >= over:
                break
        yield from self.ask()

    def ask(self, *, can_wait: bool = True) -> Iterator[float]:
        while True:
            if can_wait and self.paced:
                yield from self.pace.acquire()
            while silence := self.pace.retry_after_remaining():
                yield silence + self.lots.uniform(0, 0.5)
            answered = self.key.ask(self.pace)
            yield 0.05
            if answered:
                return


def run_forty(clock: Clock, *, seed: int, paced: bool) -> Key:
    lots = random.Random(seed)
    key, order = Key(120, clock), count()
    processes = [Process(key, lots, paced=paced).live(lots.uniform(60, 300)) for _ in range(40)]
    agenda = [(lots.uniform(0, 40), next(order), process) for process in processes]
    heapq.heapify(agenda)
    while agenda:
        clock.now, _, process = heapq.heappop(agenda)
        if (seconds := next(process, None)) is not None:
            heapq.heappush(agenda, (clock.now + seconds, next(order), process))
    return key


@pytest.mark.parametrize("seed", range(5))
def test_forty_independent_processes_stay_within_120_requests_a_minute(clock: Clock, seed: int) -> None:
    key = run_forty(clock, seed=seed, paced=True)
    assert key.refused <= 0.02 * key.asked
    # They must not stay far below the limit, either.
    assert key.asked / (clock.now / 60) > 40


def test_forty_processes_without_a_rate_limiter_exceed_the_limit(clock: Clock) -> None:
    key = run_forty(clock, seed=0, paced=False)
    assert key.refused > 0.1 * key.asked


@pytest.mark.parametrize("others", [40, 65, 80, 100, 115])
def test_a_process_polls_without_delay_once_the_others_have_ended(clock: Clock, others: int) -> None:
    clock.now = 53.0  # the third second of a window
    key = Key(120, clock)
    pace = RateLimiter(clock, lambda low, high: high / 2)
    for _ in range(others):
        key.ask()
    key.ask(pace)
    looks = []
    while clock.now < 1_200:
        clock.now += 10
        while rest := pace.delay():
            clock.now += rest
        key.ask(pace)
        looks.append(clock.now)
    assert looks[-1] - looks[-2] == pytest.approx(10, abs=0.5)
    assert len(looks) >= 95


def test_clients_of_one_key_and_host_share_a_rate_limiter() -> None:
    here, key = "https://api.planasonix.com", SecretStr("plnx_1")
    assert rate_limiter_for(here, key) is rate_limiter_for(here, SecretStr("plnx_1"))
    assert rate_limiter_for(here, key) is not rate_limiter_for(here, SecretStr("plnx_2"))
    assert rate_limiter_for(here, key) is not rate_limiter_for("https://acme.planasonixapis.com", key)
