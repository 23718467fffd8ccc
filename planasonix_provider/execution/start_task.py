"""Runs one try of a start operator: submit or reconnect, wait, return the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import PlanasonixError, PlanasonixJobCancelledError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import FINAL_POLL, LogThrottle, RetryPolicy
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.execution import asset_events
from planasonix_provider.execution.airflow_errors import airflow_errors
from planasonix_provider.execution.api_session import ApiSession
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.execution.conflicts import ConflictHandler
from planasonix_provider.execution.on_kill import OnKillHandler
from planasonix_provider.execution.options import AirflowTask, StartOptions
from planasonix_provider.execution.previous_attempt import PreviousAttempt
from planasonix_provider.execution.submission import Submission, Submit
from planasonix_provider.execution.summary import ExecutionSummary
from planasonix_provider.execution.xcom import XComWriter
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.base import PlanasonixWaitTrigger
from planasonix_provider.triggers.deferral import deadline_of, defer, discard_if_stale, limit_behind, read_connection
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.attempt import Attempt
from planasonix_provider.waiting.cancellation import cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.result import WorkResult, fetch_result
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority
from planasonix_provider.waiting.targets import Snapshot, Work, WorkTarget, target_of
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState
from planasonix_provider.waiting.work_metrics import WorkMetrics

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class StartTask:
    """One process of one try of a task. A deferrable task has several: the trigger resumes it in another process."""

    def __init__(self, options: StartOptions, task: AirflowTask, submit: Submit, context: Context) -> None:
        self._options = options
        self._task = task
        self._submit = submit
        self._context = context
        self._log = task.log
        self._xcoms = XComWriter(context, self._log)
        self.summary = ExecutionSummary(options.kind, options.connection_id, partition_keys=options.partition_keys)
        self._store = AttemptStore(context)
        self._kill_handler = OnKillHandler(options, context["ti"], self._log)
        self._outages = outage_policy()
        self._metrics = WorkMetrics(options.planasonix_conn_id, "operator", options.connection_id)
        self._sleeper = InterruptibleSleep(self._kill_handler.raise_if_killed, self._kill_handler.stall_detector.beat)

    def run(self) -> dict[str, Any]:
        """Return the result of the work, or defer."""
        with self.summary.details_on_exceptions():
            return self._run(deadline_of(self._task, self._context))

    def run_after_conflict(self, payload: Any) -> dict[str, Any]:
        """Run once the conflicting work is over, until the deadline that the trigger hands back in its event."""
        with self.summary.details_on_exceptions():
            with airflow_errors():
                event = WaitEvent.from_payload(payload, "job", "backfill")
                if discard_if_stale(event, self._context, self._log):
                    return self.run()
                # Work that no longer exists does not conflict.
                with suppress(PlanasonixNotFoundError):
                    event.work_or_error()
            return self._run(event.deadline, has_had_contact=True)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Return the result after the trigger has sent its event."""
        with self.summary.details_on_exceptions():
            with airflow_errors(), self.summary.record_errors():
                event = WaitEvent.from_payload(payload, self._options.kind)
            if discard_if_stale(event, self._context, self._log):
                return self.run()
            with self._open_session() as session:
                if event.outcome == "over":
                    read_connection(session.hook, self._log.warning, self._sleeper.sleep)
                if event.is_out_of_time:
                    self._mark_given_up()
                return self._get_job_result(session, event, noticed_at=event.sent_at)

    def on_kill(self) -> None:
        """Cancel the work; Airflow calls this in a signal handler."""
        self._kill_handler.handle()

    @contextmanager
    def _open_session(self, deadline: datetime | None = None, *, has_had_contact: bool = False) -> Iterator[ApiSession]:
        """Open the hook, whose retries end at the deadline; complete the cancel if the task is killed meanwhile."""
        until = monotonic() + (deadline - utcnow()).total_seconds() if deadline else None
        policy = RetryPolicy(throttle=LogThrottle(), until=until)
        try:
            with (
                airflow_errors(),
                PlanasonixHook(self._options.planasonix_conn_id, policy=policy, sleep=self._sleeper.sleep) as hook,
                self.summary.record_errors(),
            ):
                yield ApiSession(
                    hook,
                    self._log,
                    self._sleeper,
                    interval=self._options.poll_interval,
                    policy=policy,
                    outages=self._outages,
                    deadline=deadline,
                    limit=limit_behind(deadline, self._task, self._context),
                    has_had_contact=has_had_contact,
                )
        finally:
            self._kill_handler.finish()
            if self._kill_handler.cancelled_work:
                self._metrics.count_cancel(self._kill_handler.cancelled_work)
            if self._kill_handler.has_cancelled and self._options.on_cancelled == "fail":
                # A retry then knows that the kill has cancelled the work, and not a person.
                with suppress(Exception):
                    self._store.give_up()

    def _run(self, deadline: datetime | None, *, has_had_contact: bool = False) -> dict[str, Any]:
        with self._open_session(deadline, has_had_contact=has_had_contact) as session:
            self._kill_handler.client_config = session.hook.settings.client_config
            work, is_new = self._submit_or_reconnect(session)
            self._kill_handler.track_work(work)
            self._update_summary(session, work.id, work)
            self._announce(session, work, "Started" if is_new else "Going on with")
            if not self._options.wait_for_completion:
                self._release_record()
                asset_events.suppress_table_events(self._task, self._context)
                return report(work, session.hook.job_url)
            target = target_of(work)
            state = session.wait_state(target, is_own=self._kill_handler.is_own)
            event = state.on_snapshot(target.seen(work, utcnow()), utcnow())
            must_wait = is_new or not work.is_over
            if must_wait:
                wait = self._poll_once if self._options.deferrable else self._poll_until_complete
                event = wait(session, state)
            self._kill_handler.raise_if_killed()
            if event is None:
                options = {"owned": self._kill_handler.is_own, "cancel_on_kill": self._kill_handler.cancels_work}
                defer(self._task, self._trigger(session, target, status=state.status, **options))
            return self._get_job_result(session, event, noticed_at=utcnow() if must_wait else None)

    def _submit_or_reconnect(self, session: ApiSession) -> tuple[Work, bool]:
        """Return the work, and whether this try has started it."""
        record = self._store.read()
        unanswered = None
        if record:
            previous = PreviousAttempt(
                record,
                self._options,
                session,
                self._store,
                self._kill_handler,
                self._metrics,
                self._raise_if_cancelled_by_person,
            )
            self.summary.id = record.id if record.kind == self._options.kind else None
            if work := previous.reconnect(Attempt.of(self._context)):
                self._metrics.count_reconnect(work)
                return work, False
            self.summary.id = None
            unanswered = record if previous.is_resend_due else None
        conflicts = ConflictHandler(self._options, session, partial(self._defer_until_free, session))
        submission = Submission(
            self._options,
            session,
            self._store,
            self._kill_handler,
            self._metrics,
            conflicts,
            self._submit,
            self._context,
            unanswered,
        )
        work = submission.submit()
        self._kill_handler.is_own = submission.is_own
        return work, submission.is_own

    def _raise_if_cancelled_by_person(self, error: PlanasonixError) -> None:
        """Fail the task without a retry, if ``on_cancelled`` says so."""
        is_cancelled = isinstance(error, PlanasonixJobCancelledError)
        if self._options.on_cancelled != "fail" or not is_cancelled or self._has_cancelled_its_work():
            return
        error.set_message(
            f"No retry follows, because on_cancelled='fail'; to start again, clear the task. {error.message}"
        )
        self.summary.error = error
        raise AirflowFailException(error.message) from error

    def _has_cancelled_its_work(self) -> bool:
        """Return whether a kill, a timeout or a clear of the task has cancelled the work."""
        record = None
        with suppress(Exception):
            record = self._store.read()
        if record is None:
            return False
        now, then = Attempt.of(self._context).clear_number, record.clear_number
        # A clear of a running task kills it, and so cancels its work; the next try looks like a retry.
        return record.is_given_up or (now is not None and then is not None and now > then)

    def _announce(self, session: ApiSession, work: Work, action: str) -> None:
        """Log the work and push its XComs as soon as it exists."""
        kind, page = self._options.kind, session.page_of(work)
        connection_id = self.summary.connection_id
        self._log.info("%s %s %s on connection %s%s", action, kind, work.id, connection_id, f": {page}" if page else "")
        self._xcoms.push(f"{kind}_id", work.id)
        self._xcoms.set_job_url(page)
        self._kill_handler.raise_if_killed()

    def _update_summary(self, session: ApiSession, work_id: str, work: Work | None) -> None:
        self.summary.id, self.summary.work = work_id, work or self.summary.work
        self.summary.connection_id = (work and work.connection_id) or self._recorded_connection_id()
        # Without the Airflow connection, host and page are unknown, and the task has its own error.
        with suppress(PlanasonixError):
            self.summary.host = session.hook.settings.client_config.host
            job_id = first_job_of(work) if work else work_id if self._options.kind == "job" else None
            self.summary.url = session.hook.job_url(job_id) if job_id else self.summary.url

    def _recorded_connection_id(self) -> str:
        """Return the connection that the work was started on, if a response does not name it."""
        with suppress(Exception):
            if record := self._store.read():
                return record.connection_id
        return self._options.connection_id

    def _poll(self, session: ApiSession, request: Request[Any]) -> Any:
        """Send one request of a wait, and store what a kill and the task's button need of the response."""
        response = session.poll(request)
        # The key may have been rotated meanwhile, and a kill needs the new one.
        self._kill_handler.client_config = session.hook.settings.client_config
        if isinstance(response, (Job, Backfill)):
            self.summary.work = response
        if isinstance(response, Backfill):
            self._kill_handler.job_ids = response.job_ids or []
            if not self._xcoms.url:
                self._xcoms.set_job_url(session.page_of(response))
        return response

    def _poll_once(self, session: ApiSession, state: WaitState) -> WaitEvent | None:
        """Poll before deferring, because much is over by then. The trigger handles all errors."""
        snapshot = blocking_wait.poll(state, partial(self._poll, session))
        if isinstance(snapshot, Snapshot):
            event = state.on_snapshot(snapshot, utcnow())
            return event if event and event.outcome == "over" else None
        self._log.info("The poll before deferring failed; the trigger polls again: %s", snapshot)
        return None

    def _poll_until_complete(self, session: ApiSession, state: WaitState) -> WaitEvent:
        event = session.poll_until_complete(state, partial(self._poll, session))
        return self._cancel_at_deadline(session, state, event) if event.is_out_of_time else event

    def _defer_until_free(self, session: ApiSession, work: Work) -> NoReturn:
        """Wait in the triggerer until the conflicting work is over."""
        trigger = self._trigger(session, target_of(work), status=work.status)
        defer(self._task, trigger, "execute_after_conflict")

    def _trigger(self, session: ApiSession, target: WorkTarget, **options: Any) -> PlanasonixWaitTrigger:
        return PlanasonixWaitTrigger(
            target,
            planasonix_conn_id=self._options.planasonix_conn_id,
            poll_interval=session.interval,
            deadline=session.deadline,
            limit=session.limit,
            **options,
        )

    def _cancel_at_deadline(self, session: ApiSession, state: WaitState, event: WaitEvent) -> WaitEvent:
        """Cancel the work; if it must not be cancelled, poll it for a last time."""
        if self._kill_handler.may_run_elsewhere():
            self._sleeper.sleep(self._kill_handler.stall_detector.seconds_in_doubt())
        target = self._kill_handler.target
        assert target is not None  # noqa: S101 - it was started

        async def cancel_work(send: AsyncSend) -> Work:
            return await cancel(
                send,
                target,
                self._kill_handler.job_ids,
                sleep=self._sleeper.async_sleep,
                warn=self._kill_handler.cannot_cancel_yet,
            )

        if not self._kill_handler.cancels_work:
            answer = blocking_wait.poll(state, partial(session.hook.send, policy=FINAL_POLL))
            event = state.on_final_poll(answer, event)
            return event.without_cancel() if event.is_out_of_time else event
        self._mark_given_up()
        result: Work | PlanasonixError
        try:
            result = session.run_async(cancel_work, RequestPriority.URGENT)
            self._metrics.count_cancel(result)
        except PlanasonixError as error:
            self._kill_handler.raise_if_killed()
            result = error
        return event.with_cancel_result(result, cancel_command(target, self._options.planasonix_conn_id))

    def _mark_given_up(self) -> None:
        """Mark the record, so that the next try cancels the work if it still runs."""
        if not self._options.cancel_on_kill:
            return
        try:
            self._store.give_up()
        except Exception as error:
            self._log.warning(
                "The timeout could not be recorded (%r): if the %s still runs, a retry goes on with it "
                "instead of cancelling it.",
                error,
                self._options.kind,
            )

    def _release_record(self) -> None:
        try:
            self._store.release()
        except Exception as error:
            self._log.warning("The record of the start could not be deleted: %r", error)

    def _get_job_result(self, session: ApiSession, event: WaitEvent, noticed_at: datetime | None) -> dict[str, Any]:
        """Return the task's result, or raise its error.

        :param noticed_at: when the end of the work was noticed; ``None`` if it had ended before this task waited.
        """
        hook = session.hook
        self._kill_handler.target = None
        self._update_summary(session, event.id, event.work)
        work = event.work_or_error()

        async def request_result(send: AsyncSend) -> WorkResult:
            fetcher = ResultFetcher(
                send, session.interval, self._log.warning, self._sleeper.async_sleep, policy=self._outages
            )
            return await fetch_result(work, fetcher, job_url=hook.job_url, info=self._log.info)

        result = session.run_async(request_result, RequestPriority.NORMAL)
        self.summary.set_result(result)
        self._count(result, noticed_at, session.clock_skew)
        if self._options.kind == "backfill":
            self._xcoms.set_job_url(result.url)
        if result.error:
            if isinstance(result.error, PlanasonixJobCancelledError):
                # Airflow knows failed tasks only; the charts of the page tell them apart by this.
                self._xcoms.push(f"{self._options.kind}_status", "cancelled")
            try:
                self._raise_if_cancelled_by_person(result.error)
            finally:
                self._release_record()
            raise result.error
        host, connection_id = hook.settings.client_config.host, self.summary.connection_id
        asset_events.emit_table_events(self._options, self._task, self._context, result, host, connection_id)
        self._release_record()
        assert result.report is not None  # noqa: S101 - work without an error has a result
        keys = self._options.partition_keys
        return result.report | ({"partition_keys": list(keys)} if keys else {})

    def _count(self, result: WorkResult, noticed_at: datetime | None, skew: timedelta | None) -> None:
        """Count the end of the work."""
        self._metrics.count_end(result.work)
        if result.rows:
            self._metrics.count_rows(result.work, result.rows)
        if noticed_at:
            self._metrics.record_delay(result.work, noticed_at, skew)
