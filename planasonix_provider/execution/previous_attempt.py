"""Continues, takes over or cancels the work of an earlier try of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.execution.options import StartOptions
from planasonix_provider.waiting.attempt import Attempt, AttemptRecord, digest_of
from planasonix_provider.waiting.cancellation import CANCEL_TIMEOUT_SECONDS, Cancellation
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.lost_start_search import MatchCriteria, ambiguous_match_error
from planasonix_provider.waiting.outages import Contact
from planasonix_provider.waiting.report import error_of_work
from planasonix_provider.waiting.targets import Work, target_of
from planasonix_provider.waiting.work_metrics import WorkMetrics

SUCCESS_STATES = ("succeeded", "completed")


@dataclass
class PreviousAttempt:
    """An earlier try, as known from its record."""

    record: AttemptRecord
    options: StartOptions
    session: ApiSession
    store: AttemptStore
    kill_handler: OnKillHandler
    metrics: WorkMetrics
    #: Raises an error if ``on_cancelled`` says so.
    raise_if_cancelled_by_person: Callable[[PlanasonixError], None]
    #: Whether to send its request again: it got no response, and no matching work was found.
    is_resend_due: bool = field(default=False, init=False)

    @property
    def has_same_parameters(self) -> bool:
        """Whether the task loads the same data as that try."""
        return self.record.digest == digest_of(self.options.load_parameters)

    def reconnect(self, attempt: Attempt) -> Work | None:
        """Return the work that this try continues; ``None`` if it must start something new."""
        self.kill_handler.track_record(self.record)
        if self._is_obsolete(attempt):
            self._cancel_leftovers()
            return None
        return self._reusable_work()

    def _is_obsolete(self, attempt: Attempt) -> bool:
        """Return whether the task was cleared since, or starts something else now."""
        is_other_work = self.record.kind != self.options.kind or (
            attempt.map_index >= 0 and not self.has_same_parameters
        )
        return is_other_work or attempt.is_later_than_a_clear_of(self.record, counts_every_clear=AIRFLOW_V_3_2_PLUS)

    def _reusable_work(self) -> Work | None:
        """Return work that still runs or has succeeded; ``None`` if there is none."""
        work = self._find()
        if work is None:
            self.is_resend_due = self.record.id is None and self.has_same_parameters
            return None
        log, name = self.session.log, capitalize(target_of(work).name)
        is_given_up = self.record.is_given_up and self.options.cancel_on_kill
        if is_given_up and not work.is_over and work.status != "cancelling":
            work = self._cancel(work)
        if work.status == "cancelling":
            log.info(f"{name}, which {self._origin}, is being cancelled; waiting until it is over.")
            work = self.session.wait_until_over(work) or work
        error = error_of_work(work, self.session.page_of(work)) if work.is_over else None
        if error:
            self.raise_if_cancelled_by_person(error)
        if work.is_over and work.status not in SUCCESS_STATES:
            log.info(f"{name}, which {self._origin}, was {work.status}: starting again.")
            return None
        if work.status == "cancelling":
            return None
        outcome = "has succeeded: this try takes it over" if work.is_over else "still runs: this try goes on with it"
        log.info(f"{name}, which {self._origin}, {outcome}.")
        if not self.has_same_parameters:
            log.warning(
                f"{name} was started with other parameters than the task has now; clear the task to start afresh."
            )
        if self.record.cancel_on_kill != self.options.cancel_on_kill:
            changes = {"id": work.id, "cancel_on_kill": self.options.cancel_on_kill}
            self.store.store_id(self.record.model_copy(update=changes), log.warning)
        return work

    def _cancel_leftovers(self) -> None:
        """Cancel what the earlier try has left running, before anything new is started."""
        if not self.record.is_own:
            return
        for work in self._leftovers():
            if not work.is_over:
                self._cancel(work)

    @property
    def _origin(self) -> str:
        return f"try {self.record.try_number} has {'started' if self.record.is_own else 'attached to'}"

    def _find(self) -> Work | None:
        record = self.record
        if record.id is None:
            self._log_search()
            work = self.session.find(MatchCriteria.of(record))
            if work and self.store.store_id(record.model_copy(update={"id": work.id}), self.session.log.warning):
                self.metrics.count_start(work)
            return work
        try:
            return self.session.get_work(record.kind, record.id, Contact.WORK)
        except PlanasonixNotFoundError as error:
            self.session.log.warning(f"What {self._origin} is not there any more, starting again. {error}")
            return None

    def _leftovers(self) -> Sequence[Work]:
        if self.record.id:
            work = self._find()
            return [work] if work else []
        if not self.options.cancel_on_kill:
            return []
        self._log_search()
        criteria = MatchCriteria.of(self.record)
        found = self.session.find_all(criteria)
        # Finished work does not matter. Running work that others may have started must not be cancelled.
        if len(found) > 1 and not all(map(criteria.matches, found)) and not all(work.is_over for work in found):
            raise ambiguous_match_error(found, criteria)
        return found

    def _log_search(self) -> None:
        number, kind = self.record.try_number, self.record.kind
        self.session.log.info(f"Try {number} was about to start a {kind} when it ended; looking for that {kind}.")
        self.metrics.count_search(kind)

    def _cancel(self, work: Work) -> Work:
        session, target = self.session, target_of(work)
        name = capitalize(target.name)
        if not self.options.cancel_on_kill:
            session.log.warning(f"{name}, which {self._origin}, runs on, because cancel_on_kill is false.")
            return work
        session.log.info(f"Cancelling {target.name} first: {self._origin} it, and this try does not continue it.")
        self.kill_handler.track_work(work)
        cancellation = Cancellation(target, session.run_async)

        def cancel() -> Work:
            return cancellation.cancel(
                max_seconds=CANCEL_TIMEOUT_SECONDS,
                sleep=session.sleeper.async_sleep,
                warn=self.kill_handler.cannot_cancel_yet,
            )

        try:
            cancelled = session.retry_through_outage(cancel)
        except PlanasonixError as error:
            self.kill_handler.raise_if_killed()
            command = cancel_command(target, self.options.planasonix_conn_id)
            error.set_message(f"{name} could not be cancelled and may still run: {error} To end it: {command}")
            raise
        poll = partial(cancellation.poll, send=session.poll)
        over = cancelled if cancelled.is_over else session.wait_until_over(cancelled, poll) or cancelled
        if work.status != "cancelling":
            # Otherwise, the earlier try has counted it.
            self.metrics.count_cancel(over)
        return over
