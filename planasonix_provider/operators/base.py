"""The road of every task that starts Planasonix work: check, start, tell, wait, account."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from planasonix_provider import parameters
from planasonix_provider.links.planasonix import JOB_URL_KEY, PlanasonixJobLink

# What talks to the API is imported where a task runs, and not here: a DAG file is parsed again and again, and
# pydantic's models and httpx cost more than all the rest of it.
if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.api.client import Account
    from planasonix_provider.api.models import Job, Priority
    from planasonix_provider.hooks.planasonix import PlanasonixHook
    from planasonix_provider.waiting.attempt import Attempt
    from planasonix_provider.waiting.event import WaitEvent
    from planasonix_provider.waiting.watch import Watch

JOB_ID_KEY = "job_id"

#: How long after its own deadline a trigger may take to cancel and to report before Airflow ends the deferral for it.
_BACKSTOP = timedelta(minutes=15)


class PlanasonixStartOperator(BaseOperator):
    """Base of the operators that start Planasonix work; a subclass says what it starts.

    :param connection_id: Planasonix's connection. (templated)
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
        (templated)
    :param priority: ``low``, ``normal`` or ``high``; default: the API's choice. (templated)
    :param metadata: what Planasonix's run history is to show and filter by, as a JSON object. The task's own
        ``dag_id``, ``task_id``, ``run_id``, ``try_number`` and ``map_index`` are sent with it; a key of yours wins over
        one of these. (templated)
    :param wait_for_completion: whether to wait until the work is over; default yes. If not, the task succeeds once the
        work is started.
    :param deferrable: whether to wait in the triggerer, which takes no worker slot; default: Airflow's setting
        ``[operators] default_deferrable``.
    :param poll_interval: the seconds between two looks; default 10. (templated)
    :param timeout: for how long to wait, in seconds or as a ``timedelta``; default: as long as ``execution_timeout``
        allows, if that is set. (templated)
    :param cancel_on_kill: whether to cancel the work when the task is killed or out of time; default yes.
    :raises ValueError: when the DAG is parsed, if a parameter without a template makes no sense.
    """

    #: How each parameter is checked, and put into its final form, when the task runs.
    checks: ClassVar[Mapping[str, parameters.Check]] = {
        "connection_id": parameters.text,
        "planasonix_conn_id": parameters.text,
        "priority": parameters.optional(parameters.priority),
        "metadata": parameters.optional(parameters.metadata),
        "poll_interval": parameters.seconds,
        "timeout": parameters.optional(parameters.seconds),
    }

    template_fields: Sequence[str] = (
        "connection_id",
        "planasonix_conn_id",
        "priority",
        "metadata",
        "poll_interval",
        "timeout",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"metadata": "json"}
    operator_extra_links = (PlanasonixJobLink(),)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        connection_id: str,
        planasonix_conn_id: str = "planasonix_default",
        priority: Priority | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        timeout: float | timedelta | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection_id = connection_id
        self.planasonix_conn_id = planasonix_conn_id
        self.priority = priority
        self.metadata = metadata
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        # What a kill needs to have at hand, for nothing may be asked of Airflow then.
        self._account: Account | None = None
        self._job_id: str | None = None
        self._killed = False
        self.check(PlanasonixStartOperator.checks)

    @abstractmethod
    def start(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        """Start the work.

        :param hook: calls the API.
        :param attempt: the try that is running; its key goes with the start.
        :return: the job that was started.
        """

    def check(self, checks: Mapping[str, parameters.Check]) -> None:
        """Refuse what makes no sense, as far as it is known when the DAG is parsed.

        :param checks: how each parameter is checked.
        :raises ValueError: if a parameter without a template makes no sense.
        """
        for name, check in checks.items():
            if not parameters.is_open(value := getattr(self, name)):
                check(name, value)

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the work and, unless told otherwise, wait until it is over.

        :param context: the task's context, from Airflow.
        :return: an account of the job in JSON types; see :func:`planasonix_provider.waiting.report.report`.
        :raises AirflowFailException: for what no retry can mend: bad parameters, a 400, a 403 or a 404, a start of
            which nobody knows whether it took effect.
        :raises PlanasonixError: of another kind, for what a retry can.
        """
        from planasonix_provider.hooks.planasonix import PlanasonixHook
        from planasonix_provider.waiting.attempt import Attempt
        from planasonix_provider.waiting.report import report
        from planasonix_provider.waiting.worker import utcnow

        with _as_airflow_errors():
            self._settle_parameters()
            deadline = self._deadline(utcnow())
            with PlanasonixHook(self.planasonix_conn_id) as hook:
                self._account = hook.settings.account
                job = self._start(hook, Attempt.of(context))
                self._tell(context, job, hook.job_url(job.id))
                if not self.wait_for_completion:
                    return report(job, hook.job_url(job.id))
                watch = self._watch(job, deadline)
                event = self._look_once(hook, watch) if self.deferrable else self._wait(hook, watch)
                if event is None:
                    self._defer(job, deadline)
                return self._conclude(hook, event)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on when the trigger has handed back its event.

        :param context: the task's context, from Airflow.
        :param event: how the wait ended.
        :return: as :meth:`execute`.
        """
        from planasonix_provider.hooks.planasonix import PlanasonixHook
        from planasonix_provider.waiting.event import WaitEvent

        with _as_airflow_errors():
            self._settle_parameters()
            with PlanasonixHook(self.planasonix_conn_id) as hook:
                return self._conclude(hook, WaitEvent.from_payload(event))

    def on_kill(self) -> None:
        """Cancel the job, before anything else: there may be no more than a few seconds."""
        self._killed = True
        if self.cancel_on_kill:
            self._cancel_at_once()

    def _settle_parameters(self) -> None:
        """Check what the templates gave, and put each parameter into its final form."""
        for name, check in self.checks.items():
            try:
                setattr(self, name, check(name, getattr(self, name)))
            except ValueError as refusal:
                raise AirflowFailException(str(refusal)) from None

    def _deadline(self, now: datetime) -> datetime | None:
        """Say when to give up: the earlier of what ``timeout`` and ``execution_timeout`` allow."""
        limits = [parameters.seconds("timeout", limit) for limit in (self.timeout, self.execution_timeout) if limit]
        return now + timedelta(seconds=min(limits)) if limits else None

    def _start(self, hook: PlanasonixHook, attempt: Attempt) -> Job:
        from planasonix_provider.api.errors import PlanasonixError
        from planasonix_provider.api.retry import is_ambiguous

        try:
            return self.start(hook, attempt)
        except PlanasonixError as error:
            if not is_ambiguous(error):
                raise
            # A retry of the task could start the work twice, so there is none.
            raise AirflowFailException(
                f"{error} Nobody knows whether the work was started: look at connection {self.connection_id} in "
                "Planasonix, and clear this task once nothing of it runs there."
            ) from None

    def _tell(self, context: Context, job: Job, url: str) -> None:
        """Let everybody know of the job the moment that it exists: a kill, the task's button, other tasks, the log."""
        self._job_id = job.id
        if self._killed and self.cancel_on_kill:
            self._cancel_at_once()
        self._stop_if_killed()
        context["ti"].xcom_push(key=JOB_ID_KEY, value=job.id)
        context["ti"].xcom_push(key=JOB_URL_KEY, value=url)
        self.log.info("Started job %s on connection %s: %s", job.id, self.connection_id, url)

    def _watch(self, job: Job, deadline: datetime | None) -> Watch:
        from planasonix_provider.waiting.watch import Watch
        from planasonix_provider.waiting.worker import utcnow

        watch = Watch(job.id, now=utcnow(), info=self.log.info, warn=self.log.warning, deadline=deadline)
        watch.see(job, utcnow())
        return watch

    def _look_once(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent | None:
        """Look before the task defers: many a job is over by then. The trigger deals with whatever goes wrong here."""
        from planasonix_provider.api import routes
        from planasonix_provider.api.errors import PlanasonixError
        from planasonix_provider.api.retry import ONCE
        from planasonix_provider.waiting.worker import utcnow

        try:
            event = watch.see(hook.send(routes.get_job(watch.job_id), ONCE), utcnow())
        except PlanasonixError as error:
            self.log.info("The look before deferring failed, the trigger will look again: %s", error)
            return None
        return event if event and event.outcome == "over" else None

    def _defer(self, job: Job, deadline: datetime | None) -> NoReturn:
        from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger
        from planasonix_provider.waiting.worker import utcnow

        self.defer(
            trigger=PlanasonixJobTrigger(
                job_id=job.id,
                planasonix_conn_id=self.planasonix_conn_id,
                poll_interval=self.poll_interval,
                deadline=deadline,
                cancel_on_deadline=self.cancel_on_kill,
                status=job.status,
            ),
            method_name="execute_complete",
            # The trigger keeps the deadline itself, for a timeout of Airflow's would cancel and report nothing.
            timeout=deadline - utcnow() + _BACKSTOP if deadline else None,
        )

    def _wait(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent:
        from planasonix_provider.api import routes
        from planasonix_provider.api.retry import ONCE
        from planasonix_provider.waiting import worker

        def reconnect() -> None:
            hook.read_again()
            self._account = hook.settings.account

        event = worker.wait(
            watch,
            lambda: hook.send(routes.get_job(watch.job_id), ONCE),
            interval=self.poll_interval,
            reconnect=reconnect,
            stop_if_killed=self._stop_if_killed,
        )
        if event.is_out_of_time and self.cancel_on_kill:
            event = event.after_cancel(worker.attempt(lambda: hook.cancel_job(watch.job_id)))
        return event

    def _conclude(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        from planasonix_provider.waiting import worker
        from planasonix_provider.waiting.report import error_of_job, log_results, report

        self._job_id = None
        event.raise_error()
        job = event.job
        assert job is not None  # noqa: S101 - the event's own validation
        url = hook.job_url(job.id)
        if error := error_of_job(job, url):
            raise error
        results = worker.fetch_results(
            job.id,
            lambda: hook.get_job_results(job.id),
            interval=self.poll_interval,
            warn=self.log.warning,
            stop_if_killed=self._stop_if_killed,
        )
        log_results(results, info=self.log.info, warn=self.log.warning)
        return report(job, url, results)

    def _stop_if_killed(self) -> None:
        from planasonix_provider.api.errors import PlanasonixJobCancelledError

        if self._killed:
            raise PlanasonixJobCancelledError(
                f"The task was killed while it waited for job {self._job_id or 'results'}."
            )

    def _cancel_at_once(self) -> None:
        """Send the cancel, over a client of its own: the signal may have come amid a request of the other."""
        from planasonix_provider.api.client import Client
        from planasonix_provider.api.retry import LAST_WORDS

        job_id, self._job_id = self._job_id, None
        if job_id is None or self._account is None:
            return
        try:
            with Client(self._account, LAST_WORDS) as client:
                client.cancel_job(job_id)
        except Exception as error:
            self.log.error(
                "Job %s could not be cancelled and may still run: cancel it in Planasonix. %s", job_id, error
            )
        else:
            self.log.info("The task was killed: job %s was asked to cancel.", job_id)


@contextmanager
def _as_airflow_errors() -> Iterator[None]:
    """End the task's retries where none can help: what was sent is wrong, or may not be sent."""
    from planasonix_provider.api.errors import (
        PlanasonixNotFoundError,
        PlanasonixPermissionError,
        PlanasonixValidationError,
    )

    try:
        yield
    except (PlanasonixValidationError, PlanasonixPermissionError, PlanasonixNotFoundError) as error:
        raise AirflowFailException(error.message) from error
