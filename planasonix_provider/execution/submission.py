"""How a try gets hold of its work: it starts it, or goes on with what an earlier try or a lost answer has left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixTimeoutError
from planasonix_provider.api.models import Job
from planasonix_provider.api.retry import NO_RETRY, had_no_effect, has_unknown_effect
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.conflicts import ConflictHandler
from planasonix_provider.execution.previous_attempt import PreviousAttempt
from planasonix_provider.waiting.attempt import Attempt, AttemptRecord, digest_of
from planasonix_provider.waiting.lost_start_search import CLOCK_SLACK, MatchCriteria, started_on, unreadable_in
from planasonix_provider.waiting.outages import Contact
from planasonix_provider.waiting.targets import Work

if TYPE_CHECKING:
    from planasonix_provider.execution.start_task import StartTask
    from planasonix_provider.hooks.planasonix import PlanasonixHook

#: How often a start whose answer was lost is sent, once it is as good as sure that it made nothing.
MOST_STARTS = 3


class Submission:
    """Gets one try its work, and writes down what it does before it does it.

    :param road: the try.
    :param hook: calls the API.
    :param records: keeps what it writes down.
    :param deadline: when to give up, or ``None`` for never.
    """

    def __init__(self, road: StartTask, hook: PlanasonixHook, records: AttemptStore, deadline: datetime | None) -> None:
        self._road = road
        self._operator = road.operator
        self._hook = hook
        self._records = records
        self._inquiry = ApiSession(road, hook, deadline)
        self._conflicts = ConflictHandler(road, self._inquiry)
        self._attempt = Attempt.of(road.context)
        self._digest = digest_of(self._operator.load_parameters())
        # The record of a start that had no answer, and is sent again.
        self._again: AttemptRecord | None = None
        # What was written down last, before the start was sent.
        self._written: AttemptRecord
        #: Whether this task has started the work, and is to end it when it gives up.
        self.is_own = True
        #: Whether this try has started it.
        self.is_new = False

    def submit_or_reconnect(self) -> Work:
        """Get the work.

        :return: a job or backfill that does what this try is to do.
        :raises PlanasonixError: if there is none.
        :raises AirflowSkipException: if something else is in its way, and ``on_conflict`` says so.
        """
        record = self._records.read()
        return (record and self._reconnect(record)) or self._submit()

    def _reconnect(self, record: AttemptRecord) -> Work | None:
        """Go on with what an earlier try has left, or make sure that it is over."""
        earlier = PreviousAttempt(record, self._road, self._inquiry, self._records, self._digest)
        earlier.register_for_kill()
        if record.kind == self._operator.starts:
            self._road.accounted.id = record.id
        if earlier.is_obsolete():
            earlier.cancel()
            work = None
        else:
            work = earlier.reusable_work()
        if work:
            self.is_own = record.is_own
            return work
        self._road.accounted.id = None
        if earlier.is_to_be_repeated:
            # With the same key: if the API honours it, that is safe even where a list is later than the look.
            self._again = record
        return None

    def _submit(self) -> Work:
        while True:
            try:
                work = self._inquiry.retry_through_outage(self._write_and_send, Contact.NONE, had_no_effect)
            except PlanasonixConflictError as conflict:
                other = self._conflicts.resolve(conflict)
                if other is None:
                    continue
                self.is_own = False
                work = other
            else:
                self.is_new = True
            record = self._written.model_copy(update={"id": work.id, "is_own": self.is_own})
            self._records.remember(record, self._inquiry.warn)
            return work

    def _write_and_send(self) -> Work:
        """Send the start; where its answer is lost, look for what it has made before it is sent again."""
        for _ in range(MOST_STARTS):
            record = self._save_record()
            try:
                work = self._operator.submit_job(self._hook, self._attempt)
            except PlanasonixError as error:
                found = self._find_after_error(record, error)
                if found is None:
                    self._again, trouble = record, error
                    continue
                work = found
            finally:
                # With a key that was rotated meanwhile, a kill has to use the new one.
                self._road.kill.account = self._hook.settings.client_config
            self._road.kill.track_work(work)
            return work
        tried = f"{trouble.message} (Tried {MOST_STARTS} times, and looked for a {record.kind} each time.)"
        if isinstance(trouble, PlanasonixConflictError):
            # What is in the way may be this very start: on_conflict is about others.
            raise PlanasonixError(tried)
        trouble.with_message(tried)
        raise trouble

    def _save_record(self) -> AttemptRecord:
        """Write down what is about to be started, anew each time: while the API was gone, others may have started."""
        self._stop_if_out_of_time()
        self._road.kill.track_submission(True, None, MatchCriteria.of(self._again) if self._again else None)
        self._written = record = self._record_for_resend(self._again) if self._again else self._new_record()
        self._records.write(record)
        self._attempt = record.attempt(self._attempt)
        self._road.kill.raise_if_killed()
        # Where Planasonix or Airflow is slow, to ask and to write may have taken the rest of the time.
        if self._inquiry.is_out_of_time:
            self._discard_record()
            self._stop_if_out_of_time()
        self._road.kill.track_submission(True, None, MatchCriteria.of(record))
        return record

    def _stop_if_out_of_time(self) -> None:
        """Start nothing any more when the task's time is up."""
        if self._inquiry.is_out_of_time:
            raise PlanasonixTimeoutError(
                f"The task's {self._inquiry.limit} was up before a {self._operator.starts} could be started on "
                f"connection {self._operator.connection_id}."
            )

    def _new_record(self) -> AttemptRecord:
        """Say what is about to be started, and what there is already that it is not."""
        attempt = Attempt.of(self._road.context)
        before = self._existing_work(self._inquiry.server_time() - CLOCK_SLACK)
        return AttemptRecord(
            kind=self._operator.starts,
            connection_id=self._operator.connection_id,
            key=attempt.idempotency_key,
            first_sent_at=self._inquiry.server_time(),
            existing_ids=frozenset(work.id for work in before),
            window=self._operator.window(),
            digest=self._digest,
            try_number=attempt.try_number,
            max_tries=attempt.max_tries,
            retries=attempt.retries,
            clear_number=attempt.clear_number,
        )

    def _record_for_resend(self, record: AttemptRecord) -> AttemptRecord:
        """Say that a start is sent again: it makes nothing that is there by now, unless the first one has made that."""
        traces = MatchCriteria.of(record)
        there = self._existing_work(record.first_sent_at)
        return record.model_copy(
            update={
                "sent_at": self._inquiry.server_time(),
                "existing_ids": record.existing_ids | {work.id for work in there if not traces.may_bear_the_mark(work)},
            }
        )

    def _existing_work(self, since: datetime) -> Sequence[Work]:
        """List what a start whose answer is lost may not be mistaken for; it also tells the server's time."""
        list_them = started_on(self._operator.starts, self._operator.connection_id, since)
        # One answer is needed at the least, for a start that is looked for by another clock is not found.
        policy = self._inquiry.first_policy if self._inquiry.has_no_contact else NO_RETRY
        try:
            page = self._hook.send(list_them, policy)
        except PlanasonixError as error:
            if self._inquiry.is_hopeless(error):
                raise
            # The start goes on without: a key may start and not list, and what is wrong besides, the start itself says.
            self._road.log.debug("What there is already could not be listed: %s", error)
            return ()
        there: list[Work] = [*page.data, *unreadable_in(page, self._operator.starts)]
        return there

    def _find_after_error(self, record: AttemptRecord, error: PlanasonixError) -> Work | None:
        """Find what a start has made that ended with an error; raise that error where it has surely made nothing."""
        traces = MatchCriteria.of(record)
        if isinstance(error, PlanasonixConflictError):
            other = self._conflicts.named_by(error) or (self._conflicts.find() if self._again else None)
            if other and self._is_ours(other, traces):
                return other
            if other or not self._again:
                if other and other.id in record.existing_ids:
                    # It was there before, so each start of this one was refused.
                    self._again = None
                self._discard_record()
                raise error
        elif not has_unknown_effect(error):
            self._discard_record()
            raise error
        self._inquiry.warn(f"{error} Looking whether a {record.kind} was started all the same.")
        found = self._inquiry.find(traces)
        if found is None:
            self._inquiry.say(
                f"No such {record.kind} was found within {self._inquiry.looks_for}; starting it once more, with the "
                "same idempotency key."
            )
        return found

    def _is_ours(self, other: Work, traces: MatchCriteria) -> bool:
        """Say whether what is in the way of a start was made by that start, when it was sent before."""
        if isinstance(other, Job) != (traces.kind == "job"):
            return False
        says = traces.matches(other)
        return (self._again is not None and traces.could_match(other)) if says is None else says

    def _discard_record(self) -> None:
        """Leave nothing to the next try that could be mistaken for a start, unless an earlier start may be one."""
        if self._again:
            return
        self._road.kill.track_submission(True, None, None)
        try:
            self._records.withdraw()
        except Exception as fault:
            self._inquiry.warn(
                "What was written down of the start that was refused could not be deleted, so a retry looks first "
                f"whether it has started something. {fault!r}"
            )
