"""The road of a task that cancels Planasonix work: cancel, wait until it is over, account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider import validators
from planasonix_provider.api.errors import add_details
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.clock import utcnow
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.deferral import deadline_of, limit_behind
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.cancellation import Cancellation
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep
from planasonix_provider.waiting.report import details_of, first_job_of, report
from planasonix_provider.waiting.shared_client import Priority, run_requests
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Work
from planasonix_provider.waiting.wait_state import WaitState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator


class CancelTask:
    """One try of a task that cancels work.

    :param operator: says what to cancel; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, operator: PlanasonixCancelJobOperator, context: Context) -> None:
        self.operator = operator
        self.context = context
        self.log = operator.log
        self.subject = (
            JobTarget(operator.job_id) if operator.job_id is not None else BackfillTarget(str(operator.backfill_id))
        )
        self._rest = InterruptibleSleep(self._stop_if_killed)
        self.is_killed = False
        self._cancellation: Cancellation | None = None
        # The attributes of an exception that ends the task.
        self._details: dict[str, str | None] = {"job_id": operator.job_id, "backfill_id": operator.backfill_id}

    def run(self) -> dict[str, Any]:
        """Cancel, and wait unless the task is not to.

        :return: an account of the work, in JSON types.
        """
        deadline = deadline_of(self.operator, self.context)
        with (
            self._details_on_exceptions(),
            airflow_errors(),
            PlanasonixHook(self.operator.planasonix_conn_id, sleep=self._rest.sleep) as hook,
        ):
            if self.operator.job_id:
                self._details["job_url"] = hook.job_url(self.operator.job_id)
            self._cancellation = cancellation = Cancellation(
                self.subject,
                lambda cancel: run_requests(hook.config_source(), cancel, self._rest.sleep_aside, Priority.FIRST),
            )
            work = cancellation.cancel()
            self._update_summary(hook, work)
            cancellation.log_effect(
                work,
                self.log.info,
                waits=self.operator.wait_for_completion,
                advice="let wait_for_completion be true: the task cancels what it makes then.",
            )
            if self.operator.wait_for_completion and not work.is_over:
                watch = WaitState(
                    self.subject,
                    now=utcnow(),
                    info=self.log.info,
                    warn=self.log.warning,
                    deadline=deadline,
                    limit=limit_behind(deadline, self.operator, self.context),
                    status=work.status,
                    owned=False,
                    policy=outage_policy(),
                )
                poll = partial(cancellation.poll, send=lambda request: hook.send(request, NO_RETRY))
                interval = validators.poll_interval("poll_interval", self.operator.poll_interval)
                interval = cancellation.poll_interval(interval)
                event = blocking_wait.wait(watch, poll, interval=interval, rest=hook.delay, nap=self._rest.sleep)
                self._update_summary(hook, event.work or work)
                work = event.work_or_error()
            return self._account(hook, work)

    @contextmanager
    def _details_on_exceptions(self) -> Iterator[None]:
        try:
            yield
        except BaseException as exception:
            add_details(exception, **self._details)
            raise

    def _update_summary(self, hook: PlanasonixHook, work: Work) -> None:
        """Keep the work's ids for an exception that ends the task."""
        self._details |= {name: value for name, value in details_of(work).items() if value}
        if job_id := self._details["job_id"]:
            self._details["job_url"] = hook.job_url(job_id)

    def _account(self, hook: PlanasonixHook, work: Work) -> dict[str, Any]:
        job_id = first_job_of(work)
        XComWriter(self.context, self.log).set_job_url(hook.job_url(job_id) if job_id else None)
        return report(work, hook.job_url)

    def _stop_if_killed(self) -> None:
        if self.is_killed:
            name = self.subject.name
            raise AirflowException(
                f"The task was killed while it waited for the end of {name}, which it has already asked to cancel."
                if self._cancellation and self._cancellation.has_effect
                else f"The task was killed before Planasonix had confirmed the cancel of {name}. To end it: "
                f"{cancel_command(self.subject, self.operator.planasonix_conn_id)}"
            )
