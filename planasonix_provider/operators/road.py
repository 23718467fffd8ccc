"""The road of a task that starts Planasonix work: start, tell, wait, account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider import parameters
from planasonix_provider.api import routes
from planasonix_provider.api.client import Account, Client
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixValidationError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.api.retry import LAST_WORDS, ONCE, is_ambiguous
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.links.planasonix import JOB_URL_KEY
from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
from planasonix_provider.waiting import worker
from planasonix_provider.waiting.attempt import Attempt
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.report import error_of_job, log_results, report
from planasonix_provider.waiting.results import fetch_results
from planasonix_provider.waiting.watch import Watch

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator

JOB_ID_KEY = "job_id"

#: In seconds: how long a kill may go unnoticed.
LONGEST_NAP = 0.5
#: For how long before the end of ``execution_timeout`` to cancel and to report, at the most.
LONGEST_GOODBYE = timedelta(seconds=30)
#: How long Airflow may take to notice that the process of a deferring task has ended. Its supervisor looks every five
#: seconds; an event that comes before lets the scheduler take the old end for a crash, and fail the task.
SETTLING = timedelta(seconds=7)
#: How long after its own deadline a trigger may take to cancel and to report before Airflow ends the deferral for it.
BACKSTOP = timedelta(minutes=15)


# What was sent is wrong or may not be sent; or a retry could do twice what may have been done once.
_NO_RETRY_CAN_MEND = (
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixValidationError,
)


class Road:
    """One process of one try of a task, on its way from the start of the work to the account of it.

    :param operator: says what to start and how to wait; its parameters are in their final form.
    """

    def __init__(self, operator: PlanasonixStartOperator) -> None:
        self.operator = operator
        self.log = operator.log
        self.interval = parameters.seconds("poll_interval", operator.poll_interval)
        # What a kill needs to have at hand, for nothing may be asked of Airflow then.
        self._account: Account | None = None
        self._job_id: str | None = None
        self._killed = False
        self._last_words: list[str] = []

    def travel(self, context: Context) -> dict[str, Any]:
        """Go the whole road; a deferrable task leaves it in the middle, and another process resumes it.

        :param context: the task's context, from Airflow.
        :return: an account of the job.
        :raises TaskDeferred: to wait in the triggerer.
        """
        deadline = self._deadline(context)
        with self._for_airflow() as hook:
            self._account = hook.settings.account
            self._stop_if_killed()
            job = self._start(hook, Attempt.of(context))
            url = hook.job_url(job.id)
            self._tell(context, job, url)
            if not self.operator.wait_for_completion:
                return report(job, url)
            watch = Watch(job.id, now=utcnow(), info=self.log.info, warn=self.log.warning, deadline=deadline)
            watch.see(job, utcnow())
            event = self._look_once(hook, watch) if self.operator.deferrable else self._wait(hook, watch)
            self._stop_if_killed()
            if event is None:
                self._defer(watch)
            return self._conclude(hook, event)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of the job.
        """
        with self._for_airflow() as hook:
            return self._conclude(hook, WaitEvent.from_payload(payload))

    def kill(self) -> None:
        """Let the road end here, and cancel the job unless it is to be left alone. Runs in a signal's handler."""
        self._killed = True
        if self._job_id is None or self._account is None:
            return
        job_id = self._job_id
        if not self.operator.cancel_on_kill:
            self._last_words.append(f"Job {job_id} was not cancelled, and runs on.")
            return
        try:
            # A client of its own, for the signal may have come amid a request of the other.
            with Client(self._account.in_a_hurry(), LAST_WORDS) as client:
                client.cancel_job(job_id)
        except Exception as error:
            self._last_words.append(
                f"Job {job_id} could not be cancelled and may still run: end it in Planasonix. {error}"
            )
        else:
            self._job_id = None
            self._last_words.append(f"Job {job_id} was asked to cancel.")

    @contextmanager
    def _for_airflow(self) -> Iterator[PlanasonixHook]:
        """Give the hook; end in errors that tell Airflow whether a retry can help."""
        try:
            with PlanasonixHook(self.operator.planasonix_conn_id, sleep=self._nap) as hook:
                yield hook
        except _NO_RETRY_CAN_MEND as error:
            raise AirflowFailException(error.message) from error
        finally:
            # Not in the handler: the signal may have come amid a write to the log, whose lock is not re-entrant.
            for line in self._last_words:
                self.log.warning("The task was killed. %s", line)

    def _stop_if_killed(self) -> None:
        """End the task: Airflow's signal handler returns, and leaves it to the task to stop."""
        if self._killed:
            raise PlanasonixJobCancelledError(" ".join(["The task was killed.", *self._last_words]))

    def _nap(self, seconds: float) -> None:
        """Sleep in pieces, since a sleep goes on after a signal's handler, and stop if that was a kill."""
        wake = time.monotonic() + seconds
        while (left := wake - time.monotonic()) > 0:
            self._stop_if_killed()
            time.sleep(min(left, LONGEST_NAP))
        self._stop_if_killed()

    def _deadline(self, context: Context) -> datetime | None:
        """Say when to give up: the earlier of what ``timeout`` and ``execution_timeout`` allow."""
        ends = []
        if self.operator.timeout is not None:
            ends.append(utcnow() + timedelta(seconds=parameters.seconds("timeout", self.operator.timeout)))
        if limit := self.operator.execution_timeout:
            # Airflow counts from the task's start, and at the end of it neither lets a worker cancel nor, on 2.11, a
            # trigger. So give up a little before.
            began = getattr(context["ti"], "start_date", None) or utcnow()
            ends.append(began + limit - min(limit / 10, LONGEST_GOODBYE))
        return min(ends, default=None)

    def _start(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        try:
            return self.operator.start(hook, attempt)
        except PlanasonixError as error:
            if not is_ambiguous(error):
                raise
            raise PlanasonixLostTrackError(
                f"{error} Nobody knows whether the work was started: look at connection {self.operator.connection_id} "
                "in Planasonix, and clear this task once nothing of it runs there."
            ) from None

    def _tell(self, context: Context, job: Job, url: str) -> None:
        """Let everybody know of the job the moment that it exists: a kill, the log, other tasks, the task's button."""
        self._job_id = job.id
        if self._killed:
            self.kill()
        self._stop_if_killed()
        self.log.info("Started job %s on connection %s: %s", job.id, self.operator.connection_id, url)
        try:
            context["ti"].xcom_push(key=JOB_ID_KEY, value=job.id)
            context["ti"].xcom_push(key=JOB_URL_KEY, value=url)
        except Exception as error:
            # The job runs, and is not to be abandoned for the sake of a button.
            self.log.warning("The XComs job_id and job_url could not be written, going on without: %r", error)
        self._stop_if_killed()

    def _look_once(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent | None:
        """Look before the task defers: many a job is over by then. The trigger deals with whatever goes wrong here."""
        try:
            event = watch.see(hook.send(routes.get_job(watch.job_id), ONCE), utcnow())
        except PlanasonixError as error:
            self.log.info("The look before deferring failed, the trigger will look again: %s", error)
            return None
        return event if event and event.outcome == "over" else None

    def _defer(self, watch: Watch) -> NoReturn:
        self.operator.defer(
            trigger=PlanasonixJobTrigger(
                job_id=watch.job_id,
                planasonix_conn_id=self.operator.planasonix_conn_id,
                poll_interval=self.interval,
                deadline=watch.deadline,
                cancel_on_deadline=self.operator.cancel_on_kill,
                not_before=utcnow() + SETTLING,
                status=watch.status,
            ),
            method_name="execute_complete",
            # The trigger keeps the deadline itself, for a timeout of Airflow's would cancel and report nothing.
            timeout=watch.deadline - utcnow() + BACKSTOP if watch.deadline else None,
        )

    def _wait(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent:
        def look() -> Job:
            job = hook.send(routes.get_job(watch.job_id), ONCE)
            # With a key that was rotated meanwhile, a kill has to use the new one.
            self._account = hook.settings.account
            return job

        def cancel() -> Job:
            job = hook.cancel_job(watch.job_id)
            # The answer to a cancel has only part of what the account of an ended job needs.
            return hook.get_job(watch.job_id) if job.is_over else job

        event = worker.wait(watch, look, interval=self.interval, nap=self._nap)
        if event.is_out_of_time:
            cancelled = self.operator.cancel_on_kill
            event = event.after_cancel(worker.outcome_of(cancel)) if cancelled else event.after_no_cancel()
        return event

    def _conclude(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        self._job_id = None
        job = event.job_or_error()
        url = hook.job_url(job.id)
        if error := error_of_job(job, url):
            raise error
        results = fetch_results(
            job.id,
            lambda: hook.get_job_results(job.id),
            interval=self.interval,
            warn=self.log.warning,
            nap=self._nap,
        )
        log_results(results, info=self.log.info, warn=self.log.warning)
        return report(job, url, results)
