from __future__ import annotations

import asyncio
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
)
from planasonix_provider.api.models import JobResults
from planasonix_provider.waiting.patience import Patience
from tests.waiting.clock import Clock

THERE = JobResults(job_id="job_1", status="succeeded")
EARLY = JobResults(job_id="job_1", status="running")


def fetch(clock: Clock, *answers: Any) -> tuple[JobResults, list[str]]:
    """Fetch results that come as the answers say, the last one again and again; give them, and the log."""
    coming = list(answers)
    lines: list[str] = []

    async def send(_: Any) -> Any:
        answer = coming.pop(0) if len(coming) > 1 else coming[0]
        if isinstance(answer, PlanasonixError):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    return asyncio.run(Patience(send, 10, lines.append, sleep, clock).results_of("job_1")), lines


def test_are_there_at_once_as_a_rule(clock: Clock) -> None:
    assert fetch(clock, THERE) == (THERE, [])
    assert clock.passed == 0


@pytest.mark.parametrize("early", [PlanasonixConflictError("409", status=409), EARLY])
def test_are_asked_for_again_while_they_are_early(clock: Clock, early: Any) -> None:
    results, lines = fetch(clock, early, early, THERE)
    assert results == THERE
    assert clock.passed == 20
    assert len(lines) == 1


def test_that_never_come_are_an_error_and_no_half_report(clock: Clock) -> None:
    with pytest.raises(PlanasonixConflictError, match="they say that it is running"):
        fetch(clock, EARLY)
    assert clock.passed >= 3_600


def test_that_stay_away_are_told_of_every_half_minute(clock: Clock) -> None:
    _, lines = fetch(clock, *[EARLY] * 7, THERE)
    assert len(lines) == 3


@pytest.mark.parametrize(
    "once", [PlanasonixNotFoundError("404", status=404), PlanasonixAuthenticationError("401", status=401)]
)
def test_that_are_refused_once_are_asked_for_again(clock: Clock, once: PlanasonixError) -> None:
    results, _ = fetch(clock, once, THERE)
    assert results == THERE


def test_that_are_refused_twice_are_an_error(clock: Clock) -> None:
    with pytest.raises(PlanasonixNotFoundError):
        fetch(clock, PlanasonixNotFoundError("404", status=404))
    assert clock.passed == 10


def test_that_the_key_may_not_read_are_an_error_at_once(clock: Clock) -> None:
    with pytest.raises(PlanasonixPermissionError):
        fetch(clock, PlanasonixPermissionError("403", status=403))
    assert clock.passed == 0
