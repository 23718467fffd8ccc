"""Waits on a worker: blocks, and looks once an interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixConflictError, PlanasonixError
from planasonix_provider.api.models import JOB_STATES_OVER, Job, JobResults
from planasonix_provider.api.retry import is_passing
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.watch import LONGEST_OUTAGE, Watch

# A signal's handler runs and returns, and the sleep that it broke into goes on. So sleep in short pieces, and look at
# the flag that the handler sets.
_LONGEST_NAP = 0.5


def utcnow() -> datetime:
    """Tell the time.

    :return: now, in UTC.
    """
    return datetime.now(UTC)


def outcome_of(call: Callable[[], Job]) -> Job | PlanasonixError:
    """Call the API where a failure is an answer, too.

    :param call: calls it.
    :return: what it gave, or why it failed.
    """
    try:
        return call()
    except PlanasonixError as error:
        return error


def wait(
    watch: Watch,
    look: Callable[[], Job],
    *,
    interval: float,
    read_again: Callable[[], None],
    stop_if_killed: Callable[[], None],
    now: Callable[[], datetime] = utcnow,
    sleep: Callable[[float], None] = time.sleep,
) -> WaitEvent:
    """Look at a job once an interval until the wait ends.

    :param watch: judges what the looks bring.
    :param look: asks the API once for the job, and raises a ``PlanasonixError`` where that fails.
    :param interval: the seconds between two looks; after a ``Retry-After`` it is longer.
    :param read_again: lets the next look read the Airflow connection again, for its key may have been rotated.
    :param stop_if_killed: raises what ends the task if it was killed; called at least twice a second.
    :param now: tells the time, in UTC.
    :param sleep: lets a number of seconds pass.
    :return: how the wait ended.
    """
    pause = interval
    while True:
        next_look = now() + timedelta(seconds=pause)
        while (left := (next_look - now()).total_seconds()) > 0:
            stop_if_killed()
            if ending := watch.remind(now()):
                return ending
            sleep(min(left, _LONGEST_NAP, watch.seconds_until_attention(now()) or _LONGEST_NAP))
        stop_if_killed()
        answer = outcome_of(look)
        if isinstance(answer, PlanasonixAuthenticationError):
            read_again()
        pause = max(interval, getattr(answer, "retry_after", None) or 0.0)
        if ending := watch.take(answer, now()):
            return ending


def fetch_results(
    job_id: str,
    fetch: Callable[[], JobResults],
    *,
    interval: float,
    warn: Callable[[str], object],
    stop_if_killed: Callable[[], None],
    now: Callable[[], datetime] = utcnow,
    sleep: Callable[[float], None] = time.sleep,
) -> JobResults:
    """Get the results of a job that has succeeded, with the patience of a wait: the work is done and paid for.

    :param job_id: the job.
    :param fetch: asks for the results, and raises a ``PlanasonixError`` where that fails.
    :param interval: the seconds between two tries.
    :param warn: writes a line that deserves attention to the task's log.
    :param stop_if_killed: raises what ends the task if it was killed.
    :param now: tells the time, in UTC.
    :param sleep: lets a number of seconds pass.
    :return: the results.
    :raises PlanasonixError: if they cannot be had within the time that an outage may last.
    """
    give_up = now() + LONGEST_OUTAGE
    told = False
    while True:
        try:
            results = fetch()
            if results.status in JOB_STATES_OVER:
                return results
            # What the API gives while a job runs; a part of it that lags behind may still do so.
            trouble: PlanasonixError = PlanasonixConflictError(
                f"The results of job {job_id} are not complete: they say that it is {results.status}."
            )
        except PlanasonixError as error:
            trouble = error
        if now() >= give_up or not (is_passing(trouble) or isinstance(trouble, PlanasonixConflictError)):
            raise trouble
        if not told:
            warn(f"Job {job_id} succeeded, but its results cannot be had yet, trying on: {trouble}")
            told = True
        next_try = now() + timedelta(seconds=max(interval, getattr(trouble, "retry_after", None) or 0.0))
        while (left := (next_try - now()).total_seconds()) > 0:
            stop_if_killed()
            sleep(min(left, _LONGEST_NAP))
