"""The road of a task that cancels Planasonix work: cancel, wait until it is over, account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConflictError, add_details
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.clock import utcnow
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.deferral import deadline_of, limit_behind, outage_policy
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.cancel import CANCEL_POLL_INTERVAL, cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep
from planasonix_provider.waiting.report import details_of, first_job_of, report
from planasonix_provider.waiting.shared_client import Priority, SharedClient, run_aside
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
        # The jobs of a backfill that were cancelled.
        self._asked: set[str] = set()
        # Whether Planasonix has answered to a cancel.
        self._is_confirmed = False
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
            work = self._cancel(hook)
            self._update_summary(hook, work)
            self._announce(work)
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
                look = partial(self._look, hook)
                interval = validators.poll_interval("poll_interval", self.operator.poll_interval)
                if isinstance(work, Backfill):
                    # Not to miss jobs that come and go between two looks.
                    interval = min(interval, CANCEL_POLL_INTERVAL)
                event = blocking_wait.wait(watch, look, interval=interval, rest=hook.delay, nap=self._rest.sleep)
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

    def _announce(self, work: Work) -> None:
        name = capitalize(self.subject.name)
        if isinstance(work, Backfill) and not work.is_over and not self._asked:
            if not self.operator.wait_for_completion:
                raise PlanasonixConflictError(
                    f"{name} is {work.status} and has made no jobs yet, so there is nothing to cancel. Try later, "
                    "or let wait_for_completion be true: the task cancels what it makes then."
                )
            self.log.info("%s is %s and has made no jobs yet; they are cancelled as they come.", name, work.status)
        else:
            words = "was over already" if work.is_over else "was asked to cancel"
            self.log.info("%s %s: it is %s.", name, words, work.status)

    def _cancel(self, hook: PlanasonixHook) -> Work:
        async def ask(channel: SharedClient) -> Work:
            return await cancel(
                partial(channel.send, priority=Priority.FIRST), self.subject, patience=0, asked=self._asked
            )

        work = run_aside(hook.config_source(), ask, self._rest.sleep_aside)
        # Without jobs there was nothing of a backfill to cancel.
        self._is_confirmed = not isinstance(work, Backfill) or bool(self._asked)
        return work

    def _look(self, hook: PlanasonixHook, request: Request[Any]) -> Any:
        answer = hook.send(request, NO_RETRY)
        if isinstance(answer, Backfill) and not answer.is_over:
            # It may have made more jobs since.
            return self._cancel(hook)
        return answer

    def _account(self, hook: PlanasonixHook, work: Work) -> dict[str, Any]:
        job_id = first_job_of(work)
        XComWriter(self.context, self.log).set_job_url(hook.job_url(job_id) if job_id else None)
        return report(work, hook.job_url)

    def _stop_if_killed(self) -> None:
        if self.is_killed:
            name = self.subject.name
            raise AirflowException(
                f"The task was killed while it waited for the end of {name}, which it has already asked to cancel."
                if self._is_confirmed
                else f"The task was killed before Planasonix had confirmed the cancel of {name}. To end it: "
                f"{cancel_command(self.subject, self.operator.planasonix_conn_id)}"
            )
