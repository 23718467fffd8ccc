"""What becomes of a task's work when the task is killed: it is cancelled, unless it is to be left alone."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from planasonix_provider.api import client
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.retry import ON_KILL
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.task_state import ApiServerHealth, runs_elsewhere
from planasonix_provider.waiting.cancel import cancel, through_outages
from planasonix_provider.waiting.cli_hints import cancel_command, list_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from planasonix_provider.waiting.loop_thread import run_in_loop_thread
from planasonix_provider.waiting.lost_start_search import MatchCriteria, search
from planasonix_provider.waiting.outages import OutageTracker, Verdict
from planasonix_provider.waiting.stall_detector import StallDetector
from planasonix_provider.waiting.targets import Work, WorkTarget, subject_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator

#: For how many seconds a task that is being killed pursues the jobs of its backfill; Airflow gives it five.
CANCEL_SECONDS_IN_HANDLER = 4.0
#: The same once its signal's handler has returned; a plain SIGTERM leaves it time.
CANCEL_SECONDS_AFTER = 60.0
#: How often, and after how many seconds, it looks once more for what a start has made that had no answer yet.
SEARCH_TRIES = 4
LOOK_ONCE_MORE_AFTER = 0.4
#: After how many seconds it looks no more, so that there is time left to cancel, or to say that nothing was seen.
SEARCH_TIMEOUT = 2.5


class OnKillHandler:
    """Deals with a kill of one process of one try, whenever it comes: mostly in a signal's handler, amid anything.

    Nothing may be asked of Airflow then, so what it needs is kept at hand.

    :param operator: the task's operator.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, operator: PlanasonixStartOperator, context: Context) -> None:
        self._operator = operator
        self._context = context
        self._log = operator.log
        #: Where to cancel; ``None`` before anything can have been started.
        self.account: ClientConfig | None = None
        #: What there may be to cancel.
        self.subject: WorkTarget | None = None
        # What a start is found by whose answer is still to come.
        self._traces: MatchCriteria | None = None
        #: Whether this task has started it.
        self.is_own = True
        #: Of a backfill, the jobs that it has made, as far as they were seen.
        self.job_ids: list[str] = []
        #: Tells how long the process has stood still.
        self.pulse = StallDetector(conf.getfloat("scheduler", "task_instance_heartbeat_timeout", fallback=300.0))
        self._api_server = ApiServerHealth()
        if self._has_retries_left:
            self._api_server.remember()
        # Whether Airflow killed this process because its API server did not answer; ``None`` before a kill.
        self._is_api_server_lost: bool | None = None
        # Whether Ctrl-C has ended the task.
        self._is_interrupted = False
        # Whether the task has left its road.
        self._is_over = False
        self._has_come = False
        # Whether it is to be dealt with where Airflow may be asked.
        self._is_undecided = False
        #: Whether it has asked Planasonix to cancel the work, or has tried to.
        self.has_cancelled = False
        self._last_words: list[str] = []
        # How the log names the end of the task.
        self._what = "The task was killed."

    def track_submission(self, is_own: bool, subject: WorkTarget | None, traces: MatchCriteria | None) -> None:
        """Let a kill know what there may be to cancel.

        :param is_own: whether this task has started it.
        :param subject: the work, where it is known.
        :param traces: what it is found by, where it is not.
        """
        self.is_own, self.subject, self._traces, self.job_ids = is_own, subject, traces, []
        if self._has_come and (subject or traces):
            self.on_kill()
        self.raise_if_killed()

    def track_work(self, work: Work) -> None:
        """Let a kill know of work from the moment that it exists.

        :param work: the job or backfill.
        """
        self.subject, self._traces = subject_of(work), None
        if isinstance(work, Backfill):
            self.job_ids = work.job_ids or []
        if self._has_come:
            self.on_kill()
        self.raise_if_killed()

    def on_kill(self) -> None:
        """Let the task end here, and cancel its work unless that is to be left alone."""
        self._has_come = True
        if not self._is_over and (self.may_run_elsewhere() or self._has_lost_the_api_server()):
            self._is_undecided = True
            return
        self._cancel_work(CANCEL_SECONDS_IN_HANDLER)

    def raise_if_killed(self) -> None:
        """End the task: Airflow's signal handler returns, and leaves it to the task to stop.

        :raises TaskKilledError: if the task was killed.
        """
        if self._has_come:
            raise TaskKilledError(" ".join([self._what, *self._last_words]))

    def finish(self) -> None:
        """Finish what a kill has begun, where Airflow may be asked: when the task has left its road, however it did."""
        if isinstance(sys.exception(), KeyboardInterrupt) and not self._has_come:
            self._cancel_at_ctrl_c()
            return
        if self._is_api_server_lost or (self._is_ended_by_airflow() and self.may_run_elsewhere()):
            self._leave_to_the_next_try()
        self._is_over = True
        for line in self._last_words:
            self._log.warning("%s %s", self._what, line)
        if self._is_undecided:
            self._read_key_again()
            self._cancel_work(CANCEL_SECONDS_AFTER)

    @property
    def cancels_work(self) -> bool:
        """Whether the work is cancelled when the task gives up: what others have started never is."""
        return self._operator.cancel_on_kill and self.is_own

    def may_run_elsewhere(self) -> bool:
        """Tell whether this process has stood still for so long that the next try may have taken its work over.

        :return: whether it may have.
        """
        return self._has_retries_left and self.pulse.seconds_in_doubt() > 0

    def cannot_cancel_yet(self, error: PlanasonixError) -> None:
        """Say in the log what is in the way of a cancel, and how a person ends the work.

        :param error: what is in the way.
        """
        assert self.subject is not None  # noqa: S101 - it is what cannot be cancelled
        self._log.warning(
            "%s cannot be cancelled yet, still trying: %s %s",
            capitalize(self.subject.name),
            error,
            self._manual_cancel_hint(self.subject),
        )

    def _is_ended_by_airflow(self) -> bool:
        """Whether a signal's handler ends the road: by a call of ``on_kill``, or by what it raises out of nowhere."""
        end = sys.exception()
        return self._is_undecided or not (end is None or isinstance(end, (Exception, TaskDeferred)))

    @property
    def _has_retries_left(self) -> bool:
        ti = self._context["ti"]
        return bool(ti.try_number <= (ti.max_tries or 0))

    def _has_lost_the_api_server(self) -> bool:
        if self._is_api_server_lost is None:
            self._is_api_server_lost = self._has_retries_left and self._api_server.is_lost()
        return self._is_api_server_lost

    def _leave_to_the_next_try(self) -> None:
        """Leave the work to the next try, unless Airflow answers that there is none."""
        if not (self.subject or self._traces):
            return
        name = capitalize(self.subject.name) if self.subject else "What was started"
        why = "Its process had stood still."
        if self._is_api_server_lost:
            why = "Airflow's API server does not answer, and Airflow kills tasks after three failed heartbeats."
            # Airflow may end this process before it answers, so this line comes first.
            self._log.warning("The task was killed. %s %s is left to the retry, unless Airflow answers now.", why, name)
        goes_on = runs_elsewhere(self._context["ti"])
        if goes_on is False:
            return
        self.subject = self._traces = None
        unknown = " Airflow could not be asked for the task's state." if goes_on is None else ""
        self._add_kill_message(f"{why}{unknown} {name} was not cancelled: the next try goes on with it.")

    def _cancel_at_ctrl_c(self) -> None:
        """Cancel the work of a task that runs inside ``airflow dags test``. No later try will."""
        self._is_over = self._is_interrupted = True
        self._what = "The task was interrupted by Ctrl-C."
        if self.account is None or not (self.subject or self._traces):
            return
        if self.cancels_work:
            name = self.subject.name if self.subject else "what was started"
            self._log.warning("Ctrl-C: cancelling %s. %s", name, self._manual_cancel_hint(self.subject))
        self._cancel_work(CANCEL_SECONDS_AFTER)

    def _read_key_again(self) -> None:
        """Take the key that Airflow has now: the one at hand may have been rotated since the last look."""
        with suppress(Exception), PlanasonixHook(self._operator.planasonix_conn_id) as hook:
            self.account = hook.settings.client_config

    def _cancel_work(self, patience: float) -> None:
        subject, traces = self.subject, self._traces
        if self.account is None or not (subject or traces):
            return
        name = capitalize(subject.name) if subject else f"What was started on connection {self._lost.connection_id}"
        by_hand = self._manual_cancel_hint(subject)
        if not self.cancels_work:
            hint = f" {by_hand}" if self._is_interrupted and self.is_own else ""
            self._add_kill_message(f"{name} was not cancelled, and runs on.{hint}")
            return
        self.has_cancelled = True
        try:
            work = self._cancel_in_a_hurry(self.account, patience)
        except Exception as error:
            if not self._is_over and _may_pass(error):
                # Where the signal's handler has returned, there may be more time, and Airflow be asked for another key.
                self._is_undecided = True
                self._add_kill_message(f"{name} cannot be cancelled yet, still trying: {error} {by_hand}")
                return
            self._add_kill_message(f"{name} could not be cancelled and may still run: {error} {by_hand}")
            return
        if work is None:
            # If this process lives long enough for the answer, it cancels then.
            self._add_kill_message(f"{name} cannot be seen yet. {by_hand}")
            return
        name = capitalize(subject_of(work).name)
        self.subject = self._traces = None
        if isinstance(work, Backfill) and not work.is_over:
            self._add_kill_message(
                f"{name} may go on: what it has made was asked to cancel. {self._manual_cancel_hint(subject_of(work))}"
            )
        else:
            self._add_kill_message(f"{name} was asked to cancel.")

    def _cancel_in_a_hurry(self, account: ClientConfig, patience: float) -> Work | None:
        async def say_goodbye() -> Work | None:
            # A client of its own, for the signal may have come amid a request of the other.
            async with client.AsyncClient(account.with_short_timeouts(), ON_KILL) as own:
                subject, job_ids = self.subject, self.job_ids
                if subject is None and self._traces:
                    # The answer to the start is still to come, if it ever does.
                    give_up = asyncio.get_running_loop().time() + SEARCH_TIMEOUT
                    send = through_outages(own.send, patience)
                    found = await search(send, self._traces)
                    for _ in range(SEARCH_TRIES):
                        if found or asyncio.get_running_loop().time() >= give_up:
                            break
                        await asyncio.sleep(LOOK_ONCE_MORE_AFTER)
                        found = await search(send, self._traces)
                    if len(found) != 1:
                        return None
                    subject, job_ids = subject_of(found[0]), getattr(found[0], "job_ids", None) or []
                assert subject is not None  # noqa: S101 - one of the two is there
                return await cancel(own.send, subject, job_ids, patience=patience)

        return run_in_loop_thread(say_goodbye)

    @property
    def _lost(self) -> MatchCriteria:
        """The traces of work whose id is not known."""
        assert self._traces is not None  # noqa: S101 - otherwise there is nothing to cancel
        return self._traces

    def _manual_cancel_hint(self, subject: WorkTarget | None) -> str:
        """Say how a person ends what this task has left."""
        conn_id = self._operator.planasonix_conn_id
        if subject:
            return f"To end it: {cancel_command(subject, conn_id)}"
        look = list_command(self._lost.kind, self._lost.connection_id, conn_id)
        return f"Look whether something of this task runs there, and cancel it: {look}"

    def _add_kill_message(self, words: str) -> None:
        """Say in the log what was done; not in a signal's handler, which may have come amid a write to it."""
        self._last_words.append(words)
        if self._is_over:
            self._log.warning("%s %s", self._what, words)


def _may_pass(error: Exception) -> bool:
    """Return whether a cancel is worth another try: a refusal may be that of a replica which lags behind."""
    return isinstance(error, PlanasonixError) and OutageTracker().fail(error, utcnow()) is Verdict.TOLERATED
