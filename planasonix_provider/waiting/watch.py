"""What one wait has seen so far, and what it makes of it: the same on a worker and in the triggerer. No I/O, no clock.

Whoever waits tells a :class:`Watch` what each look brought; the watch writes the log, and says when the wait is over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixTimeoutError,
    PlanasonixUnreadableError,
    error_of,
)
from planasonix_provider.api.models import JOB_STATES_ACTIVE, JOB_STATES_OVER, Job
from planasonix_provider.api.retry import is_passing
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.words import count, duration, size

#: How long the API may be out of reach before a wait gives up.
LONGEST_OUTAGE = timedelta(hours=1)
#: At least this often a wait writes a line, so that a log which stands still means that the task does.
LOG_EVERY = timedelta(seconds=30)

#: For how many seconds the API can silence whoever waits at one go, whatever its ``Retry-After`` says.
LONGEST_SILENCE = 900.0
#: Refusals that a second look may lift: a job that was made this moment and is not seen everywhere yet, a key that is
#: being rotated. The second one in a row is meant.
REFUSED_TWICE = (PlanasonixNotFoundError, PlanasonixAuthenticationError)


class Watch:
    """One wait for one job.

    :param job_id: the job.
    :param now: the time at which the wait begins.
    :param info: writes a line to the wait's log.
    :param warn: writes a line that deserves attention.
    :param deadline: when to give up, or ``None`` for never.
    :param status: the state that the log shows already, where the wait goes on from another process.
    """

    def __init__(
        self,
        job_id: str,
        *,
        now: datetime,
        info: Callable[[str], object],
        warn: Callable[[str], object],
        deadline: datetime | None = None,
        status: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.deadline = deadline
        self.job: Job | None = None
        self._info = info
        self._warn = warn
        self.status = status
        self._began = now
        self._logged = now
        self._seen_at = now
        self._unseen_since: datetime | None = None
        self._refusals = 0

    def take(self, answer: Job | PlanasonixError | None, now: datetime) -> WaitEvent | None:
        """Take in whatever came.

        :param answer: what a look brought, why it failed, or ``None`` where time has just passed.
        :param now: the time.
        :return: how the wait ended, if it has.
        """
        if answer is None:
            return self.remind(now)
        return self.miss(answer, now) if isinstance(answer, PlanasonixError) else self.see(answer, now)

    def see(self, job: Job, now: datetime) -> WaitEvent | None:
        """Take in what a look has brought.

        :param job: the job, as the API shows it.
        :param now: the time of the look.
        :return: how the wait ended, if it has.
        """
        if job.id != self.job_id:
            return self.miss(PlanasonixUnreadableError(f"Asked for job {self.job_id}, got job {job.id}."), now)
        if self._unseen_since:
            self._say(now, f"Planasonix answers again, after {duration(_seconds(now - self._unseen_since))}.")
        self.job, self._seen_at, self._unseen_since, self._refusals = job, now, None, 0
        if job.status != self.status:
            self.status = job.status
            self._say(now, self._line(now) + self._remark(job))
        if job.is_over:
            return WaitEvent.over(job)
        return self.remind(now)

    def miss(self, error: PlanasonixError, now: datetime) -> WaitEvent | None:
        """Take in that a look has failed.

        :param error: what it ended with.
        :param now: the time of the look.
        :return: how the wait ended, if the error is none that passes, or has lasted for too long.
        """
        self._refusals = self._refusals + 1 if isinstance(error, REFUSED_TWICE) else 0
        if not (is_passing(error) or self._refusals == 1):
            return self._give_up(error_of(error.kind, f"{error} {self._left_behind}"))
        if self._unseen_since is None:
            self._unseen_since = now
            self._say(now, f"No news of job {self.job_id}, still waiting: {error}", warn=True)
        elif now - self._unseen_since >= LONGEST_OUTAGE:
            return self._give_up(
                PlanasonixLostTrackError(
                    f"No news of job {self.job_id} since {self._unseen_since:%Y-%m-%d %H:%M:%S} UTC, for more than "
                    f"{duration(LONGEST_OUTAGE.total_seconds())}. {self._left_behind} The last try: {error}"
                )
            )
        return self.remind(now)

    def remind(self, now: datetime) -> WaitEvent | None:
        """Let time pass: write a line where it is time for one, and mind the deadline.

        :param now: the time.
        :return: how the wait ended, if its time is up.
        """
        if self.deadline and now >= self.deadline:
            return self._give_up(
                PlanasonixTimeoutError(
                    f"Job {self.job_id} was not over by {self.deadline:%Y-%m-%d %H:%M:%S} UTC, the end of the time "
                    f"that timeout and execution_timeout allow; it was {self.status or 'not seen yet'}."
                )
            )
        if now - self._logged >= LOG_EVERY:
            self._say(now, self._line(now))
        return None

    def seconds_until_attention(self, now: datetime) -> float:
        """Say when :meth:`remind` has something to do.

        :param now: the time.
        :return: how many seconds from now that is.
        """
        next_line = self._logged + LOG_EVERY
        return max(0.0, _seconds(min(next_line, self.deadline or next_line) - now))

    @property
    def _left_behind(self) -> str:
        return f"The job was not cancelled and may still run: look at {self.job_id} before you clear the task."

    def _give_up(self, error: PlanasonixError) -> WaitEvent:
        return WaitEvent.failed(self.job_id, error, self.job)

    def _say(self, now: datetime, line: str, *, warn: bool = False) -> None:
        self._logged = now
        (self._warn if warn else self._info)(line)

    def _line(self, now: datetime) -> str:
        """Say how far the job has come."""
        if self._unseen_since:
            return f"Still no news of job {self.job_id}, for {duration(_seconds(now - self._unseen_since))} now."
        if self.job is None:
            return f"Waiting for job {self.job_id}, for {duration(_seconds(now - self._began))} now."
        job = self.job
        verb = "" if job.status in ("succeeded", "failed") else "is " if not job.is_over else "was "
        age = now - self._seen_at
        return (
            f"Job {job.id} {verb}{job.status}"
            + "".join(f", {part}" for part in progress(job))
            + f", {'in' if job.is_over else 'after'} {duration(self._elapsed(job, now))}"
            + (f" (seen {duration(_seconds(age))} ago)" if age >= LOG_EVERY else "")
            + "."
        )

    def _elapsed(self, job: Job, now: datetime) -> float:
        if job.is_over and job.duration_seconds is not None:
            return job.duration_seconds
        began = job.started_at or job.queued_at or job.created_at or self._began
        return _seconds((job.finished_at or now) - began)

    @staticmethod
    def _remark(job: Job) -> str:
        if job.status in JOB_STATES_OVER | JOB_STATES_ACTIVE:
            return ""
        return " This version does not know that state, and takes it for one that goes on."


def pause_after(answer: object, interval: float) -> float:
    """Say how long to wait until the next look.

    :param answer: what the last look brought.
    :param interval: the seconds between two looks.
    :return: the interval, or what a ``Retry-After`` asks for, within bounds: it may say three days.
    """
    return max(interval, min(getattr(answer, "retry_after", None) or 0.0, LONGEST_SILENCE))


def progress(job: Job) -> list[str]:
    """Say how much a job has moved.

    :param job: the job.
    :return: for each figure that the API gives, a few words.
    """
    metrics = job.metrics
    if metrics is None:
        return []
    words = []
    if metrics.rows_loaded is not None:
        words.append(f"{count(metrics.rows_loaded, 'row')} loaded")
    elif metrics.rows_extracted is not None:
        words.append(f"{count(metrics.rows_extracted, 'row')} extracted")
    if metrics.bytes_read is not None:
        words.append(f"{size(metrics.bytes_read)} read")
    return words


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
