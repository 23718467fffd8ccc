"""Waits on a worker: blocks, and looks once an interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Job
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.watch import Watch, pause_after


def wait(
    watch: Watch,
    look: Callable[[], Job],
    *,
    interval: float,
    nap: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utcnow,
) -> WaitEvent:
    """Look at a job once an interval until the wait ends.

    :param watch: judges what the looks bring.
    :param look: asks the API once for the job, and raises a ``PlanasonixError`` where that fails.
    :param interval: the seconds between two looks; after a ``Retry-After`` it is longer.
    :param nap: lets a number of seconds pass, and raises what ends the task if it was killed.
    :param now: tells the time, in UTC.
    :return: how the wait ended.
    """
    pause = interval
    while True:
        next_look = now() + timedelta(seconds=pause)
        while (left := (next_look - now()).total_seconds()) > 0:
            if event := watch.remind(now()):
                return event
            nap(min(left, watch.seconds_until_attention(now())))
        answer = outcome_of(look)
        if event := watch.take(answer, now()):
            return event
        pause = pause_after(answer, interval)


def outcome_of(call: Callable[[], Job]) -> Job | PlanasonixError:
    """Call the API where a failure is an answer, too.

    :param call: calls it.
    :return: what it gave, or why it failed.
    """
    try:
        return call()
    except PlanasonixError as error:
        return error
