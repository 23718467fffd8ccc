from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixOutageError
from planasonix_provider.api.models import Backfill, JobResults
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from tests.support.api_errors import api_error
from tests.support.fake_clock import Clock

THERE = JobResults(job_id="job_1", status="succeeded")
EARLY = JobResults(job_id="job_1", status="running")


def fetch(clock: Clock, *answers: Any) -> tuple[JobResults, list[str]]:
    """Fetch results that come as the answers say, the last one again and again; give them, and the log."""
    return ask(clock, lambda patience: patience.results_of("job_1"), *answers)


def fetch_backfill(clock: Clock, *answers: Any) -> tuple[Backfill, list[str]]:
    """Fetch a backfill in the same way."""
    return ask(clock, lambda patience: patience.backfill("bf_1"), *answers)


def ask(clock: Clock, what: Callable[[ResultFetcher], Awaitable[Any]], *answers: Any) -> tuple[Any, list[str]]:
    coming = list(answers)
    lines: list[str] = []

    async def send(_: Any) -> Any:
        answer = coming.pop(0) if len(coming) > 1 else coming[0]
        if isinstance(answer, PlanasonixError):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    async def main() -> Any:
        return await what(ResultFetcher(send, 10, lines.append, sleep, clock))

    return asyncio.run(main()), lines


def test_are_there_at_once_as_a_rule(clock: Clock) -> None:
    assert fetch(clock, THERE) == (THERE, [])
    assert clock.passed == 0


@pytest.mark.parametrize("early", [api_error(409), EARLY])
def test_are_asked_for_again_while_they_are_early(clock: Clock, early: Any) -> None:
    results, lines = fetch(clock, early, early, THERE)
    assert results == THERE
    assert clock.passed == 20
    assert len(lines) == 1


def test_that_never_come_are_an_error_and_no_half_report(clock: Clock) -> None:
    with pytest.raises(PlanasonixLostTrackError, match="they say that it is running"):
        fetch(clock, EARLY)
    assert clock.passed >= 3_600


def test_that_stay_away_are_logged_once_a_minute(clock: Clock) -> None:
    _, lines = fetch(clock, *[EARLY] * 13, THERE)
    assert len(lines) == 3


@pytest.mark.parametrize("once", [api_error(404), api_error(401)])
def test_that_are_refused_once_are_asked_for_again(clock: Clock, once: PlanasonixError) -> None:
    results, _ = fetch(clock, once, THERE)
    assert results == THERE


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_that_are_refused_for_a_minute_are_an_error(clock: Clock, status: int) -> None:
    with pytest.raises(PlanasonixLostTrackError):
        fetch(clock, api_error(status))
    assert clock.passed == 60


@pytest.mark.parametrize("status", [302, 401, 403, 404, 408])
def test_that_a_proxy_refuses_are_asked_for_again(clock: Clock, status: int) -> None:
    page = api_error(status, has_envelope=False)
    assert fetch(clock, *[page] * 300, THERE)[0] == THERE
    with pytest.raises(PlanasonixOutageError):
        fetch(clock, page)


def test_that_a_429_puts_off_are_asked_for_when_it_says(clock: Clock) -> None:
    results, _ = fetch(clock, api_error(429, retry_after=300), THERE)
    assert results == THERE
    assert clock.passed == 300


class TestABackfill:
    WHOLE = Backfill(id="bf_1", status="completed", job_ids=["job_1", "job_2"])
    LATE = Backfill(id="bf_1", status="running", job_ids=["job_1"])

    def test_is_there_at_once_as_a_rule(self, clock: Clock) -> None:
        assert fetch_backfill(clock, self.WHOLE) == (self.WHOLE, [])
        assert clock.passed == 0

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    def test_is_taken_however_it_has_ended(self, clock: Clock, status: str) -> None:
        assert fetch_backfill(clock, Backfill(id="bf_1", status=status))[0].status == status

    def test_is_asked_for_again_in_an_outage(self, clock: Clock) -> None:
        backfill, lines = fetch_backfill(clock, *[api_error(503)] * 5, self.WHOLE)
        assert backfill == self.WHOLE
        assert clock.passed == 50
        assert lines == ["Backfill bf_1 is over, but its results cannot be fetched yet, still trying: 503"]

    def test_is_asked_for_again_while_the_answer_lags_behind(self, clock: Clock) -> None:
        backfill, lines = fetch_backfill(clock, self.LATE, self.WHOLE)
        assert backfill == self.WHOLE
        assert len(lines) == 1

    def test_that_stays_behind_is_an_error_and_no_half_account(self, clock: Clock) -> None:
        with pytest.raises(PlanasonixLostTrackError, match="is not complete yet: that it is running"):
            fetch_backfill(clock, self.LATE)
        assert clock.passed >= 3_600

    def test_that_is_refused_for_a_minute_is_an_error(self, clock: Clock) -> None:
        refusal = api_error(404)
        assert fetch_backfill(clock, refusal, self.WHOLE)[0] == self.WHOLE
        with pytest.raises(PlanasonixLostTrackError):
            fetch_backfill(clock, refusal)
