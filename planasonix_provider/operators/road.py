"""The road of a task that starts Planasonix work: start, tell, wait, account."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from planasonix_provider import parameters
from planasonix_provider.api import client
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixNotFoundError,
)
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import LAST_WORDS, ONCE, is_passing
from planasonix_provider.clock import utcnow
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.links.planasonix import Signpost
from planasonix_provider.operators import outlets
from planasonix_provider.operators.accounted import Accounted
from planasonix_provider.operators.outcome import retries_where_they_help
from planasonix_provider.operators.records import Records
from planasonix_provider.operators.start import Start
from planasonix_provider.triggers.deferral import deadline_of, defer
from planasonix_provider.triggers.killed import goes_on_elsewhere
from planasonix_provider.triggers.planasonix import PlanasonixBackfillTrigger, PlanasonixJobTrigger
from planasonix_provider.waiting import worker
from planasonix_provider.waiting.account import WorkAccount, account_for
from planasonix_provider.waiting.aside import aside
from planasonix_provider.waiting.cancel import cancel
from planasonix_provider.waiting.channel import Channel, run_aside
from planasonix_provider.waiting.commands import to_end, to_list
from planasonix_provider.waiting.event import WaitEvent
from planasonix_provider.waiting.patience import Patience
from planasonix_provider.waiting.pulse import Pulse
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.rest import Rest, TaskKilledError
from planasonix_provider.waiting.search import Traces, search
from planasonix_provider.waiting.subjects import BackfillSubject, Seen, Work, WorkSubject, subject_of
from planasonix_provider.waiting.watch import Watch
from planasonix_provider.waiting.words import sentence

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from planasonix_provider.operators.base import PlanasonixStartOperator
    from planasonix_provider.triggers.base import PlanasonixWorkTrigger

#: For how many seconds a task that is being killed pursues the jobs of its backfill; Airflow gives it five.
LAST_PURSUIT = 4.0
#: The same once its signal's handler has returned; a plain SIGTERM leaves it time.
LATER_PURSUIT = 60.0
#: How often, and after how many seconds, it looks once more for what a start has made that had no answer yet.
LAST_LOOKS = 4
LOOK_ONCE_MORE_AFTER = 0.4
#: After how many seconds it looks no more, so that there is time left to cancel, or to say that nothing was seen.
LAST_LOOK_WITHIN = 2.5


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
        self.accounted = operator._accounted = Accounted(operator.starts)
        self._records = Records(context)
        self.interval = parameters.seconds("poll_interval", operator.poll_interval)
        # What a kill needs to have at hand, for nothing may be asked of Airflow then.
        self.account: client.Account | None = None
        self._subject: WorkSubject | None = None
        # What a start is found by whose answer is still to come.
        self._traces: Traces | None = None
        self._is_own = True
        self._job_ids: list[str] = []
        self._is_left = False
        self._killed = False
        # Whether a kill came that is to be dealt with where Airflow may be asked.
        self._is_undecided = False
        self._pulse = Pulse(conf.getfloat("scheduler", "task_instance_heartbeat_timeout", fallback=300.0))
        self.rest = Rest(self.stop_if_killed, self._pulse.beat)
        self._last_words: list[str] = []

    def travel(self) -> dict[str, Any]:
        """Go the whole road; a deferrable task leaves it in the middle, and another process resumes it.

        :return: an account of the work.
        :raises TaskDeferred: to wait in the triggerer.
        """
        timeout = self.operator.timeout
        return self._travel(
            deadline_of(
                getattr(self.context["ti"], "start_date", None),
                timeout=None if timeout is None else timedelta(seconds=parameters.seconds("timeout", timeout)),
                execution_timeout=self.operator.execution_timeout,
            )
        )

    def travel_on(self, payload: Any) -> dict[str, Any]:
        """Go the road when others are out of the way, with what is left of the time.

        :param payload: the event of the trigger that waited for others.
        :return: as :meth:`travel`.
        """
        with retries_where_they_help():
            event = WaitEvent.from_payload(payload, "job", "backfill")
            # What is not there any more is in nobody's way.
            with suppress(PlanasonixNotFoundError):
                event.work_or_error()
        return self._travel(event.deadline)

    def _travel(self, deadline: datetime | None) -> dict[str, Any]:
        with self._for_airflow() as hook:
            self.account = hook.settings.account
            start = Start(self, hook, self._records, deadline)
            work = start.work()
            self._is_own = start.is_own
            self.has(work)
            self._note(hook, work.id, work)
            self._tell(hook, work, "Started" if start.is_new else "Going on with")
            subject = subject_of(work)
            if not self.operator.wait_for_completion:
                self._forget()
                outlets.tell_of_nothing(self.operator, self.context)
                return report(work, hook.job_url)
            watch = Watch(
                subject,
                now=utcnow(),
                info=self.log.info,
                warn=self.log.warning,
                deadline=deadline,
                owned=self._is_own,
            )
            event = watch.see(subject.seen(work, utcnow()), utcnow())
            if start.is_new or not work.is_over:
                wait = self._look_once if self.operator.deferrable else self._wait
                event = wait(hook, watch)
            self.stop_if_killed()
            if event is None:
                trigger = self._trigger(
                    subject,
                    deadline=deadline,
                    status=watch.status,
                    owned=self._is_own,
                    cancel_on_kill=self._cancels,
                )
                defer(self.operator, trigger)
            return self._conclude(hook, event)

    def resume(self, payload: Any) -> dict[str, Any]:
        """Go on from what the trigger handed back.

        :param payload: the trigger's event.
        :return: an account of the work.
        """
        with self._for_airflow() as hook:
            event = WaitEvent.from_payload(payload, self.operator.starts)
            if event.is_out_of_time:
                self._write_off()
            return self._conclude(hook, event)

    def kill(self) -> None:
        """Let the road end here, and cancel the work unless it is to be left alone; mostly in a signal's handler."""
        self._killed = True
        if self._may_go_on_elsewhere() and not self._is_left:
            self._is_undecided = True
            return
        self._give_up(LAST_PURSUIT)

    def _may_go_on_elsewhere(self) -> bool:
        """Whether this process has stood still for so long that the next try may have taken its work over."""
        ti = self.context["ti"]
        return ti.try_number <= ti.max_tries and self._pulse.seconds_in_doubt() > 0

    def _is_ended_by_airflow(self) -> bool:
        """Whether a signal's handler ends the road: by a call of ``on_kill``, or by what it raises out of nowhere."""
        end = sys.exception()
        return self._is_undecided or not (end is None or isinstance(end, (Exception, TaskDeferred)))

    def _leave_to_the_next_try(self) -> None:
        """Let go of the work if another process goes on with it."""
        if (self._subject or self._traces) and goes_on_elsewhere(self.context["ti"]):
            name = sentence(self._subject.name) if self._subject else "What was started"
            self._subject = self._traces = None
            self._say_last(f"Its process had stood still. {name} was not cancelled: the next try goes on with it.")

    def _give_up(self, patience: float) -> None:
        subject, traces = self._subject, self._traces
        if self.account is None or not (subject or traces):
            return
        name = sentence(subject.name) if subject else f"What was started on connection {self.operator.connection_id}"
        by_hand = self._by_hand(subject)
        if not self._cancels:
            self._say_last(f"{name} was not cancelled, and runs on.")
            return
        try:
            work = self._cancel_in_a_hurry(self.account, patience)
        except Exception as error:
            if not self._is_left and (is_passing(error) or isinstance(error, PlanasonixAuthenticationError)):
                # Where the signal's handler has returned, there may be more time, and Airflow be asked for another key.
                self._is_undecided = True
                self._say_last(f"{name} cannot be cancelled yet, trying on: {error} {by_hand}")
                return
            self._say_last(f"{name} could not be cancelled and may still run: {error} {by_hand}")
            return
        if work is None:
            # If this process lives long enough for the answer, it cancels then.
            self._say_last(f"{name} is not to be seen yet. {by_hand}")
            return
        name = sentence(subject_of(work).name)
        self._subject = self._traces = None
        if isinstance(work, Backfill) and not work.is_over:
            self._say_last(f"{name} may go on: what it has made was asked to cancel. {self._by_hand(subject_of(work))}")
        else:
            self._say_last(f"{name} was asked to cancel.")

    def _by_hand(self, subject: WorkSubject | None) -> str:
        """Say how a person ends what this task has left."""
        conn_id = self.operator.planasonix_conn_id
        if subject:
            return f"To end it: {to_end(subject, conn_id)}"
        look = to_list(self.operator.starts, self.operator.connection_id, conn_id)
        return f"Look whether something runs there, and end it: {look}"

    def cannot_cancel_yet(self, error: PlanasonixError) -> None:
        """Say in the log what is in the way of a cancel, and how a person ends the work.

        :param error: what is in the way.
        """
        assert self._subject is not None  # noqa: S101 - it is what cannot be cancelled
        self.log.warning(
            "%s cannot be cancelled yet, trying on: %s %s",
            sentence(self._subject.name),
            error,
            self._by_hand(self._subject),
        )

    @property
    def _cancels(self) -> bool:
        """Whether the work is cancelled when the task gives up: what others have started never is."""
        return self.operator.cancel_on_kill and self._is_own

    def _read_key_again(self) -> None:
        """Take the key that Airflow has now: the one at hand may have been rotated since the last look."""
        with suppress(Exception), PlanasonixHook(self.operator.planasonix_conn_id) as hook:
            self.account = hook.settings.account

    def _cancel_in_a_hurry(self, account: client.Account, patience: float) -> Work | None:
        async def say_goodbye() -> Work | None:
            # A client of its own, for the signal may have come amid a request of the other.
            async with client.AsyncClient(account.in_a_hurry(), LAST_WORDS) as own:
                subject, job_ids = self._subject, self._job_ids
                if subject is None and self._traces:
                    # The answer to the start is still to come, if it ever does.
                    give_up = asyncio.get_running_loop().time() + LAST_LOOK_WITHIN
                    found = await search(own.send, self._traces)
                    for _ in range(LAST_LOOKS):
                        if found or asyncio.get_running_loop().time() >= give_up:
                            break
                        await asyncio.sleep(LOOK_ONCE_MORE_AFTER)
                        found = await search(own.send, self._traces)
                    if len(found) != 1:
                        return None
                    subject, job_ids = subject_of(found[0]), getattr(found[0], "job_ids", None) or []
                assert subject is not None  # noqa: S101 - one of the two is there
                return await cancel(own.send, subject, job_ids, patience=patience)

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
                PlanasonixHook(self.operator.planasonix_conn_id, sleep=self.rest.sleep) as hook,
                self.accounted.for_errors(),
            ):
                yield hook
        finally:
            if self._is_ended_by_airflow() and self._may_go_on_elsewhere():
                self._leave_to_the_next_try()
            self._is_left = True
            for line in self._last_words:
                self.log.warning("The task was killed. %s", line)
            if self._is_undecided:
                self._read_key_again()
                self._give_up(LATER_PURSUIT)

    def stop_if_killed(self) -> None:
        """End the task: Airflow's signal handler returns, and leaves it to the task to stop."""
        if self._killed:
            raise TaskKilledError(" ".join(["The task was killed.", *self._last_words]))

    def owes(self, is_own: bool, subject: WorkSubject | None, traces: Traces | None) -> None:
        """Let a kill know what there may be to cancel.

        :param is_own: whether this task has started it.
        :param subject: the work, where it is known.
        :param traces: what it is found by, where it is not.
        """
        self._is_own, self._subject, self._traces, self._job_ids = is_own, subject, traces, []
        if self._killed and (subject or traces):
            self.kill()
        self.stop_if_killed()

    def has(self, work: Work) -> None:
        """Let a kill know of work from the moment that it exists.

        :param work: the job or backfill.
        """
        self._subject, self._traces = subject_of(work), None
        if isinstance(work, Backfill):
            self._job_ids = work.job_ids or []
        if self._killed:
            self.kill()
        self.stop_if_killed()

    def _tell(self, hook: PlanasonixHook, work: Work, how: str) -> None:
        """Let everybody know of the work the moment that it exists: a kill, the log, other tasks, the task's button."""
        kind, page = self.operator.starts, self._page_of(hook, work)
        self.log.info(
            "%s %s %s on connection %s%s", how, kind, work.id, self.operator.connection_id, f": {page}" if page else ""
        )
        self.signpost.push(f"{kind}_id", work.id)
        self.signpost.show(page)
        self.stop_if_killed()

    def _note(self, hook: PlanasonixHook, work_id: str, work: Work | None) -> None:
        """Keep at hand what is told of the work besides the task's result."""
        self.accounted.id, self.accounted.work = work_id, work or self.accounted.work
        # Without the Airflow connection there is less to tell, and the task has its own error.
        with suppress(PlanasonixError):
            self.accounted.host = hook.settings.account.host
            self.accounted.url = self._page_of(hook, work) if work else self.accounted.url

    def _page_of(self, hook: PlanasonixHook, work: Work) -> str | None:
        job_id = first_job_of(work)
        return hook.job_url(job_id) if job_id else None

    def _send(self, hook: PlanasonixHook, request: Request[Any]) -> Any:
        """Ask once for what a look needs, and learn from the answer what a kill, and the button, would want to know."""
        answer = hook.send(request, ONCE)
        # With a key that was rotated meanwhile, a kill has to use the new one.
        self.account = hook.settings.account
        if isinstance(answer, (Job, Backfill)):
            self.accounted.work = answer
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

    def wait_for_others(self, work: Work, deadline: datetime | None) -> NoReturn:
        """Leave the worker to others until what is in the way is over.

        :param work: what is in the way.
        :param deadline: when to give up, or ``None`` for never.
        :raises TaskDeferred: always.
        """
        trigger = self._trigger(subject_of(work), deadline=deadline, status=work.status)
        defer(self.operator, trigger, "execute_when_free")

    def _trigger(self, subject: WorkSubject, **how: Any) -> PlanasonixWorkTrigger:
        how |= {"planasonix_conn_id": self.operator.planasonix_conn_id, "poll_interval": self.interval}
        if isinstance(subject, BackfillSubject):
            return PlanasonixBackfillTrigger(subject.id, **how)
        return PlanasonixJobTrigger(subject.id, **how)

    def _wait(self, hook: PlanasonixHook, watch: Watch) -> WaitEvent:
        send = partial(self._send, hook)
        event = worker.wait(watch, send, interval=self.interval, rest=hook.rest, nap=self.rest.sleep)
        return self._leave(hook, watch, event) if event.is_out_of_time else event

    def _leave(self, hook: PlanasonixHook, watch: Watch, event: WaitEvent) -> WaitEvent:
        """Cancel the work whose time is up, or look at it for a last time."""
        if self._may_go_on_elsewhere():
            self.rest.sleep(self._pulse.seconds_in_doubt())
        subject = self._subject
        assert subject is not None  # noqa: S101 - it was started

        async def say_goodbye(channel: Channel) -> Work:
            return await cancel(
                channel.send_now,
                subject,
                self._job_ids,
                sleep=self.rest.sleep_aside,
                warn=self.cannot_cancel_yet,
            )

        if not self._cancels:
            seen = worker.look(watch, hook.send)
            ended = isinstance(seen, Seen) and seen.is_over and seen.work
            return WaitEvent.over(subject, ended) if ended else event.after_no_cancel()
        self._write_off()
        answer: Work | PlanasonixError
        try:
            answer = run_aside(hook.accounts(), say_goodbye, self.rest.sleep_aside)
        except PlanasonixError as error:
            self.stop_if_killed()
            answer = error
        return event.after_cancel(answer, to_end(subject, self.operator.planasonix_conn_id))

    def _write_off(self) -> None:
        """Let the next try end what may be left of this one's work, whose time is up."""
        if not self.operator.cancel_on_kill:
            return
        try:
            self._records.give_up()
        except Exception as fault:
            self.log.warning("That the time is up could not be written down: %r", fault)

    def _forget(self) -> None:
        """Leave no record behind of what is done, where Airflow would keep it for ever."""
        try:
            self._records.forget()
        except Exception as fault:
            self.log.warning("What was written down of the start could not be deleted: %r", fault)

    def _conclude(self, hook: PlanasonixHook, event: WaitEvent) -> dict[str, Any]:
        """Make of the wait's end what the task returns or raises."""
        self._subject = None
        self._note(hook, event.id, event.work)
        work = event.work_or_error()

        async def ask(channel: Channel) -> WorkAccount:
            patience = Patience(channel.send, self.interval, self.log.warning, self.rest.sleep_aside)
            return await account_for(work, patience, job_url=hook.job_url, info=self.log.info)

        account = run_aside(hook.accounts(), ask, self.rest.sleep_aside)
        self.accounted.take(account)
        if self.operator.starts == "backfill":
            self.signpost.show(account.url)
        if not account.error:
            outlets.tell_of_loaded(self.operator, self.context, account, hook.settings.account.host)
        self._forget()
        if account.error:
            raise account.error
        assert account.result is not None  # noqa: S101 - what did not fail has been done
        return account.result
