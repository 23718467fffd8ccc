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
    """Fetch from an API that returns these answers in order, and repeats the last one, which is the complete one.

    Return the result, and the log.
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
def test_returns_complete_results_at_once(travel: TravelledClock, whole: Any) -> None:
    assert fetch(travel, whole) == (whole, [])
    assert travel.passed == 0


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_returns_a_backfill_in_any_final_state(travel: TravelledClock, status: str) -> None:
    assert fetch(travel, Backfill(id="bf_1", status=status))[0].status == status


@pytest.mark.parametrize(
    ("early", "whole"),
    [(api_error(409), RESULTS), (EARLY_RESULTS, RESULTS), (EARLY_BACKFILL, BACKFILL)],
    ids=["409", "results", "backfill"],
)
def test_fetches_again_while_results_are_incomplete(travel: TravelledClock, early: Any, whole: Any) -> None:
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
def test_raises_an_error_if_results_stay_incomplete(travel: TravelledClock, early: Any, message: str) -> None:
    with pytest.raises(PlanasonixLostTrackError, match=message):
        fetch(travel, early)
    assert travel.passed >= 3_600


def test_logs_incomplete_results_once_a_minute(travel: TravelledClock) -> None:
    _, lines = fetch(travel, *[EARLY_RESULTS] * 13, RESULTS)
    assert len(lines) == 3


@both
def test_fetches_again_during_an_outage(travel: TravelledClock, whole: Any) -> None:
    result, lines = fetch(travel, *[api_error(503)] * 5, whole)
    assert result == whole
    assert travel.passed == 50
    name = "Backfill bf_1" if whole is BACKFILL else "Job job_1"
    assert lines == [f"{name} is over, but its results cannot be fetched yet, still trying: 503"]


@both
@pytest.mark.parametrize("status", [401, 404])
def test_raises_an_error_after_a_minute_of_refusals(travel: TravelledClock, status: int, whole: Any) -> None:
    assert fetch(travel, api_error(status), whole)[0] == whole
    began = travel.passed
    with pytest.raises(PlanasonixLostTrackError):
        fetch(travel, *[api_error(status)] * 100, whole)
    assert travel.passed - began == 60


def test_fetches_again_for_an_hour_if_a_proxy_refuses(travel: TravelledClock) -> None:
    page = api_error(403, has_envelope=False)
    assert fetch(travel, *[page] * 300, RESULTS)[0] == RESULTS
    with pytest.raises(PlanasonixOutageError):
        fetch(travel, page)


def test_waits_for_retry_after(travel: TravelledClock) -> None:
    results, _ = fetch(travel, api_error(429, retry_after=300), RESULTS)
    assert results == RESULTS
    assert travel.passed == 300
