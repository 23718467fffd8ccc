"""Cancels the work of a task that is killed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

from planasonix_provider.api import client
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.rate_limiter import RateLimiter
from planasonix_provider.api.retry import ON_KILL
from planasonix_provider.clock import loop_time, sleep, utcnow
from planasonix_provider.execution.options import StartOptions
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.task_state import ApiServerHealth, runs_elsewhere
from planasonix_provider.waiting.attempt import AttemptRecord
from planasonix_provider.waiting.cancellation import cancel, through_outages
from planasonix_provider.waiting.cli_hints import cancel_command, list_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError
from planasonix_provider.waiting.loop_thread import LoopThreadTimeoutError, run_in_loop_thread
from planasonix_provider.waiting.lost_start_search import MatchCriteria, search
from planasonix_provider.waiting.outages import OutageTracker, Verdict
from planasonix_provider.waiting.stall_detector import StallDetector
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Work, WorkTarget, target_of

#: Seconds to keep cancelling in the signal handler. Airflow gives a killed task five.
CANCEL_SECONDS_IN_HANDLER = 4.0
#: Seconds to wait for a cancel after its time is over. The API may be slow, or the interrupted code may hold a lock,
#: which it releases only after the signal handler.
MAX_OVERRUN_SECONDS = 0.5
#: Seconds to keep cancelling after the signal handler has returned; a SIGTERM leaves time for that.
CANCEL_SECONDS_AFTER = 60.0
#: How often, in seconds, and how many times to search for the work of a start whose response is still to come.
SEARCH_INTERVAL_SECONDS = 0.4
SEARCH_TRIES = 4
#: Seconds after which the search ends, to leave time to cancel, or to log that nothing was found.
SEARCH_TIMEOUT_SECONDS = 2.5
#: Seconds to wait for the SIGKILL, twice as long as Airflow needs: it sends it five seconds after the first signal.
MAX_SIGKILL_WAIT_SECONDS = 10.0


class OnKillHandler:
    """Cancels the work of one process of one try when the task is killed.

    ``on_kill`` mostly runs in a signal handler and may interrupt any other code. Airflow cannot be called there, so
    this class keeps all that a cancel needs.
    """

    def __init__(self, options: StartOptions, ti: Any, log: Any) -> None:
        self._options = options
        self._ti = ti
        self._log = log
        #: How to reach the API; ``None`` before anything can have been started.
        self.client_config: ClientConfig | None = None
        #: What to cancel, if its id is known.
        self.target: WorkTarget | None = None
        # Identify the work of a start that has had no response yet.
        self._criteria: MatchCriteria | None = None
        #: Whether this task has started the work.
        self.is_own = True
        #: The jobs of a backfill, as far as they are known.
        self.job_ids: list[str] = []
        self.stall_detector = StallDetector(
            conf.getfloat("scheduler", "task_instance_heartbeat_timeout", fallback=300.0)
        )
        self._api_server = ApiServerHealth()
        if self._has_retries_left:
            self._api_server.remember()
        # Whether Airflow killed this process because its API server did not answer; ``None`` before a kill.
        self._is_api_server_lost: bool | None = None
        self._is_interrupted_by_ctrl_c = False
        self._is_killed = False
        # Whether the decision waits until the signal handler has returned and Airflow can be called.
        self._is_postponed = False
        # Whether ``finish`` was called.
        self._is_finished = False
        #: Whether this process has cancelled the work, or has tried to.
        self.has_cancelled = False
        #: The response to that.
        self.cancelled_work: Work | None = None
        self._messages: list[str] = []
        self._cause = "The task was killed."

    def track_submission(self, criteria: MatchCriteria | None) -> None:
        """Store how to find the work of a request; ``None`` if no request can have started anything."""
        self._track(True, None, criteria)

    def track_record(self, record: AttemptRecord) -> None:
        """Store the work of an earlier try."""
        self._track(record.is_own, _target_of(record), MatchCriteria.of(record))

    def track_work(self, work: Work) -> None:
        """Store the work that a kill must cancel."""
        self._track(self.is_own, target_of(work), None, getattr(work, "job_ids", None) or [])

    def _track(
        self, is_own: bool, target: WorkTarget | None, criteria: MatchCriteria | None, job_ids: Sequence[str] = ()
    ) -> None:
        self.is_own, self.target, self._criteria, self.job_ids = is_own, target, criteria, list(job_ids)
        if self._is_killed and (target or criteria):
            self.handle()
        self.raise_if_killed()

    def handle(self) -> None:
        """Cancel the work, unless it must keep running. The task then ends at the next ``raise_if_killed``."""
        began = time.monotonic()
        self._is_killed = True
        if not self._is_finished and (self.may_run_elsewhere() or self._has_lost_the_api_server()):
            self._is_postponed = True
            return
        self._cancel_work(max(0.0, CANCEL_SECONDS_IN_HANDLER - (time.monotonic() - began)))

    def raise_if_killed(self) -> None:
        """Raise ``TaskKilledError`` after a kill: Airflow's signal handler returns, and does not end the task."""
        if self._is_killed:
            raise TaskKilledError(" ".join([self._cause, *self._messages]))

    def finish(self) -> None:
        """Complete what a kill has begun. Called when the execution ends, however it ends; Airflow can be called."""
        if isinstance(sys.exception(), KeyboardInterrupt) and not self._is_killed:
            self._cancel_at_ctrl_c()
            return
        if self._is_api_server_lost or (self._is_ended_by_airflow() and self.may_run_elsewhere()):
            self._leave_to_the_next_try()
        self._is_finished = True
        for message in self._messages:
            self._log.warning("%s %s", self._cause, message)
        if self._is_postponed:
            self._read_key_again()
            self._cancel_work(CANCEL_SECONDS_AFTER)

    @property
    def cancels_work(self) -> bool:
        """Whether to cancel the work when the task gives up. Work that others have started is never cancelled."""
        return self._options.cancel_on_kill and self.is_own

    def may_run_elsewhere(self) -> bool:
        """Return whether this process was suspended for so long that the next try may have taken over its work."""
        return self._has_retries_left and self.stall_detector.seconds_in_doubt() > 0

    def cannot_cancel_yet(self, error: PlanasonixError) -> None:
        """Log why a cancel is still being tried, and the command that cancels by hand."""
        assert self.target is not None  # noqa: S101 - it is what cannot be cancelled
        self._log.warning(
            "%s cannot be cancelled yet, still trying: %s %s",
            capitalize(self.target.name),
            error,
            self._manual_cancel_hint(self.target),
        )

    def _is_ended_by_airflow(self) -> bool:
        """Return whether a signal handler ends the task: it has called ``on_kill``, or has raised an exception."""
        exception = sys.exception()
        return self._is_postponed or not (exception is None or isinstance(exception, (Exception, TaskDeferred)))

    @property
    def _has_retries_left(self) -> bool:
        return bool(self._ti.try_number <= (self._ti.max_tries or 0))

    def _has_lost_the_api_server(self) -> bool:
        if self._is_api_server_lost is None:
            self._is_api_server_lost = self._has_retries_left and self._api_server.is_lost()
        return self._is_api_server_lost

    def _leave_to_the_next_try(self) -> None:
        """Leave the work to the next try, unless Airflow answers that there is none."""
        has_work = bool(self.target or self._criteria)
        name = capitalize(self.target.name) if self.target else "What was started"
        reason = "Its process had stood still."
        if self._is_api_server_lost:
            reason = "Airflow's API server does not answer, and Airflow kills tasks after three failed heartbeats."
            if has_work:
                # Airflow may end this process before it answers, so this line comes first.
                self._log.warning(
                    "The task was killed. %s %s is left to the retry, unless Airflow answers now.", reason, name
                )
            self._wait_for_sigkill()
        if not has_work:
            return
        goes_on = runs_elsewhere(self._ti)
        if goes_on is False:
            return
        self.target = self._criteria = None
        unknown = " Airflow could not be asked for the task's state." if goes_on is None else ""
        self._add_kill_message(f"{reason}{unknown} {name} was not cancelled: the next try goes on with it.")

    def _wait_for_sigkill(self) -> None:
        """Wait for the end of this process if its supervisor would not survive a request."""
        if not AIRFLOW_V_3_2_PLUS and self._api_server.is_lost():
            # The supervisors of Airflow 3.0 and 3.1 fail at a request that the API server does not answer, such as the
            # report that a task has failed. They then never send the SIGKILL, and the process waits forever.
            sleep(MAX_SIGKILL_WAIT_SECONDS)

    def _cancel_at_ctrl_c(self) -> None:
        """Cancel the work of a task that runs inside ``airflow dags test``. No later try will."""
        self._is_finished = self._is_interrupted_by_ctrl_c = True
        self._cause = "The task was interrupted by Ctrl-C."
        if self.client_config is None or not (self.target or self._criteria):
            return
        if self.cancels_work:
            name = self.target.name if self.target else "what was started"
            self._log.warning("Ctrl-C: cancelling %s. %s", name, self._manual_cancel_hint(self.target))
        self._cancel_work(CANCEL_SECONDS_AFTER)

    def _read_key_again(self) -> None:
        """Read the Airflow connection: the API key may have been rotated since the last poll."""
        with suppress(Exception), PlanasonixHook(self._options.planasonix_conn_id) as hook:
            self.client_config = hook.settings.client_config

    def _cancel_work(self, seconds: float) -> None:
        target, criteria = self.target, self._criteria
        if self.client_config is None or not (target or criteria):
            return
        name = capitalize(target.name) if target else f"The work started on connection {self._lost.connection_id}"
        hint = self._manual_cancel_hint(target)
        if not self.cancels_work:
            shown = f" {hint}" if self._is_interrupted_by_ctrl_c and self.is_own else ""
            self._add_kill_message(f"{name} was not cancelled, and runs on.{shown}")
            return
        self.has_cancelled = True
        try:
            work = self._find_and_cancel(self.client_config, seconds)
        except Exception as error:
            if not self._is_finished and _is_worth_a_retry(error):
                # After the signal handler, there may be more time, and Airflow can be asked for another key.
                self._is_postponed = True
                self._add_kill_message(f"{name} cannot be cancelled yet, still trying: {error} {hint}")
                return
            self._add_kill_message(f"{name} could not be cancelled and may still run: {error} {hint}")
            return
        if work is None:
            # If this process lives until the response comes, it cancels the work then.
            self._add_kill_message(f"{name} cannot be seen yet. {hint}")
            return
        name = capitalize(target_of(work).name)
        self.target = self._criteria = None
        self.cancelled_work = work
        if isinstance(work, Backfill) and not work.is_over:
            self._add_kill_message(
                f"{name} may go on: its jobs so far were asked to cancel. {self._manual_cancel_hint(target_of(work))}"
            )
        else:
            self._add_kill_message(f"{name} was asked to cancel.")

    def _find_and_cancel(self, client_config: ClientConfig, seconds: float) -> Work | None:
        # These may change while the coroutine still runs.
        known, criteria, known_job_ids = self.target, self._criteria, self.job_ids

        async def cancel_work() -> Work | None:
            # Its own client and rate limiter: the signal may have interrupted a request of the other client, or the
            # update of the other limiter, which holds a lock.
            config, limiter = client_config.with_short_timeouts(), RateLimiter()
            async with client.AsyncClient(config, ON_KILL, rate_limiter=limiter) as own:
                target, job_ids = known, known_job_ids
                if target is None and criteria:
                    # The start has had no response yet.
                    give_up = loop_time() + SEARCH_TIMEOUT_SECONDS
                    send = through_outages(own.send, seconds)
                    found = await search(send, criteria)
                    for _ in range(SEARCH_TRIES):
                        if found or loop_time() >= give_up:
                            break
                        await asyncio.sleep(SEARCH_INTERVAL_SECONDS)
                        found = await search(send, criteria)
                    if len(found) != 1:
                        return None
                    target, job_ids = target_of(found[0]), getattr(found[0], "job_ids", None) or []
                assert target is not None  # noqa: S101 - there is a target or there are criteria
                return await cancel(own.send, target, job_ids, max_seconds=seconds)

        return run_in_loop_thread(cancel_work, seconds + MAX_OVERRUN_SECONDS)

    @property
    def _lost(self) -> MatchCriteria:
        assert self._criteria is not None  # noqa: S101 - there is a target or there are criteria
        return self._criteria

    def _manual_cancel_hint(self, target: WorkTarget | None) -> str:
        conn_id = self._options.planasonix_conn_id
        if target:
            return f"To end it: {cancel_command(target, conn_id)}"
        command = list_command(self._lost.kind, self._lost.connection_id, conn_id)
        return f"Check whether work of this task runs there, and cancel it: {command}"

    def _add_kill_message(self, message: str) -> None:
        """Log a message, but not in a signal handler, which may have interrupted a write to the log."""
        self._messages.append(message)
        if self._is_finished:
            self._log.warning("%s %s", self._cause, message)


def _target_of(record: AttemptRecord) -> WorkTarget | None:
    if record.id is None:
        return None
    return BackfillTarget(record.id) if record.kind == "backfill" else JobTarget(record.id)


def _is_worth_a_retry(error: Exception) -> bool:
    """Return whether to try a cancel again: it has not ended in time, or a replica that lags behind has refused it."""
    if isinstance(error, LoopThreadTimeoutError):
        return True
    return isinstance(error, PlanasonixError) and OutageTracker().fail(error, utcnow()) is Verdict.TOLERATED
