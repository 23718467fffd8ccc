"""Waits on a worker: blocks, and polls once per interval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider import clock
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.rate_limiter import MAX_DELAY_SECONDS
from planasonix_provider.api.request import Request
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting.outages import pause_after
from planasonix_provider.waiting.request_flow import run_flow
from planasonix_provider.waiting.targets import Snapshot
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

#: How long a due poll waits at most if the rate limit runs short.
MAX_RATE_LIMIT_DELAY = timedelta(seconds=MAX_DELAY_SECONDS)


def wait(
    state: WaitState,
    send: Callable[[Request[Any]], Any],
    *,
    interval: float,
    rate_limit_delay: Callable[[], float] = lambda: 0.0,
    sleep: Callable[[float], None] = clock.sleep,
) -> WaitEvent:
    """Poll once per interval until the wait ends, and return how it ended.

    ``send`` sends a request once. ``rate_limit_delay`` returns for how many seconds a due poll should wait, because the
    rate limit runs short. ``sleep`` raises an error if the task was killed.
    """
    pause = interval
    while True:
        next_poll = utcnow() + timedelta(seconds=pause)
        while left := _seconds_until(next_poll) or min(
            rate_limit_delay(), _seconds_until(next_poll + MAX_RATE_LIMIT_DELAY)
        ):
            if event := state.on_tick(utcnow()):
                return event
            sleep(min(left, state.seconds_until_attention(utcnow())))
        answer = poll(state, send)
        if event := state.update(answer, utcnow()):
            return event
        pause = pause_after(answer, interval)


def _seconds_until(moment: datetime) -> float:
    return max(0.0, (moment - utcnow()).total_seconds())


def poll(state: WaitState, send: Callable[[Request[Any]], Any]) -> Snapshot | PlanasonixError:
    """Poll once; return the snapshot or the error."""
    try:
        return run_flow(state.poll(utcnow()), send)
    except PlanasonixError as error:
        return error
