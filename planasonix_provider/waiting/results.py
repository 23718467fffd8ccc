"""Gets what a job has loaded, with the patience of a wait: the work is done, and a failure now would repeat it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError
from planasonix_provider.api.models import JOB_STATES_OVER, JobResults
from planasonix_provider.api.retry import is_passing
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.watch import LOG_EVERY, LONGEST_OUTAGE, REFUSED_TWICE, pause_after


def fetch_results(
    job_id: str,
    fetch: Callable[[], JobResults],
    *,
    interval: float,
    warn: Callable[[str], object],
    nap: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utcnow,
) -> JobResults:
    """Ask for the results of a job that has succeeded until they are there.

    :param job_id: the job.
    :param fetch: asks for the results, and raises a ``PlanasonixError`` where that fails.
    :param interval: the seconds between two tries.
    :param warn: writes a line that deserves attention to the task's log.
    :param nap: lets a number of seconds pass, and raises what ends the task if it was killed.
    :param now: tells the time, in UTC.
    :return: the results.
    :raises PlanasonixError: if they are refused, or cannot be had within the time that an outage may last.
    """
    give_up = now() + LONGEST_OUTAGE
    told: datetime | None = None
    refusals = 0
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
        refusals = refusals + 1 if isinstance(trouble, REFUSED_TWICE) else 0
        passes = is_passing(trouble) or isinstance(trouble, PlanasonixConflictError) or refusals == 1
        if now() >= give_up or not passes:
            raise trouble
        if told is None or now() - told >= LOG_EVERY:
            told = now()
            warn(f"Job {job_id} succeeded, but its results cannot be had yet, trying on: {trouble}")
        nap(pause_after(trouble, interval))
