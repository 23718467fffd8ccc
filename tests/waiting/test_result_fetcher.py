from __future__ import annotations

from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixOutageError
from planasonix_provider.api.models import Backfill, JobResults
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from tests.support.api_errors import api_error
from tests.support.time_travel import TravelledClock

RESULTS = JobResults(job_id="job_1", status="succeeded")
EARLY_RESULTS = JobResults(job_id="job_1", status="running")
BACKFILL = Backfill(id="bf_1", status="completed", job_ids=["job_1", "job_2"])
EARLY_BACKFILL = Backfill(id="bf_1", status="running", job_ids=["job_1"])


def fetch(travel: TravelledClock, *answers: Any) -> tuple[JobResults | Backfill, list[str]]:
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

    async def main() -> Any:
        fetcher = ResultFetcher(send, 10, lines.append)
        return await (fetcher.backfill("bf_1") if isinstance(answers[-1], Backfill) else fetcher.results_of("job_1"))

    return travel.run(main()), lines


both = pytest.mark.parametrize("whole", [RESULTS, BACKFILL], ids=["results", "backfill"])


@both
def test_are_there_at_once_as_a_rule(travel: TravelledClock, whole: Any) -> None:
    assert fetch(travel, whole) == (whole, [])
    assert travel.passed == 0


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_backfill_is_returned_however_it_has_ended(travel: TravelledClock, status: str) -> None:
    assert fetch(travel, Backfill(id="bf_1", status=status))[0].status == status


@pytest.mark.parametrize(
    ("early", "whole"),
    [(api_error(409), RESULTS), (EARLY_RESULTS, RESULTS), (EARLY_BACKFILL, BACKFILL)],
    ids=["409", "results", "backfill"],
)
def test_are_fetched_again_while_they_are_early(travel: TravelledClock, early: Any, whole: Any) -> None:
    result, lines = fetch(travel, early, early, whole)
    assert result == whole
    assert travel.passed == 20
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("early", "message"),
    [
        (EARLY_RESULTS, "they say that it is running"),
        (EARLY_BACKFILL, "are not complete yet: they say that it is running"),
    ],
    ids=["results", "backfill"],
)
def test_that_never_come_are_an_error_and_no_half_report(travel: TravelledClock, early: Any, message: str) -> None:
    with pytest.raises(PlanasonixLostTrackError, match=message):
        fetch(travel, early)
    assert travel.passed >= 3_600


def test_that_stay_away_are_logged_once_a_minute(travel: TravelledClock) -> None:
    _, lines = fetch(travel, *[EARLY_RESULTS] * 13, RESULTS)
    assert len(lines) == 3


@both
def test_are_fetched_again_in_an_outage(travel: TravelledClock, whole: Any) -> None:
    result, lines = fetch(travel, *[api_error(503)] * 5, whole)
    assert result == whole
    assert travel.passed == 50
    name = "Backfill bf_1" if whole is BACKFILL else "Job job_1"
    assert lines == [f"{name} is over, but its results cannot be fetched yet, still trying: 503"]


@both
@pytest.mark.parametrize("status", [401, 404])
def test_that_are_refused_for_a_minute_are_an_error(travel: TravelledClock, status: int, whole: Any) -> None:
    assert fetch(travel, api_error(status), whole)[0] == whole
    began = travel.passed
    with pytest.raises(PlanasonixLostTrackError):
        fetch(travel, *[api_error(status)] * 100, whole)
    assert travel.passed - began == 60


def test_that_a_proxy_refuses_are_fetched_again_for_an_hour(travel: TravelledClock) -> None:
    page = api_error(403, has_envelope=False)
    assert fetch(travel, *[page] * 300, RESULTS)[0] == RESULTS
    with pytest.raises(PlanasonixOutageError):
        fetch(travel, page)


def test_that_a_429_puts_off_are_fetched_when_it_says(travel: TravelledClock) -> None:
    results, _ = fetch(travel, api_error(429, retry_after=300), RESULTS)
    assert results == RESULTS
    assert travel.passed == 300
