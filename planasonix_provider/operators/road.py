"""The road of a task that starts Planasonix work: start, tell, wait, account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from planasonix_provider import parameters
from planasonix_provider.api import client
from planasonix_provider.api.errors import PlanasonixError, PlanasonixJobCancelledError, PlanasonixLostTrackError
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.retry import LAST_WORDS, ONCE, is_ambiguous
from planasonix_provider.api.routes import Request
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.links.planasonix import Signpost
from planasonix_provider.operators.outcome import retries_where_they_help
from planasonix_provider.triggers.deferral import deadline_of, defer
from planasonix_provider.triggers.planasonix import PlanasonixBackfillTrigger, PlanasonixJobTrigger
from planasonix_provider.waiting import worker
from planasonix_provider.waiting.account import Account, account_for
from planasonix_provider.waiting.aside import aside
from planasonix_provider.waiting.attempt import Attempt
from planasonix_provider.waiting.cancel import cancel
from planasonix_provider.waiting.channel import Channel, run_aside
from planasonix_provider.waiting.clock import utcnow
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.patience import Patience
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.rest import Rest
from planasonix_provider.waiting.subjects import BackfillSubject, JobSubject, Seen, Work, WorkSubject
from planasonix_provider.waiting.watch import Watch
from planasonix_provider.waiting.words import sentence

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator
    from planasonix_provider.triggers.base import PlanasonixWorkTrigger

#: For how many seconds a task that is being killed pursues the jobs of its backfill; Airflow gives it five.
LAST_PURSUIT = 4.0


class Road:
    """One process of one try of a task, on its way from the start of the work to the account of it.

    :param operator: says what to start and how to wait; its parameters are in their final form.
    :param context: the task's context, from Airflow.
    """

    def __init__(self, operator: PlanasonixStartOperator, context: Context) -> None:
        self.operator = operator
        self.context = context
        self.log = operator.log
        self.signpost = Signpost(context, self.log)
        self.interval = parameters.seconds("poll_interval", operator.poll_interval)
        # What a kill needs to have at hand, for nothing may be asked of Airflow then.
        self._account: client.Account | None = None
        self._subject: WorkSubject | None = None
        self._job_ids: list[str] = []
        self._is_left = False
        self._killed = False
        self._rest = Rest(self._stop_if_killed)
        self._last_words: list[str] = []

    def travel(self) -> dict[str, Any]:
        """Go the whole road; a deferrable task leaves it in the middle, and another process resumes it.

        :return: an account of the work.
        :raises TaskDeferred: to wait in the triggerer.
        """
        timeout = self.operator.timeout
        deadline = deadline_of(
            getattr(self.context["ti"], "start_date", None),
            timeout=None if timeout is None else timedelta(seconds=parameters.seconds("timeout", timeout)),
            execution_timeout=self.operator.execution_timeout,
        )
        with self._for_airflow() as hook:
            self._account = hook.settings.account
            self._stop_if_killed()
            work = self._start(hook, Attempt.of(self.context))
            subject = self._subject = subject_of(work)
            self._tell(hook, work)
            if not self.operator.wait_for_completion:
                return report(work, hook.job_url)
            watch = Watch(subject, now=utcnow(), info=self.log.info, warn=self.log.warning, deadline=deadline)
            watch.see(subject.seen(work, utcnow()), utcnow())
            wait = self._look_once if self.operator.deferrable else self._wait
            event = wait(hook, watch)
            self._stop_if_killed()
            if event is None:
                defer(self.operator, self._trigger(subject, watch))
            return self._conclude(hook, event)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of the work.
        """
        with self._for_airflow() as hook:
            return self._conclude(hook, WaitEvent.from_payload(payload, self.operator.starts))

    def kill(self) -> None:
        """Let the road end here, and cancel the work unless it is to be left alone; mostly in a signal's handler."""
        self._killed = True
        subject = self._subject
        if subject is None or self._account is None:
            return
        name = sentence(subject.name)
        if not self.operator.cancel_on_kill:
            self._say_last(f"{name} was not cancelled, and runs on.")
            return
        try:
            work = self._cancel_in_a_hurry(subject, self._account)
        except Exception as error:
            self._say_last(f"{name} could not be cancelled and may still run: end it in Planasonix. {error}")
            return
        self._subject = None
        if isinstance(work, Backfill) and not work.is_over:
            self._say_last(f"{name} may go on, look at it in Planasonix: what it has made was asked to cancel.")
        else:
            self._say_last(f"{name} was asked to cancel.")

    def _cancel_in_a_hurry(self, subject: WorkSubject, account: client.Account) -> Work:
        async def say_goodbye() -> Work:
            # A client of its own, for the signal may have come amid a request of the other.
            async with client.AsyncClient(account.in_a_hurry(), LAST_WORDS) as own:
                return await cancel(own.send, subject, self._job_ids, patience=LAST_PURSUIT)

        return aside(say_goodbye)

    def _say_last(self, words: str) -> None:
        """Say in the log what was done; not in a signal's handler, which may have come amid a write to it."""
        self._last_words.append(words)
        if self._is_left:
            self.log.warning("The task was killed. %s", words)

    @contextmanager
    def _for_airflow(self) -> Iterator[PlanasonixHook]:
        """Give the hook; say in the log what was done when the task was killed."""
        try:
            with (
                retries_where_they_help(),
                PlanasonixHook(self.operator.planasonix_conn_id, sleep=self._rest.sleep) as hook,
            ):
                yield hook
        finally:
            self._is_left = True
            for line in self._last_words:
                self.log.warning("The task was killed. %s", line)

    def _stop_if_killed(self) -> None:
        """End the task: Airflow's signal handler returns, and leaves it to the task to stop."""
        if self._killed:
            raise PlanasonixJobCancelledError(" ".join(["The task was killed.", *self._last_words]))

    def _start(self, hook: PlanasonixHook, attempt: Attempt) -> Work:
        try:
            return self.operator.start(hook, attempt)
        except PlanasonixError as error:
            if not is_ambiguous(error):
                raise
            raise PlanasonixLostTrackError(
                f"{error} Nobody knows whether the work was started: look at connection {self.operator.connection_id} "
                "in Planasonix, and clear this task once nothing of it runs there."
            ) from None

    def _tell(self, hook: PlanasonixHook, work: Work) -> None:
        """Let everybody know of the work the moment that it exists: a kill, the log, other tasks, the task's button."""
        if isinstance(work, Backfill):
            self._job_ids = work.job_ids or []
        if self._killed:
            self.kill()
        self._stop_if_killed()
        kind, page = self.operator.starts, self._page_of(hook, work)
        self.log.info(
            "Started %s %s on connection %s%s", kind, work.id, self.operator.connection_id, f": {page}" if page else ""
        )
        self.signpost.push(f"{kind}_id", work.id)
        self.signpost.show(page)
        self._stop_if_killed()

    def _page_of(self, hook: PlanasonixHook, work: Work) -> str | None:
        job_id = first_job_of(work)
        return hook.job_url(job_id) if job_id else None

    def _send(self, hook: PlanasonixHook, request: Request[Any]) -> Any:
        """Ask once for what a look needs, and learn from the answer what a kill, and the button, would want to know."""
        answer = hook.send(request, ONCE)
        # With a key that was rotated meanwhile, a kill has to use the new one.
        self._account = hook.settings.account
        if isinstance(answer, Backfill):
            self._job_ids = answer.job_ids or []
            if not self.signpost.url:
                self.signpost.show(self._page_of(hook, answer))
        return answer

    def _look_once(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent | None:
        """Look before the task defers: much is over by then. The trigger deals with whatever goes wrong here."""
        seen = worker.look(watch, partial(self._send, hook))
        if isinstance(seen, Seen):
            event = watch.see(seen, utcnow())
            return event if event and event.outcome == "over" else None
        self.log.info("The look before deferring failed, the trigger will look again: %s", seen)
        return None

    def _trigger(self, subject: WorkSubject, watch: Watch) -> PlanasonixWorkTrigger:
        how: dict[str, Any] = {
            "planasonix_conn_id": self.operator.planasonix_conn_id,
            "poll_interval": self.interval,
            "deadline": watch.deadline,
            "status": watch.status,
            "owned": True,
            "cancel_on_kill": self.operator.cancel_on_kill,
        }
        if isinstance(subject, BackfillSubject):
            return PlanasonixBackfillTrigger(subject.id, **how)
        return PlanasonixJobTrigger(subject.id, **how)

    def _wait(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent:
        send = partial(self._send, hook)
        event = worker.wait(watch, send, interval=self.interval, rest=hook.rest, nap=self._rest.sleep)
        return self._leave(hook, watch, event) if event.is_out_of_time else event

    def _leave(self, hook: PlanasonixHook, watch: Watch, event: WaitEvent) -> WaitEvent:
        """Cancel the work whose time is up, or look at it for a last time."""
        subject = self._subject
        assert subject is not None  # noqa: S101 - it was started

        async def say_goodbye(channel: Channel) -> Work:
            return await cancel(channel.send_now, subject, self._job_ids, sleep=self._rest.sleep_aside)

        if not self.operator.cancel_on_kill:
            seen = worker.look(watch, hook.send)
            ended = isinstance(seen, Seen) and seen.is_over and seen.work
            return WaitEvent.over(subject, ended) if ended else event.after_no_cancel()
        try:
            return event.after_cancel(run_aside(hook.accounts(), say_goodbye, self._rest.sleep_aside))
        except PlanasonixError as error:
            self._stop_if_killed()
            return event.after_cancel(error)

    def _conclude(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        self._subject = None
        work = event.work_or_error()

        async def ask(channel: Channel) -> Account:
            patience = Patience(channel.send, self.interval, self.log.warning, self._rest.sleep_aside)
            return await account_for(work, patience, job_url=hook.job_url, info=self.log.info)

        account = run_aside(hook.accounts(), ask, self._rest.sleep_aside)
        if self.operator.starts == "backfill":
            self.signpost.show(account.url)
        if account.error:
            raise account.error
        assert account.result is not None  # noqa: S101 - what did not fail has been done
        return account.result


def subject_of(work: Work) -> WorkSubject:
    """Say what to wait for.

    :param work: what was started.
    :return: the same as the subject of a wait.
    """
    return BackfillSubject(work.id) if isinstance(work, Backfill) else JobSubject(work.id)
