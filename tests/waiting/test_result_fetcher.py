from __future__ import annotations

import asyncio
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixOutageError
from planasonix_provider.api.models import Backfill, JobResults
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from tests.support.api_errors import api_error
from tests.support.fake_clock import Clock

RESULTS = JobResults(job_id="job_1", status="succeeded")
EARLY_RESULTS = JobResults(job_id="job_1", status="running")
BACKFILL = Backfill(id="bf_1", status="completed", job_ids=["job_1", "job_2"])
EARLY_BACKFILL = Backfill(id="bf_1", status="running", job_ids=["job_1"])


def fetch(clock: Clock, *answers: Any) -> tuple[JobResults | Backfill, list[str]]:
    """Fetch what the last answer is; the API gives the answers in turn, the last one again and again.

    Return it, and the log.
    """
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
        fetcher = ResultFetcher(send, 10, lines.append, sleep, clock)
        return await (fetcher.backfill("bf_1") if isinstance(answers[-1], Backfill) else fetcher.results_of("job_1"))

    return asyncio.run(main()), lines


both = pytest.mark.parametrize("whole", [RESULTS, BACKFILL], ids=["results", "backfill"])


@both
def test_are_there_at_once_as_a_rule(clock: Clock, whole: Any) -> None:
    assert fetch(clock, whole) == (whole, [])
    assert clock.passed == 0


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_backfill_is_returned_however_it_has_ended(clock: Clock, status: str) -> None:
    assert fetch(clock, Backfill(id="bf_1", status=status))[0].status == status


@pytest.mark.parametrize(
    ("early", "whole"),
    [(api_error(409), RESULTS), (EARLY_RESULTS, RESULTS), (EARLY_BACKFILL, BACKFILL)],
    ids=["409", "results", "backfill"],
)
def test_are_fetched_again_while_they_are_early(clock: Clock, early: Any, whole: Any) -> None:
    result, lines = fetch(clock, early, early, whole)
    assert result == whole
    assert clock.passed == 20
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("early", "message"),
    [(EARLY_RESULTS, "they say that it is running"), (EARLY_BACKFILL, "is not complete yet: that it is running")],
    ids=["results", "backfill"],
)
def test_that_never_come_are_an_error_and_no_half_report(clock: Clock, early: Any, message: str) -> None:
    with pytest.raises(PlanasonixLostTrackError, match=message):
        fetch(clock, early)
    assert clock.passed >= 3_600


def test_that_stay_away_are_logged_once_a_minute(clock: Clock) -> None:
    _, lines = fetch(clock, *[EARLY_RESULTS] * 13, RESULTS)
    assert len(lines) == 3


@both
def test_are_fetched_again_in_an_outage(clock: Clock, whole: Any) -> None:
    result, lines = fetch(clock, *[api_error(503)] * 5, whole)
    assert result == whole
    assert clock.passed == 50
    name = "Backfill bf_1" if whole is BACKFILL else "Job job_1"
    assert lines == [f"{name} is over, but its results cannot be fetched yet, still trying: 503"]


@both
@pytest.mark.parametrize("status", [401, 404])
def test_that_are_refused_for_a_minute_are_an_error(clock: Clock, status: int, whole: Any) -> None:
    assert fetch(clock, api_error(status), whole)[0] == whole
    began = clock.passed
    with pytest.raises(PlanasonixLostTrackError):
        fetch(clock, *[api_error(status)] * 100, whole)
    assert clock.passed - began == 60


def test_that_a_proxy_refuses_are_fetched_again_for_an_hour(clock: Clock) -> None:
    page = api_error(403, has_envelope=False)
    assert fetch(clock, *[page] * 300, RESULTS)[0] == RESULTS
    with pytest.raises(PlanasonixOutageError):
        fetch(clock, page)


def test_that_a_429_puts_off_are_fetched_when_it_says(clock: Clock) -> None:
    results, _ = fetch(clock, api_error(429, retry_after=300), RESULTS)
    assert results == RESULTS
    assert clock.passed == 300
