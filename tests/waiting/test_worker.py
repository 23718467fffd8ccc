from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixRateLimitError,
    PlanasonixServerError,
)
from planasonix_provider.api.models import Job, JobResults
from planasonix_provider.waiting import worker
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.watch import Watch

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = BEGAN
        self.longest = 0.0

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self.now += timedelta(seconds=seconds)

    @property
    def passed(self) -> float:
        return (self.now - BEGAN).total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait(
    clock: Clock, answer: Callable[[float], Job | PlanasonixError], **arguments: Any
) -> tuple[WaitEvent, list[float]]:
    """Wait for a job that answers by the seconds passed; give the event, and when it was looked at."""
    looks: list[float] = []
    deadline = arguments.pop("deadline", None)

    def look() -> Job:
        looks.append(round(clock.passed))
        found = answer(clock.passed)
        if isinstance(found, PlanasonixError):
            raise found
        return found

    event = worker.wait(
        Watch("job_1", now=clock(), info=str, warn=str, deadline=deadline),
        look,
        **{
            "interval": 10,
            "read_again": lambda: None,
            "stop_if_killed": lambda: None,
            "now": clock,
            "sleep": clock.sleep,
            **arguments,
        },
    )
    return event, looks


def running_for(seconds: float) -> Callable[[float], Job]:
    return lambda passed: Job(id="job_1", status="running" if passed < seconds else "succeeded")


def test_looks_once_an_interval(clock: Clock) -> None:
    event, looks = wait(clock, running_for(35))
    assert event.outcome == "over"
    assert looks == [10, 20, 30, 40]


def test_naps_so_briefly_that_a_kill_is_noticed(clock: Clock) -> None:
    wait(clock, running_for(35), interval=300)
    assert clock.longest <= 0.5


def test_stops_when_the_task_is_killed(clock: Clock) -> None:
    def stop() -> None:
        if clock.passed > 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        wait(clock, running_for(1_000), stop_if_killed=stop)
    assert clock.passed < 5


def test_ends_at_the_deadline_though_the_next_look_is_far(clock: Clock) -> None:
    event, looks = wait(clock, running_for(1_000), interval=600, deadline=BEGAN + timedelta(seconds=42))
    assert event.is_out_of_time
    assert looks == []
    assert clock.passed == pytest.approx(42, abs=1)


def test_waits_out_an_outage_of_forty_minutes(clock: Clock) -> None:
    down = PlanasonixServerError("503", status=503)
    event, _ = wait(clock, lambda passed: down if passed < 2_400 else running_for(2_500)(passed))
    assert event.outcome == "over"


def test_gives_up_after_an_hour_of_outage(clock: Clock) -> None:
    event, _ = wait(clock, lambda _: PlanasonixServerError("503", status=503))
    assert event.error == "server"
    assert clock.passed == pytest.approx(3_610, abs=11)


def test_waits_as_long_as_a_429_asks(clock: Clock) -> None:
    busy = PlanasonixRateLimitError("429", status=429, retry_after=90)
    _, looks = wait(clock, lambda passed: busy if passed < 20 else running_for(0)(passed))
    assert looks == [10, 100]


def test_reads_the_connection_again_when_its_key_is_refused(clock: Clock) -> None:
    read_again: list[float] = []
    event, looks = wait(
        clock,
        lambda _: running_for(30)(clock.passed) if read_again else PlanasonixAuthenticationError("401", status=401),
        read_again=lambda: read_again.append(clock.passed),
    )
    assert event.outcome == "over"
    assert len(read_again) == 1
    assert looks == [10, 20, 30]


class TestResults:
    @staticmethod
    def fetch(clock: Clock, answers: list[JobResults | PlanasonixError]) -> tuple[JobResults, list[str]]:
        lines: list[str] = []

        def ask() -> JobResults:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, PlanasonixError):
                raise answer
            return answer

        results = worker.fetch_results(
            "job_1", ask, interval=10, warn=lines.append, stop_if_killed=lambda: None, now=clock, sleep=clock.sleep
        )
        return results, lines

    def test_are_there_at_once_as_a_rule(self, clock: Clock) -> None:
        _, lines = self.fetch(clock, [JobResults(job_id="job_1", status="succeeded")])
        assert clock.passed == 0
        assert lines == []

    @pytest.mark.parametrize(
        "early", [PlanasonixConflictError("409", status=409), JobResults(job_id="job_1", status="running")]
    )
    def test_are_asked_for_again_while_they_are_early(self, clock: Clock, early: Any) -> None:
        results, lines = self.fetch(clock, [early, early, JobResults(job_id="job_1", status="succeeded")])
        assert results.status == "succeeded"
        assert clock.passed == pytest.approx(20)
        assert len(lines) == 1

    def test_that_never_come_are_an_error_and_no_half_report(self, clock: Clock) -> None:
        with pytest.raises(PlanasonixConflictError, match="they say that it is running"):
            self.fetch(clock, [JobResults(job_id="job_1", status="running")])
        assert clock.passed >= 3_600

    def test_that_are_refused_are_an_error_at_once(self, clock: Clock) -> None:
        with pytest.raises(PlanasonixNotFoundError):
            self.fetch(clock, [PlanasonixNotFoundError("404", status=404)])
        assert clock.passed == 0
