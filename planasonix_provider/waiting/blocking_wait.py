"""Waits on a worker: blocks, and looks once an interval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider import clock
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.rate_limiter import MAX_DELAY
from planasonix_provider.api.request import Request
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.outages import pause_after
from planasonix_provider.waiting.request_flow import run_flow
from planasonix_provider.waiting.targets import Snapshot
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

#: How long a look that is due lets others go first.
LONGEST_DELAY = timedelta(seconds=MAX_DELAY)


def wait(
    watch: WaitState,
    send: Callable[[Request[Any]], Any],
    *,
    interval: float,
    rest: Callable[[], float] = lambda: 0.0,
    nap: Callable[[float], None] = clock.sleep,
    now: Callable[[], datetime] = utcnow,
) -> WaitEvent:
    """Look once an interval until the wait ends.

    :param watch: says what to look at, and judges what the looks bring.
    :param send: asks the API once, and raises a ``PlanasonixError`` where that fails.
    :param interval: the seconds between two looks; after a ``Retry-After`` it is longer.
    :param rest: says for how many seconds a look had better wait, when it is due: the rate limit may run short. A
        minute is the most that it does.
    :param nap: lets a number of seconds pass, and raises what ends the task if it was killed.
    :param now: tells the time, in UTC.
    :return: how the wait ended.
    """
    pause = interval
    while True:
        next_look = now() + timedelta(seconds=pause)
        while left := _seconds_until(next_look, now()) or min(rest(), _seconds_until(next_look + LONGEST_DELAY, now())):
            if event := watch.on_tick(now()):
                return event
            nap(min(left, watch.seconds_until_attention(now())))
        answer = look(watch, send, now=now)
        if event := watch.update(answer, now()):
            return event
        pause = pause_after(answer, interval)


def _seconds_until(moment: datetime, now: datetime) -> float:
    return max(0.0, (moment - now).total_seconds())


def look(
    watch: WaitState, send: Callable[[Request[Any]], Any], *, now: Callable[[], datetime] = utcnow
) -> Snapshot | PlanasonixError:
    """Look once, where a failure is an answer, too.

    :param watch: says what to look at.
    :param send: asks the API once, and raises a ``PlanasonixError`` where that fails.
    :param now: tells the time, in UTC.
    :return: what the look brought, or why it failed.
    """
    try:
        return run_flow(watch.poll(now()), send)
    except PlanasonixError as error:
        return error
