"""Submits the work of a try, so that no lost response and no killed process can duplicate it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixTimeoutError
from planasonix_provider.api.models import Job
from planasonix_provider.api.retry import NO_RETRY, had_no_effect, has_unknown_effect
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.conflicts import ConflictHandler
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.execution.options import StartOptions
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting.attempt import Attempt, AttemptRecord, digest_of
from planasonix_provider.waiting.lost_start_search import CLOCK_SLACK, MatchCriteria, started_on, unreadable_in
from planasonix_provider.waiting.outages import Contact
from planasonix_provider.waiting.targets import Work
from planasonix_provider.waiting.work_metrics import WorkMetrics

#: How often a request is sent whose response was lost and whose work was not found.
MAX_SENDS = 3

#: Sends the start request; the attempt has its idempotency key.
Submit = Callable[[PlanasonixHook, Attempt], Work]


@dataclass
class Submission:
    """Stores a record, sends the start request, and finds the work if the response is lost."""

    options: StartOptions
    session: ApiSession
    store: AttemptStore
    kill_handler: OnKillHandler
    metrics: WorkMetrics
    conflicts: ConflictHandler
    submit_job: Submit
    context: Mapping[str, Any]
    #: The record of an earlier request to send again, with the same idempotency key. If the API honours keys, that is
    #: safe even if its lists are late.
    unanswered: AttemptRecord | None
    #: Whether this try has started the work, and has not attached to that of others.
    is_own: bool = field(default=True, init=False)
    #: The record of the latest request.
    saved: AttemptRecord = field(init=False)

    def submit(self) -> Work:
        """Return new work, or the work that ``on_conflict="attach"`` attaches to."""
        while True:
            try:
                work = self.session.retry_through_outage(self._save_and_send, Contact.NONE, had_no_effect)
            except PlanasonixConflictError as conflict:
                other = self.conflicts.resolve(conflict)
                if other is None:
                    continue
                self.is_own = False
                work = other
            record = self.saved.model_copy(update={"id": work.id, "is_own": self.is_own})
            is_stored = self.store.store_id(record, self.session.log.warning)
            if self.is_own and is_stored:
                # Otherwise, or if this try is killed before, the next try counts the work, which it searches for.
                self.metrics.count_start(work)
            return work

    def _save_and_send(self) -> Work:
        """Send the request; if the response is lost, search for the work before sending it again."""
        for _ in range(MAX_SENDS):
            record = self._save_record()
            try:
                work = self.submit_job(self.session.hook, record.attempt(Attempt.of(self.context)))
            except PlanasonixError as error:
                found = self._find_after_error(record, error)
                if found is None:
                    self.unanswered, last_error = record, error
                    continue
                work = found
            finally:
                # The key may have been rotated meanwhile, and a kill needs the new one.
                self.kill_handler.client_config = self.session.hook.settings.client_config
            self.kill_handler.track_work(work)
            return work
        tried = f"{last_error.message} (Tried {MAX_SENDS} times, and looked for a {record.kind} each time.)"
        if isinstance(last_error, PlanasonixConflictError):
            # The conflicting work may be this task's own, and on_conflict is about others.
            raise PlanasonixError(tried)
        last_error.set_message(tried)
        raise last_error

    def _save_record(self) -> AttemptRecord:
        """Store a record of the request about to be sent; a new one each time, as others may start work meanwhile."""
        self._raise_if_out_of_time()
        unanswered = self.unanswered
        self.kill_handler.track_submission(MatchCriteria.of(unanswered) if unanswered else None)
        self.saved = record = self._record_for_resend(unanswered) if unanswered else self._new_record()
        self.store.write(record)
        self.kill_handler.raise_if_killed()
        # If Planasonix or Airflow is slow, the requests so far may have taken the rest of the time.
        if self.session.is_out_of_time:
            self._discard_record()
            self._raise_if_out_of_time()
        self.kill_handler.track_submission(MatchCriteria.of(record))
        return record

    def _raise_if_out_of_time(self) -> None:
        if self.session.is_out_of_time:
            raise PlanasonixTimeoutError(
                f"The task's {self.session.limit} was up before a {self.options.kind} could be started on "
                f"connection {self.options.connection_id}."
            )

    def _new_record(self) -> AttemptRecord:
        """Build the record of the request about to be sent, with the ids of the work that already exists."""
        attempt = Attempt.of(self.context)
        existing = self._existing_work(self.session.server_time() - CLOCK_SLACK)
        return AttemptRecord(
            dag_id=attempt.dag_id,
            run_id=attempt.run_id,
            task_id=attempt.task_id,
            map_index=attempt.map_index,
            planasonix_conn_id=self.options.planasonix_conn_id,
            cancel_on_kill=self.options.cancel_on_kill,
            kind=self.options.kind,
            connection_id=self.options.connection_id,
            key=attempt.idempotency_key,
            first_sent_at=self.session.server_time(),
            existing_ids=frozenset(work.id for work in existing),
            window=self.options.window,
            digest=digest_of(self.options.load_parameters),
            try_number=attempt.try_number,
            max_tries=attempt.max_tries,
            retries=attempt.retries,
            clear_number=attempt.clear_number,
            dag_version=dict(attempt.dag_version),
        )

    def _record_for_resend(self, record: AttemptRecord) -> AttemptRecord:
        """Exclude all work that exists now, except what the first request may have created."""
        criteria = MatchCriteria.of(record)
        existing = self._existing_work(record.first_sent_at)
        others = {work.id for work in existing if not criteria.could_have_key(work)}
        return record.model_copy(
            update={"sent_at": self.session.server_time(), "existing_ids": record.existing_ids | others}
        )

    def _existing_work(self, since: datetime) -> Sequence[Work]:
        """List the work that is not this request's. The response also tells the server's time."""
        request = started_on(self.options.kind, self.options.connection_id, since)
        # The first contact must succeed: a search by another clock than the server's does not find the work.
        policy = self.session.first_policy if self.session.has_no_contact else NO_RETRY
        try:
            page = self.session.hook.send(request, policy)
        except PlanasonixError as error:
            if self.session.is_first_contact_failure(error):
                raise
            # A key may start work and not list it. If anything else is wrong, the start request fails as well.
            self.session.log.debug("Existing work could not be listed: %s", error)
            return ()
        return [*page.data, *unreadable_in(page, self.options.kind)]

    def _find_after_error(self, record: AttemptRecord, error: PlanasonixError) -> Work | None:
        """Find the work that a failed request may have created; re-raise the error if it certainly created none."""
        criteria = MatchCriteria.of(record)
        if isinstance(error, PlanasonixConflictError):
            other = self.conflicts.named_by(error) or (self.conflicts.find() if self.unanswered else None)
            if other and self._is_ours(other, criteria):
                return other
            if other or not self.unanswered:
                if other and other.id in record.existing_ids:
                    # It existed before, so every request of this submission was refused.
                    self.unanswered = None
                self._discard_record()
                raise error
        elif not has_unknown_effect(error):
            self._discard_record()
            raise error
        self.session.log.warning(f"{error} Checking whether a {record.kind} was started anyway.")
        self.metrics.count_search(record.kind)
        found = self.session.find(criteria)
        if found is None:
            self.session.log.info(
                f"No such {record.kind} was found within {self.session.search_duration}; starting it once more, with "
                "the same idempotency key."
            )
        return found

    def _is_ours(self, other: Work, criteria: MatchCriteria) -> bool:
        """Return whether conflicting work was created by an earlier send of this request."""
        if isinstance(other, Job) != (criteria.kind == "job"):
            return False
        has_our_mark = criteria.matches(other)
        return self.unanswered is not None and criteria.could_match(other) if has_our_mark is None else has_our_mark

    def _discard_record(self) -> None:
        """Delete the record of a refused request, unless an earlier send of it may have created work."""
        if self.unanswered:
            return
        self.kill_handler.track_submission(None)
        try:
            self.store.delete()
        except Exception as error:
            self.session.log.warning(
                "The record of the refused start could not be deleted, so a retry first searches for its work. "
                f"{error!r}"
            )
