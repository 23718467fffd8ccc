"""Runs one try of a task that cancels work: cancel, wait until it is over, return the result."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from planasonix_provider.api.errors import add_details
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.clock import utcnow
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.options import AirflowTask
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.deferral import deadline_of, limit_behind
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.cancellation import Cancellation
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep, TaskKilledError
from planasonix_provider.waiting.report import details_of, first_job_of, report
from planasonix_provider.waiting.shared_client import RequestPriority, run_requests
from planasonix_provider.waiting.targets import Work, WorkTarget
from planasonix_provider.waiting.wait_state import WaitState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CancelTask:
    """One try of a task that cancels a job or a backfill."""

    def __init__(
        self,
        target: WorkTarget,
        task: AirflowTask,
        context: Context,
        *,
        conn_id: str,
        poll_interval: float,
        wait_for_completion: bool,
    ) -> None:
        self._target = target
        self._task = task
        self._context = context
        self._log = task.log
        self._conn_id = conn_id
        self._poll_interval = poll_interval
        self._wait_for_completion = wait_for_completion
        self._sleeper = InterruptibleSleep(self._raise_if_killed)
        self._is_killed = False
        self._cancellation: Cancellation | None = None
        # The attributes of an exception that ends the task.
        self._details: dict[str, str | None] = {target.id_name: target.id}

    def run(self) -> dict[str, Any]:
        """Return the job or backfill in JSON types, once it is over or, without a wait, cancelled."""
        deadline = deadline_of(self._task, self._context)
        try:
            with airflow_errors(), PlanasonixHook(self._conn_id, sleep=self._sleeper.sleep) as hook:
                work = self._cancel(hook)
                if self._wait_for_completion and not work.is_over:
                    state = WaitState(
                        self._target,
                        now=utcnow(),
                        info=self._log.info,
                        warn=self._log.warning,
                        deadline=deadline,
                        limit=limit_behind(deadline, self._task, self._context),
                        status=work.status,
                        is_owned=False,
                        policy=outage_policy(),
                    )
                    work = self._poll_until_complete(hook, state, work)
                job_id = first_job_of(work)
                XComWriter(self._context, self._log).set_job_url(hook.job_url(job_id) if job_id else None)
                return report(work, hook.job_url)
        except BaseException as exception:
            add_details(exception, **self._details)
            raise

    def on_kill(self) -> None:
        """End the wait; Airflow calls this in a signal handler. Cancelled work stays cancelled."""
        self._is_killed = True

    def _cancel(self, hook: PlanasonixHook) -> Work:
        if job_id := self._details.get("job_id"):
            self._details["job_url"] = hook.job_url(job_id)
        self._cancellation = Cancellation(
            self._target,
            lambda cancel: run_requests(hook.config_source(), cancel, self._sleeper.async_sleep, RequestPriority.FIRST),
        )
        work = self._cancellation.cancel()
        self._set_details(hook, work)
        if not self._wait_for_completion:
            advice = "let wait_for_completion be true: the task cancels what it makes then."
            self._cancellation.raise_if_without_effect(work, advice)
        self._log.info(self._cancellation.describe_effect(work))
        return work

    def _poll_until_complete(self, hook: PlanasonixHook, state: WaitState, work: Work) -> Work:
        assert self._cancellation is not None  # noqa: S101 - set by _cancel()
        event = blocking_wait.wait(
            state,
            partial(self._cancellation.poll, send=lambda request: hook.send(request, NO_RETRY)),
            interval=self._cancellation.poll_interval(self._poll_interval),
            rate_limit_delay=hook.delay,
            sleep=self._sleeper.sleep,
        )
        self._set_details(hook, event.work or work)
        return event.work_or_error()

    def _set_details(self, hook: PlanasonixHook, work: Work) -> None:
        self._details |= {name: value for name, value in details_of(work).items() if value}
        if job_id := self._details.get("job_id"):
            self._details["job_url"] = hook.job_url(job_id)

    def _raise_if_killed(self) -> None:
        if not self._is_killed:
            return
        name = self._target.name
        if self._cancellation and self._cancellation.has_effect:
            raise TaskKilledError(
                f"The task was killed while it waited for the end of {name}, which it has already asked to cancel."
            )
        raise TaskKilledError(
            f"The task was killed before Planasonix had confirmed the cancel of {name}. To end it: "
            f"{cancel_command(self._target, self._conn_id)}"
        )
