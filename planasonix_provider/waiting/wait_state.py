"""The state of one wait, and what each response means for it: the same on a worker and in the triggerer.

The loop that polls passes each response to a :class:`WaitState`, which writes the log and returns the event that ends
the wait. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime, timedelta

from planasonix_provider.api.errors import PlanasonixError, PlanasonixOutageError, PlanasonixTimeoutError, error_of
from planasonix_provider.api.retry import is_permanent
from planasonix_provider.waiting.formatting import format_duration, format_time
from planasonix_provider.waiting.outages import (
    LOG_OUTAGE_EVERY,
    Contact,
    OutagePolicy,
    OutageTracker,
    Verdict,
    never_reached,
)
from planasonix_provider.waiting.request_flow import Steps
from planasonix_provider.waiting.targets import Snapshot, WaitTarget, Work
from planasonix_provider.waiting.wait_event import WaitEvent

#: Log at least this often, so that a silent log means a hung task.
LOG_EVERY = timedelta(seconds=30)
#: After this time without progress, the log says so.
STALL_WARNING_AFTER = timedelta(minutes=10)


class WaitState:
    """One wait.

    :param limit: the task's parameter that has set the deadline, for the message; ``None`` if it is not known.
    :param status: the state that the log shows already, if the wait continues from another process.
    :param is_owned: whether the task has started the work. Then messages say what remains if the wait ends early.
    :param is_known: whether the work was seen before. It also counts as seen if it is owned or has a status. A sensor
        that has not seen its job yet may have a wrong id.
    :param has_contact: whether the host has answered before; without, the host of a known job may be mistyped.
    :param is_silent: whether transient errors never end the wait, as with a sensor's ``silent_fail``.
    :param unseen_since: when an outage began that continues from another process.
    """

    def __init__(
        self,
        target: WaitTarget,
        *,
        now: datetime,
        info: Callable[[str], object],
        warn: Callable[[str], object],
        deadline: datetime | None = None,
        limit: str | None = None,
        status: str | None = None,
        is_owned: bool = True,
        is_known: bool = False,
        has_contact: bool = True,
        policy: OutagePolicy | None = None,
        is_silent: bool = False,
        unseen_since: datetime | None = None,
    ) -> None:
        self.target = target
        self.deadline = deadline
        self.limit = limit
        self.status = status
        known = Contact.WORK if is_owned or is_known or status else Contact.NONE
        self._outage = OutageTracker(policy, known, has_contact=has_contact, since=unseen_since)
        self._info = info
        self._warn = warn
        self._is_owned = is_owned
        self._is_silent = is_silent
        self._is_silent_about = False
        self._has_logged_outage = unseen_since is not None
        self._seen: Snapshot | None = None
        self._moves: Hashable | None = None
        self._seen_at = self._moved_at = self._logged = self._detailed = self._began = now

    @property
    def work(self) -> Work | None:
        """The work as it was last seen."""
        return self._seen.work if self._seen else None

    @property
    def unseen_since(self) -> datetime | None:
        """When the outage began; ``None`` while polls succeed."""
        return self._outage.since

    @property
    def is_known(self) -> bool:
        """Whether the work was seen before."""
        return self._outage.contact is Contact.WORK

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last poll met an error that ends the wait unless it passes within minutes."""
        return self._outage.is_short and not self._is_silent_about

    def poll(self, now: datetime) -> Steps[Snapshot]:
        """Return the flow of a poll; now and then one that also requests figures for the log."""
        if detailed := now - self._detailed >= LOG_EVERY:
            self._detailed = now
        return self.target.poll(now, detailed=detailed)

    def update(self, answer: Snapshot | PlanasonixError | None, now: datetime, age: float = 0.0) -> WaitEvent | None:
        """Process a snapshot, an error, or ``None`` if only time passed; return the event that ends the wait, if any.

        ``age`` is how many seconds ago the poll was.
        """
        if answer is None:
            return self.on_tick(now)
        return self.on_error(answer, now) if isinstance(answer, PlanasonixError) else self.on_snapshot(answer, now, age)

    def on_snapshot(self, seen: Snapshot, now: datetime, age: float = 0.0) -> WaitEvent | None:
        """Process the result of a poll; return the event that ends the wait, if any."""
        if self.unseen_since and self._has_logged_outage:
            self._log_line(
                now, f"Planasonix answers again, after {format_duration(_seconds(now - self.unseen_since))}."
            )
        self._has_logged_outage = False
        if self._seen is None:
            self._moved_at = min(now, seen.moved_at or now)
        elif seen.status != self._seen.status or (seen.moves is not None and seen.moves != self._moves):
            self._moved_at = now
        # Not every response shows progress.
        self._moves = seen.moves if seen.moves is not None else self._moves
        self._seen, self._seen_at = seen, now - timedelta(seconds=age)
        self._outage.succeed()
        if seen.status != self.status:
            self.status = seen.status
            self._log_line(now, self._line(now))
        if seen.is_over and seen.work:
            return WaitEvent.over(self.target, seen.work)
        return self.on_tick(now)

    def on_error(self, error: PlanasonixError, now: datetime) -> WaitEvent | None:
        """Process the error of a poll; return the event that ends the wait, if the error is not tolerated."""
        verdict = self._outage.fail(error, now)
        self._is_silent_about = self._is_silent and not is_permanent(error)
        if verdict is not Verdict.TOLERATED and not self._is_silent_about:
            return self._give_up(self._reason_to_give_up(error, verdict))
        if not self._has_logged_outage and self._outage.is_news(now):
            self._has_logged_outage = True
            self._log_line(now, f"No news of {self.target.name}, still waiting: {error}", warn=True)
        return self.on_tick(now)

    def _reason_to_give_up(self, error: PlanasonixError, verdict: Verdict) -> PlanasonixError:
        if verdict is Verdict.NO_CONTACT:
            return error_of(error.kind, never_reached(error, self._outage.policy))
        if verdict is Verdict.REFUSED or self.unseen_since is None:
            return error_of(error.kind, f"{error}{self.leftover_note(is_permanent(error))}", error.code)
        return PlanasonixOutageError(
            f"No news of {self.target.name} since {format_time(self.unseen_since)}, for more than "
            f"{format_duration(_seconds(self._outage.policy.outage))}.{self.leftover_note(False)} The last try: {error}"
        )

    def on_final_poll(self, answer: Snapshot | PlanasonixError, event: WaitEvent) -> WaitEvent:
        """Return the event of work that has ended since the last poll, or else ``event``, that of the deadline."""
        if isinstance(answer, Snapshot) and answer.is_over and answer.work:
            return WaitEvent.over(self.target, answer.work)
        return event

    def on_tick(self, now: datetime) -> WaitEvent | None:
        """Log if it is time to; return the event that ends the wait, if the deadline has passed."""
        if self.deadline and now >= self.deadline:
            return self._give_up(
                PlanasonixTimeoutError(
                    f"{self.target.goal} by {format_time(self.deadline)}, when the task's "
                    f"{self.limit or 'timeout or execution_timeout'} was up{self._last_state}."
                )
            )
        if now >= self._next_line:
            self._log_line(now, self._line(now))
        return None

    def seconds_until_attention(self, now: datetime) -> float:
        """Return the seconds until :meth:`on_tick` has something to do."""
        return max(0.0, _seconds(min(self._next_line, self.deadline or self._next_line) - now))

    def seconds_until_deadline(self, now: datetime) -> float | None:
        """Return the seconds until the deadline, or ``None`` if there is none."""
        return None if self.deadline is None else max(0.0, _seconds(self.deadline - now))

    def leftover_note(self, is_for_ever: bool) -> str:
        """Return what a message adds if the wait ends early: a sentence with a space before it, or nothing."""
        if not self._is_owned:
            return ""
        what_now = (
            f"look at {self.target.id} before you clear the task"
            if is_for_ever
            else "a retry goes on with it, and a cleared task ends it first"
        )
        return f" The {self.target.kind} was not cancelled and may still run: {what_now}."

    @property
    def _next_line(self) -> datetime:
        return self._logged + (LOG_OUTAGE_EVERY if self.unseen_since else LOG_EVERY)

    @property
    def _last_state(self) -> str:
        if self._seen and not self._seen.work:
            return ""
        return f"; it was {self.status or 'not seen yet'}"

    def _give_up(self, error: PlanasonixError) -> WaitEvent:
        return WaitEvent.failed(self.target, error, self._seen.work if self._seen else None)

    def _log_line(self, now: datetime, line: str, *, warn: bool = False) -> None:
        self._logged = now
        (self._warn if warn else self._info)(line)

    def _line(self, now: datetime) -> str:
        """Return a log line about the progress."""
        if self.unseen_since:
            return f"Still no news of {self.target.name}, for {format_duration(_seconds(now - self.unseen_since))} now."
        if self._seen is None:
            return f"Waiting for {self.target.name}, for {format_duration(_seconds(now - self._began))} now."
        seen, age, still = self._seen, now - self._seen_at, now - self._moved_at
        if seen.took is not None:
            passed = f"in {format_duration(seen.took)}"
        else:
            passed = f"after {format_duration(_seconds(now - (seen.began or self._began)))}"
        rests = not seen.is_over and seen.moves is not None and still >= STALL_WARNING_AFTER
        return (
            ", ".join([seen.description, *seen.progress, passed])
            + (f" (seen {format_duration(_seconds(age))} ago)" if age >= LOG_EVERY else "")
            + (f"; nothing has moved for {format_duration(_seconds(still))}" if rests else "")
            + "."
        )


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
