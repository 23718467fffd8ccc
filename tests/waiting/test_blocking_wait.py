from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Job
from planasonix_provider.api.request import Request
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.targets import JobTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState
from tests.support.api_errors import api_error
from tests.support.time_travel import BEGAN, TravelledClock

Answer = Callable[[float], Job | PlanasonixError]


def wait(travel: TravelledClock, answer: Answer, **arguments: Any) -> tuple[WaitEvent, list[float]]:
    """Wait for a job whose snapshot depends on the seconds passed. Return the event and the times of the polls."""
    polls: list[float] = []
    watch = WaitState(JobTarget("job_1"), now=BEGAN, info=str, warn=str, deadline=arguments.pop("deadline", None))

    def send(request: Request[Any]) -> Job:
        polls.append(round(travel.passed))
        found = answer(travel.passed)
        if isinstance(found, PlanasonixError):
            raise found
        return found

    event = blocking_wait.wait(watch, send, **{"interval": 10, **arguments})
    return event, polls


def running_for(seconds: float) -> Callable[[float], Job]:
    return lambda passed: Job(id="job_1", status="running" if passed < seconds else "succeeded")


def test_polls_once_an_interval(travel: TravelledClock) -> None:
    event, polls = wait(travel, running_for(35))
    assert event.outcome == "over"
    assert polls == [10, 20, 30, 40]


def test_stops_if_its_sleep_raises_because_the_task_was_killed(travel: TravelledClock) -> None:
    def nap(seconds: float) -> None:
        travel.sleep(seconds)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        wait(travel, running_for(1_000), sleep=nap)


@pytest.mark.parametrize("how", [{"interval": 600}, {"rate_limit_delay": lambda: 60.0}], ids=["interval", "rate limit"])
def test_ends_at_the_deadline_although_the_next_poll_is_later(travel: TravelledClock, how: dict[str, Any]) -> None:
    event, polls = wait(travel, running_for(1_000), deadline=BEGAN + timedelta(seconds=42), **how)
    assert event.is_out_of_time
    assert polls == []
    assert travel.passed == pytest.approx(42, abs=1)


def test_waits_out_an_outage_of_forty_minutes(travel: TravelledClock) -> None:
    down = api_error(503)
    event, _ = wait(travel, lambda passed: down if passed < 2_400 else running_for(2_500)(passed))
    assert event.outcome == "over"


def test_gives_up_after_an_hour_of_outage(travel: TravelledClock) -> None:
    event, _ = wait(travel, lambda _: api_error(503))
    assert event.error == "outage"
    assert travel.passed == pytest.approx(3_610, abs=11)


@pytest.mark.parametrize(("retry_after", "polls"), [(90, [10, 100]), (259_200, [10, 910])])
def test_waits_for_retry_after_but_at_most_15_minutes(
    travel: TravelledClock, retry_after: float, polls: list[float]
) -> None:
    busy = api_error(429, retry_after=retry_after)
    assert wait(travel, lambda passed: busy if passed < 20 else running_for(0)(passed))[1] == polls


def test_polls_later_if_the_rate_limit_is_nearly_exhausted(travel: TravelledClock) -> None:
    def rate_limit_delay() -> float:
        turn = 18 if travel.passed < 20 else 58 if travel.passed > 35 else 0
        return max(0.0, turn - travel.passed)

    assert wait(travel, running_for(35), rate_limit_delay=rate_limit_delay)[1] == [18, 28, 58]


def test_waits_for_the_rate_limit_for_at_most_a_minute(travel: TravelledClock) -> None:
    assert wait(travel, running_for(100), rate_limit_delay=lambda: 3_500.0)[1] == [70, 140]


def test_tolerates_a_refused_key_that_may_be_rotated(travel: TravelledClock) -> None:
    refusal = api_error(401)
    event, polls = wait(travel, lambda passed: refusal if passed < 15 else running_for(30)(passed))
    assert event.outcome == "over"
    assert polls == [10, 20, 30]
