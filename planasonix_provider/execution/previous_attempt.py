"""What an earlier try of the task has left: to go on with, to take over, or to end before anything new is started."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.attempt import Attempt, AttemptRecord
from planasonix_provider.waiting.cancel import cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.lost_start_search import MatchCriteria, ambiguous_match_error
from planasonix_provider.waiting.report import error_of_work
from planasonix_provider.waiting.shared_client import Priority, SharedClient
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Work, WorkTarget, subject_of

if TYPE_CHECKING:
    from planasonix_provider.execution.api_session import ApiSession
    from planasonix_provider.execution.attempt_store import AttemptStore
    from planasonix_provider.execution.start_task import StartTask

#: The states of work that has done what it was started for.
SUCCESS_STATES = ("succeeded", "completed")


class PreviousAttempt:
    """An earlier try, as its record tells of it.

    :param record: what it has written down of its start.
    :param road: the try that is running.
    :param inquiry: asks the API.
    :param records: where the record is kept.
    :param digest: tells what this try is to load.
    """

    def __init__(
        self, record: AttemptRecord, road: StartTask, inquiry: ApiSession, records: AttemptStore, digest: str
    ) -> None:
        self._record = record
        self._road = road
        self._operator = road.operator
        self._inquiry = inquiry
        self._records = records
        self._is_same = record.digest == digest
        #: Whether its start, which had no answer, has made nothing that is to be seen, and is to be sent again.
        self.is_to_be_repeated = False

    def is_obsolete(self) -> bool:
        """Say whether this try owes nothing to it.

        :return: whether the task was cleared since, or is another than it was.
        """
        attempt = Attempt.of(self._road.context)
        is_another = self._record.kind != self._operator.starts or (attempt.map_index >= 0 and not self._is_same)
        return is_another or attempt.is_later_than_a_clear_of(self._record, counts_every_clear=AIRFLOW_V_3_2_PLUS)

    def register_for_kill(self) -> None:
        """From here on, a kill ends what that try has left."""
        self._road.kill.track_submission(self._record.is_own, _subject_of(self._record), MatchCriteria.of(self._record))

    def reusable_work(self) -> Work | None:
        """Find what is to be gone on with.

        :return: work that still runs, or has succeeded; ``None`` where something new is to be started.
        :raises PlanasonixError: if that cannot be found out, or what is to be ended cannot be.
        """
        work = self._find()
        if work is None:
            self.is_to_be_repeated = self._record.id is None and self._is_same
            return None
        name, whose = capitalize(subject_of(work).name), self._origin
        is_given_up = self._record.is_given_up and self._operator.cancel_on_kill
        if is_given_up and not work.is_over and work.status != "cancelling":
            work = self._end(work)
        if work.status == "cancelling":
            self._inquiry.say(f"{name}, which {whose}, is being cancelled; waiting until it is over.")
            work = self._inquiry.wait_until_over(work) or work
        error = error_of_work(work, self._inquiry.page_of(work)) if work.is_over else None
        if error and self._road.is_cancelled_by_a_person(error):
            self._road.fail_without_a_retry(error)
        if work.is_over and work.status not in SUCCESS_STATES:
            self._inquiry.say(f"{name}, which {whose}, was {work.status}: starting anew.")
            return None
        if work.status == "cancelling":
            return None
        took = "has succeeded: this try takes it over" if work.is_over else "still runs: this try goes on with it"
        self._inquiry.say(f"{name}, which {whose}, {took}.")
        if not self._is_same:
            self._inquiry.warn(
                f"{name} was started with other parameters than the task has now; clear the task to start afresh."
            )
        return work

    def cancel(self) -> None:
        """See to it that work which nobody wants any more ends, before something new is started.

        :raises PlanasonixError: if it cannot be found out what there is, or it cannot be ended.
        """
        if not self._record.is_own:
            return
        for work in self._all_left():
            if not work.is_over:
                self._end(work)

    @property
    def _origin(self) -> str:
        return f"try {self._record.try_number} has {'started' if self._record.is_own else 'attached to'}"

    def _find(self) -> Work | None:
        if self._record.id is None:
            self._log_search()
            work = self._inquiry.find(MatchCriteria.of(self._record))
            if work:
                self._records.remember(self._record.model_copy(update={"id": work.id}), self._inquiry.warn)
            return work
        try:
            return self._inquiry.get_with_one_retry(self._record.kind, self._record.id)
        except PlanasonixNotFoundError as error:
            self._inquiry.warn(f"What {self._origin} is not there any more, starting anew. {error}")
            return None

    def _all_left(self) -> Sequence[Work]:
        """Give what it has started, as far as it may have to be ended."""
        if self._record.id:
            work = self._find()
            return [work] if work else []
        if not self._operator.cancel_on_kill:
            return []
        self._log_search()
        traces = MatchCriteria.of(self._record)
        found = self._inquiry.find_all(traces)
        # Whatever of it is over does not matter any more. What others have started is not to be ended.
        if len(found) > 1 and not all(map(traces.matches, found)) and not all(work.is_over for work in found):
            raise ambiguous_match_error(found, traces)
        return found

    def _log_search(self) -> None:
        number, kind = self._record.try_number, self._record.kind
        self._inquiry.say(f"Try {number} was about to start a {kind} when it ended; looking for that {kind}.")

    def _end(self, work: Work) -> Work:
        subject = subject_of(work)
        name = capitalize(subject.name)
        if not self._operator.cancel_on_kill:
            self._inquiry.warn(f"{name}, which {self._origin} before it was let go, runs on.")
            return work
        self._inquiry.say(f"{name}, which {self._origin} before it was let go, is cancelled first.")
        self._road.kill.track_work(work)
        asked: set[str] = set()

        async def ask(channel: SharedClient) -> Work:
            return await cancel(
                partial(channel.send, priority=Priority.FIRST),
                subject,
                sleep=self._road.rest.sleep_aside,
                warn=self._road.kill.cannot_cancel_yet,
                asked=asked,
            )

        async def ask_once(channel: SharedClient) -> Work:
            return await cancel(partial(channel.send, priority=Priority.FIRST), subject, patience=0, asked=asked)

        def look(request: Request[Any]) -> Any:
            answer = self._inquiry.look_once(request)
            if isinstance(answer, Backfill) and not answer.is_over:
                # It may have made more jobs since.
                return self._inquiry.run_async(ask_once)
            return answer

        try:
            ended = self._inquiry.retry_through_outage(lambda: self._inquiry.run_async(ask))
        except PlanasonixError as error:
            self._road.kill.raise_if_killed()
            by_hand = cancel_command(subject, self._operator.planasonix_conn_id)
            error.with_message(f"{name} could not be cancelled and may still run: {error} To end it: {by_hand}")
            raise
        return ended if ended.is_over else self._inquiry.wait_until_over(ended, look) or ended


def _subject_of(record: AttemptRecord) -> WorkTarget | None:
    if record.id is None:
        return None
    return BackfillTarget(record.id) if record.kind == "backfill" else JobTarget(record.id)
