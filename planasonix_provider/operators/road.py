"""The road of a task that starts Planasonix work: start, tell, wait, account."""

from __future__ import annotations

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
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.report import error_of_job, log_results, report
from planasonix_provider.waiting.watch import Watch
from planasonix_provider.waiting.worker import utcnow

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator

JOB_ID_KEY = "job_id"

#: How long after its own deadline a trigger may take to cancel and to report before Airflow ends the deferral for it.
BACKSTOP = timedelta(minutes=15)


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

    def travel(self, context: Context) -> dict[str, Any]:
        """Go the whole road; a deferrable task leaves it in the middle, and another process resumes it.

        :param context: the task's context, from Airflow.
        :return: an account of the job.
        :raises TaskDeferred: to wait in the triggerer.
        """
        deadline = self._deadline(utcnow())
        with _as_airflow_errors(), PlanasonixHook(self.operator.planasonix_conn_id) as hook:
            self._account = hook.settings.account
            self._stop_if_killed()
            job = self._start(hook, Attempt.of(context))
            self._tell(context, job, hook.job_url(job.id))
            if not self.operator.wait_for_completion:
                return report(job, hook.job_url(job.id))
            watch = Watch(job.id, now=utcnow(), info=self.log.info, warn=self.log.warning, deadline=deadline)
            watch.see(job, utcnow())
            event = self._look_once(hook, watch) if self.operator.deferrable else self._wait(hook, watch)
            if event is None:
                self._defer(watch)
            return self._conclude(hook, event)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of the job.
        """
        with _as_airflow_errors(), PlanasonixHook(self.operator.planasonix_conn_id) as hook:
            return self._conclude(hook, WaitEvent.from_payload(payload))

    def kill(self) -> None:
        """Let the road end here, and cancel the job if there is one that nobody is to own."""
        self._killed = True
        if self._job_id is None or self._account is None or not self.operator.cancel_on_kill:
            return
        job_id = self._job_id
        try:
            # A client of its own, for the signal may have come amid a request of the other.
            with Client(self._account, LAST_WORDS) as client:
                client.cancel_job(job_id)
        except Exception as error:
            self.log.error("Job %s could not be cancelled: it may still run, end it in Planasonix. %s", job_id, error)
        else:
            self._job_id = None
            self.log.info("The task was killed: job %s was asked to cancel.", job_id)

    def _stop_if_killed(self) -> None:
        """End the task: Airflow's signal handler returns, and leaves it to the task to stop."""
        if self._killed:
            raise PlanasonixJobCancelledError("The task was killed.")

    def _deadline(self, now: datetime) -> datetime | None:
        """Say when to give up: the earlier of what ``timeout`` and ``execution_timeout`` allow."""
        allowed = (self.operator.timeout, self.operator.execution_timeout)
        limits = [parameters.seconds("timeout", limit) for limit in allowed if limit is not None]
        return now + timedelta(seconds=min(limits)) if limits else None

    def _start(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        try:
            return self.operator.start(hook, attempt)
        except PlanasonixError as error:
            if not is_ambiguous(error):
                raise
            # A retry of the task could start the work twice, so there is none.
            raise AirflowFailException(
                f"{error} Nobody knows whether the work was started: look at connection {self.operator.connection_id} "
                "in Planasonix, and clear this task once nothing of it runs there."
            ) from None

    def _tell(self, context: Context, job: Job, url: str) -> None:
        """Let everybody know of the job the moment that it exists: a kill, other tasks, the task's button, the log."""
        self._job_id = job.id
        if self._killed:
            self.kill()
        self._stop_if_killed()
        context["ti"].xcom_push(key=JOB_ID_KEY, value=job.id)
        context["ti"].xcom_push(key=JOB_URL_KEY, value=url)
        self.log.info("Started job %s on connection %s: %s", job.id, self.operator.connection_id, url)

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

        event = worker.wait(
            watch,
            look,
            interval=self.interval,
            read_again=hook.read_again,
            stop_if_killed=self._stop_if_killed,
        )
        if event.is_out_of_time and self.operator.cancel_on_kill:
            event = event.after_cancel(worker.outcome_of(lambda: hook.cancel_job(watch.job_id)))
        return event

    def _conclude(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        self._job_id = None
        job = event.job_or_error()
        url = hook.job_url(job.id)
        if error := error_of_job(job, url):
            raise error
        results = worker.fetch_results(
            job.id,
            lambda: hook.get_job_results(job.id),
            interval=self.interval,
            warn=self.log.warning,
            stop_if_killed=self._stop_if_killed,
        )
        log_results(results, info=self.log.info, warn=self.log.warning)
        return report(job, url, results)


@contextmanager
def _as_airflow_errors() -> Iterator[None]:
    """End the task's retries where none can help: what was sent is wrong, or may not be sent."""
    try:
        yield
    except (PlanasonixValidationError, PlanasonixPermissionError, PlanasonixNotFoundError) as error:
        raise AirflowFailException(error.message) from error
