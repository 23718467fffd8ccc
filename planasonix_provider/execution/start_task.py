"""The road of a task that starts Planasonix work: start, tell, wait, account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider import validators
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixNotFoundError,
)
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import FINAL_POLL, NO_RETRY, LogThrottle, RetryPolicy
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.execution import asset_events
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.execution.submission import Submission
from planasonix_provider.execution.summary import ExecutionSummary
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.deferral import deadline_of, defer, limit_behind, outage_policy, read_connection
from planasonix_provider.triggers.planasonix import PlanasonixBackfillTrigger, PlanasonixJobTrigger
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.attempt import Attempt
from planasonix_provider.waiting.cancel import cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.result import WorkResult, account_for
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import Priority, SharedClient, run_aside
from planasonix_provider.waiting.targets import BackfillTarget, Snapshot, Work, WorkTarget, subject_of
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator
    from planasonix_provider.triggers.base import PlanasonixWorkTrigger


class StartTask:
    """One process of one try of a task, on its way from the start of the work to the account of it.

    :param operator: says what to start and how to wait; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, operator: PlanasonixStartOperator, context: Context) -> None:
        self.operator = operator
        self.context = context
        self.log = operator.log
        self.signpost = XComWriter(context, self.log)
        self.accounted = operator._accounted = ExecutionSummary(operator.starts, operator.connection_id)
        self._records = AttemptStore(context)
        self.interval = validators.poll_interval("poll_interval", operator.poll_interval)
        self.kill = OnKillHandler(operator, context)
        #: How a look is sent, which is not waited for when the time is up.
        self.once = NO_RETRY
        #: How long errors are tolerated.
        self.outages = outage_policy()
        #: Whether an earlier process of this try has reached the API.
        self.has_had_contact = False
        #: How the task's other requests are sent, and how often their retries are logged.
        self.throttle = LogThrottle()
        self.policy = RetryPolicy(throttle=self.throttle)
        self.rest = InterruptibleSleep(self.kill.raise_if_killed, self.kill.pulse.beat)

    def run(self) -> dict[str, Any]:
        """Go the whole road; a deferrable task leaves it in the middle, and another process resumes it.

        :return: an account of the work.
        :raises TaskDeferred: to wait in the triggerer.
        """
        with self.accounted.details_on_exceptions():
            return self._travel(deadline_of(self.operator, self.context))

    def run_after_conflict(self, payload: Any) -> dict[str, Any]:
        """Go the road when others are out of the way, with what is left of the time.

        :param payload: the event of the trigger that waited for others.
        :return: as :meth:`travel`.
        """
        with self.accounted.details_on_exceptions():
            with airflow_errors():
                event = WaitEvent.from_payload(payload, "job", "backfill")
                # Work that is gone is not in the way.
                with suppress(PlanasonixNotFoundError):
                    event.work_or_error()
            self.has_had_contact = True
            return self._travel(event.deadline)

    def _travel(self, deadline: datetime | None) -> dict[str, Any]:
        with self._hook_session(deadline) as hook:
            self.kill.account = hook.settings.client_config
            start = Submission(self, hook, self._records, deadline)
            work = start.submit_or_reconnect()
            self.kill.is_own = start.is_own
            self.kill.track_work(work)
            self._update_summary(hook, work.id, work)
            self._announce(hook, work, "Started" if start.is_new else "Going on with")
            subject = subject_of(work)
            if not self.operator.wait_for_completion:
                self._delete_record()
                asset_events.suppress_table_events(self.operator, self.context)
                return report(work, hook.job_url)
            watch = WaitState(
                subject,
                now=utcnow(),
                info=self.log.info,
                warn=self.log.warning,
                deadline=deadline,
                limit=(limit := limit_behind(deadline, self.operator, self.context)),
                owned=self.kill.is_own,
                policy=self.outages,
            )
            event = watch.on_snapshot(subject.seen(work, utcnow()), utcnow())
            if start.is_new or not work.is_over:
                wait = self._look_once if self.operator.deferrable else self._wait
                event = wait(hook, watch)
            self.kill.raise_if_killed()
            if event is None:
                trigger = self._trigger(
                    subject,
                    deadline=deadline,
                    limit=limit,
                    status=watch.status,
                    owned=self.kill.is_own,
                    cancel_on_kill=self.kill.cancels_work,
                )
                defer(self.operator, trigger)
            return self._finish(hook, event)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of the work.
        """
        with self.accounted.details_on_exceptions(), self._hook_session() as hook:
            event = WaitEvent.from_payload(payload, self.operator.starts)
            if event.outcome == "over":
                read_connection(hook, self.log.warning, self.rest.sleep)
            if event.is_out_of_time:
                self._mark_given_up()
            return self._finish(hook, event)

    @contextmanager
    def _hook_session(self, deadline: datetime | None = None) -> Iterator[PlanasonixHook]:
        """Give the hook, which tries nothing again past the deadline; say in the log what was done at a kill."""
        until = monotonic() + (deadline - utcnow()).total_seconds() if deadline else None
        self.once = replace(NO_RETRY, until=until)
        self.policy = policy = replace(self.policy, until=until)
        try:
            with (
                airflow_errors(),
                PlanasonixHook(self.operator.planasonix_conn_id, policy=policy, sleep=self.rest.sleep) as hook,
                self.accounted.record_errors(),
            ):
                yield hook
        finally:
            self.kill.finish()
            if self.kill.has_cancelled and self.operator.on_cancelled == "fail":
                # By this, a retry knows that the kill has cancelled the work, and not a person.
                with suppress(Exception):
                    self._records.give_up()

    def is_cancelled_by_a_person(self, error: PlanasonixError | None) -> bool:
        """Return whether the work was cancelled, but not by this task; only if ``on_cancelled`` is ``fail``."""
        if self.operator.on_cancelled != "fail" or not isinstance(error, PlanasonixJobCancelledError):
            return False
        record = None
        with suppress(Exception):
            record = self._records.read()
        if record is None:
            return True
        now, then = Attempt.of(self.context).clear_number, record.clear_number
        # A clear of a running task kills it, and so cancels its work; the next try looks like a retry.
        is_cleared = now is not None and then is not None and now > then
        return not (record.is_given_up or is_cleared)

    def fail_without_a_retry(self, error: PlanasonixError) -> NoReturn:
        """Fail the task, because a person has cancelled its work.

        :raises AirflowFailException: always.
        """
        error.with_message(
            f"No retry follows, because on_cancelled='fail'; to start again, clear the task. {error.message}"
        )
        self.accounted.error = error
        raise AirflowFailException(error.message) from error

    def _announce(self, hook: PlanasonixHook, work: Work, how: str) -> None:
        """Let everybody know of the work the moment that it exists: a kill, the log, other tasks, the task's button."""
        kind, page = self.operator.starts, self._page_of(hook, work)
        connection_id = self.accounted.connection_id
        self.log.info("%s %s %s on connection %s%s", how, kind, work.id, connection_id, f": {page}" if page else "")
        self.signpost.push(f"{kind}_id", work.id)
        self.signpost.set_job_url(page)
        self.kill.raise_if_killed()

    def _update_summary(self, hook: PlanasonixHook, work_id: str, work: Work | None) -> None:
        """Keep at hand what is told of the work besides the task's result."""
        self.accounted.id, self.accounted.work = work_id, work or self.accounted.work
        self.accounted.connection_id = (work and work.connection_id) or self._recorded_connection_id()
        # Without the Airflow connection there is less to tell, and the task has its own error.
        with suppress(PlanasonixError):
            self.accounted.host = hook.settings.client_config.host
            job_id = first_job_of(work) if work else work_id if self.operator.starts == "job" else None
            self.accounted.url = hook.job_url(job_id) if job_id else self.accounted.url

    def _recorded_connection_id(self) -> str:
        """Return the connection that the work was started on, if a response does not name it."""
        with suppress(Exception):
            if record := self._records.read():
                return record.connection_id
        return self.operator.connection_id

    def _page_of(self, hook: PlanasonixHook, work: Work) -> str | None:
        job_id = first_job_of(work)
        return hook.job_url(job_id) if job_id else None

    def _send(self, hook: PlanasonixHook, request: Request[Any]) -> Any:
        """Ask once for what a look needs, and learn from the answer what a kill, and the button, would want to know."""
        answer = hook.send(request, self.once)
        # With a key that was rotated meanwhile, a kill has to use the new one.
        self.kill.account = hook.settings.client_config
        if isinstance(answer, (Job, Backfill)):
            self.accounted.work = answer
        if isinstance(answer, Backfill):
            self.kill.job_ids = answer.job_ids or []
            if not self.signpost.url:
                self.signpost.set_job_url(self._page_of(hook, answer))
        return answer

    def _look_once(self, hook: PlanasonixHook, watch: WaitState) -> WaitEvent | None:
        """Look before the task defers: much is over by then. The trigger deals with whatever goes wrong here."""
        seen = blocking_wait.look(watch, partial(self._send, hook))
        if isinstance(seen, Snapshot):
            event = watch.on_snapshot(seen, utcnow())
            return event if event and event.outcome == "over" else None
        self.log.info("The look before deferring failed; the trigger looks again: %s", seen)
        return None

    def defer_until_free(self, work: Work, deadline: datetime | None) -> NoReturn:
        """Leave the worker to others until what is in the way is over.

        :param work: what is in the way.
        :param deadline: when to give up, or ``None`` for never.
        :raises TaskDeferred: always.
        """
        limit = limit_behind(deadline, self.operator, self.context)
        trigger = self._trigger(subject_of(work), deadline=deadline, limit=limit, status=work.status)
        defer(self.operator, trigger, "execute_after_conflict")

    def _trigger(self, subject: WorkTarget, **how: Any) -> PlanasonixWorkTrigger:
        how |= {"planasonix_conn_id": self.operator.planasonix_conn_id, "poll_interval": self.interval}
        if isinstance(subject, BackfillTarget):
            return PlanasonixBackfillTrigger(subject.id, **how)
        return PlanasonixJobTrigger(subject.id, **how)

    def _wait(self, hook: PlanasonixHook, watch: WaitState) -> WaitEvent:
        send = partial(self._send, hook)
        event = blocking_wait.wait(watch, send, interval=self.interval, rest=hook.delay, nap=self.rest.sleep)
        return self._cancel_at_deadline(hook, watch, event) if event.is_out_of_time else event

    def _cancel_at_deadline(self, hook: PlanasonixHook, watch: WaitState, event: WaitEvent) -> WaitEvent:
        """Cancel the work whose time is up, or look at it for a last time."""
        if self.kill.may_run_elsewhere():
            self.rest.sleep(self.kill.pulse.seconds_in_doubt())
        subject = self.kill.subject
        assert subject is not None  # noqa: S101 - it was started

        async def say_goodbye(channel: SharedClient) -> Work:
            return await cancel(
                partial(channel.send, priority=Priority.URGENT),
                subject,
                self.kill.job_ids,
                sleep=self.rest.sleep_aside,
                warn=self.kill.cannot_cancel_yet,
            )

        if not self.kill.cancels_work:
            seen = blocking_wait.look(watch, partial(hook.send, policy=FINAL_POLL))
            ended = isinstance(seen, Snapshot) and seen.is_over and seen.work
            return WaitEvent.over(subject, ended) if ended else event.without_cancel()
        self._mark_given_up()
        answer: Work | PlanasonixError
        try:
            answer = run_aside(hook.config_source(), say_goodbye, self.rest.sleep_aside)
        except PlanasonixError as error:
            self.kill.raise_if_killed()
            answer = error
        return event.with_cancel_result(answer, cancel_command(subject, self.operator.planasonix_conn_id))

    def _mark_given_up(self) -> None:
        """Let the next try end what may be left of this one's work, whose time is up."""
        if not self.operator.cancel_on_kill:
            return
        try:
            self._records.give_up()
        except Exception as fault:
            self.log.warning(
                "That the time is up could not be written down (%r): if the %s still runs, a retry goes on with it "
                "instead of cancelling it.",
                fault,
                self.operator.starts,
            )

    def _delete_record(self) -> None:
        """Leave no record behind of what is done, where Airflow would keep it for ever."""
        try:
            self._records.forget()
        except Exception as fault:
            self.log.warning("What was written down of the start could not be deleted: %r", fault)

    def _finish(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        self.kill.subject = None
        self._update_summary(hook, event.id, event.work)
        work = event.work_or_error()

        async def ask(channel: SharedClient) -> WorkResult:
            patience = ResultFetcher(
                channel.send, self.interval, self.log.warning, self.rest.sleep_aside, policy=self.outages
            )
            return await account_for(work, patience, job_url=hook.job_url, info=self.log.info)

        account = run_aside(hook.config_source(), ask, self.rest.sleep_aside)
        self.accounted.set_result(account)
        if self.operator.starts == "backfill":
            self.signpost.set_job_url(account.url)
        if not account.error:
            host, connection_id = hook.settings.client_config.host, self.accounted.connection_id
            asset_events.emit_table_events(self.operator, self.context, account, host, connection_id)
        is_cancelled_by_a_person = self.is_cancelled_by_a_person(account.error)
        self._delete_record()
        if account.error and is_cancelled_by_a_person:
            self.fail_without_a_retry(account.error)
        if account.error:
            raise account.error
        assert account.result is not None  # noqa: S101 - what did not fail has been done
        return account.result
