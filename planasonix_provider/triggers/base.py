"""What the triggers that wait have in common: one event, a deadline, and what happens when their task is killed."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import Backfill
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers.deferral import DEFER_SETTLE_TIME, outage_policy
from planasonix_provider.triggers.task_state import HAS_ON_KILL, is_interrupted, is_shutdown, kill_reason
from planasonix_provider.validators import optional, text, utc
from planasonix_provider.waiting.async_wait import poll_at_the_deadline, until_event
from planasonix_provider.waiting.cancel import CANCEL_TIMEOUT, cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.poller import POLLERS, Poller
from planasonix_provider.waiting.shared_client import Priority, SharedClient
from planasonix_provider.waiting.targets import WaitTarget, Work, WorkTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState

#: For how many seconds a killed trigger's cancel may keep the triggerer waiting; it goes on behind its back then.
#: Airflow gives 30 s.
ON_KILL_TIMEOUT = 20.0
#: For how many seconds a cancel is tried after Ctrl-C, while the shell shows no prompt.
INTERRUPT_SECONDS = 60.0
CTRL_C = "The task was interrupted by Ctrl-C."

# The event loop holds its tasks weakly, and these outlive their triggers.
_CANCEL_TASKS: set[asyncio.Task[None]] = set()


class PlanasonixWaitTrigger(BaseTrigger):
    """Waits on the poller that all triggers of an Airflow connection share, and hands back one event.

    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param poll_interval: the seconds between two polls, at least 0.5; default 10.
    :param deadline: when to give up, as a time with an offset or as ISO 8601 text; default never.
    :param limit: the task's parameter that has set the deadline, as its message names it; default not known.
    :param not_before: until when to keep the event back, as a time with an offset or as ISO 8601 text; default not at
        all. Where the task defers, Airflow may notice only seconds later that its process has ended, and fails a task
        whose event comes first. The event is kept back for at most 7 s after the trigger began, even if the clock of
        the triggerer is behind that of the worker.
    :param status: the state as the task's log shows it already, so that it is not logged twice.
    :param owned: whether the task has started what it waits for; default not.
    :param silent: whether nothing that could pass ends the wait, as a sensor's ``silent_fail`` has it; default not.
    :raises ValueError: if a parameter makes no sense.
    """

    #: The arguments that say what to wait for; a subclass names its own.
    own_arguments: tuple[str, ...] = ()
    #: Whether the work is cancelled at the deadline.
    cancels = False

    def __init__(
        self,
        planasonix_conn_id: str = "planasonix_default",
        poll_interval: float = 10.0,
        deadline: datetime | str | None = None,
        not_before: datetime | str | None = None,
        status: str | None = None,
        owned: bool = False,
        silent: bool = False,
        limit: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = validators.poll_interval("poll_interval", poll_interval)
        self.deadline = optional(utc)("deadline", deadline)
        self.not_before = optional(utc)("not_before", not_before)
        self.status = status
        self.owned = owned
        self.silent = silent
        self.limit = limit
        # When the trigger began, by the monotonic clock.
        self._began: float | None = None

    @property
    @abstractmethod
    def subject(self) -> WaitTarget:
        """What to wait for."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how to make this trigger again, in another process.

        :return: the class's path, and its arguments as JSON types.
        """
        shared = ("planasonix_conn_id", "poll_interval", "deadline", "not_before", "status", "owned", "silent", "limit")
        values = {name: getattr(self, name) for name in (*self.own_arguments, *shared)}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield the one event, whatever happens: a trigger that raises fails its task without a reason."""
        subject = self.subject
        self._began = monotonic()
        try:
            event = await self._wait(subject)
        except asyncio.CancelledError:
            await self.on_cancelled()
            raise
        except PlanasonixConfigurationError as invalid:
            event = WaitEvent.failed(subject, invalid)
        except Exception as bug:
            self.log.exception("The wait for %s broke.", subject.name)
            error = PlanasonixLostTrackError(
                f"The wait for {subject.name} broke ({type(bug).__name__}), and it may still run: look at it in "
                "Planasonix before you clear the task, and please report this."
            )
            event = WaitEvent.failed(subject, error)
        await asyncio.sleep(self._seconds_to_keep_back())
        yield TriggerEvent(event.model_copy(update={"deadline": self.deadline}).to_payload())

    def _seconds_to_keep_back(self) -> float:
        if self.not_before is None or self._began is None:
            return 0.0
        # The worker has set not_before by its own clock, which may be ahead.
        limit = self._began + DEFER_SETTLE_TIME.total_seconds() - monotonic()
        return max(0.0, min(float((self.not_before - utcnow()).total_seconds()), limit))

    async def _wait(self, subject: WaitTarget) -> WaitEvent:
        hook = PlanasonixHook(self.planasonix_conn_id)
        poller = POLLERS.get(self.planasonix_conn_id, lambda: Poller(hook.async_client))
        watch = WaitState(
            subject,
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=self.deadline,
            limit=self.limit,
            status=self.status,
            owned=self.owned,
            policy=outage_policy(),
            silent=self.silent,
        )
        # The task has looked just before it deferred, and what a look brings before the event may go is of no use.
        delay = min(self.poll_interval, self._seconds_to_keep_back())
        async with poller.wait(subject.request, self.poll_interval, delay) as wait:
            event = await until_event(watch, wait, poller.client)
            if event.is_out_of_time and not self.cancels:
                event = await poll_at_the_deadline(watch, event, poller.client)
            return await self.on_finished(event, poller)

    async def on_cancelled(self) -> None:
        """Do what is to be done when Airflow ends the wait; by itself, nothing."""

    async def on_finished(self, event: WaitEvent, poller: Poller) -> WaitEvent:
        """Do what is to be done at the end of the wait; by itself, nothing.

        :param event: how it ended.
        :param poller: asks the API.
        :return: the event to hand back.
        """
        return event


class PlanasonixWorkTrigger(PlanasonixWaitTrigger):
    """Waits until a job or a backfill is over.

    :param states: further states that end the wait, as ``["running"]``; default none.
    :param cancel_on_kill: whether to cancel the work at the deadline, and when the task is marked as failed or
        succeeded or is cleared while it is deferred; default not, for who waits need not own what it waits for.
    :param kwargs: as :class:`PlanasonixWaitTrigger`.
    :raises ValueError: if a parameter makes no sense.
    """

    def __init__(self, *, states: Iterable[str] = (), cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.states = sorted(states)
        self.cancel_on_kill = self.cancels = cancel_on_kill

    @property
    @abstractmethod
    def subject(self) -> WorkTarget:
        """The job or the backfill."""

    async def on_finished(self, event: WaitEvent, poller: Poller) -> WaitEvent:
        """Cancel the work where the wait is out of time. Here and not in the task: for hours there may be no worker.

        :param event: how the wait ended.
        :param poller: asks the API.
        :return: the event to hand back.
        """
        if not event.is_out_of_time:
            return event
        if not self.cancels:
            return event.without_cancel() if self.owned else event
        answer: Work | PlanasonixError
        try:
            answer = await cancel(
                partial(poller.client.send, priority=Priority.URGENT), self.subject, warn=self._cannot_cancel_yet
            )
        except PlanasonixError as error:
            answer = error
        return event.with_cancel_result(answer, self._manual_cancel_hint)

    async def on_cancelled(self) -> None:
        """Cancel the work if the task was killed; Airflow before 3.3 does not say why it ends the wait."""
        if is_interrupted():
            await self._cancel_at_ctrl_c()
        elif self.cancel_on_kill and not HAS_ON_KILL and not is_shutdown():
            self._start_cancel()

    async def _cancel_at_ctrl_c(self) -> None:
        """Cancel the work of a task whose trigger runs inside ``airflow dags test``, or name the command for it."""
        if not self.owned:
            return
        name = capitalize(self.subject.name)
        if not self.cancel_on_kill:
            self.log.warning(
                "%s %s was not cancelled, and runs on. To end it: %s", CTRL_C, name, self._manual_cancel_hint
            )
            return
        self.log.warning("Ctrl-C: cancelling %s. To end it: %s", self.subject.name, self._manual_cancel_hint)
        await self._cancel_and_log(CTRL_C, patience=INTERRUPT_SECONDS)

    async def on_kill(self) -> None:
        """Cancel the work of a task that was killed while it was deferred; Airflow 3.3 and later call this.

        A triggerer cancels this very method again each second until it has ended, so the work is done by a task of its
        own.
        """
        if not self.cancel_on_kill:
            return
        goodbye = self._start_cancel()
        give_up = asyncio.get_running_loop().time() + ON_KILL_TIMEOUT
        while not goodbye.done() and (left := give_up - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.wait([goodbye], timeout=left)
            except asyncio.CancelledError:
                continue

    def _start_cancel(self) -> asyncio.Task[None]:
        goodbye = asyncio.get_running_loop().create_task(self._cancel_if_killed())
        _CANCEL_TASKS.add(goodbye)
        goodbye.add_done_callback(_CANCEL_TASKS.discard)
        return goodbye

    async def _cancel_if_killed(self) -> None:
        name = capitalize(self.subject.name)
        try:
            reason = await kill_reason(self.task_instance)
        except Exception as error:
            self.log.warning(
                "The task was killed, and Airflow cannot be asked why: %r. %s was not cancelled and may still run. To "
                "end it: %s",
                error,
                name,
                self._manual_cancel_hint,
            )
            return
        if reason is None:
            self.log.info("The task is still waiting, or waits again. %s is not cancelled.", name)
            return
        kind = self.subject.kind
        await self._cancel_and_log(
            f"{reason}, so its {kind} is cancelled.", hint=f" With cancel_on_kill=False, the {kind} would run on."
        )

    async def _cancel_and_log(self, why: str, *, hint: str = "", patience: float = CANCEL_TIMEOUT) -> None:
        name = capitalize(self.subject.name)
        self.log.info("%s %s is being cancelled.", why, name)
        try:
            async with SharedClient(PlanasonixHook(self.planasonix_conn_id).async_client) as channel:
                work = await cancel(
                    partial(channel.send, priority=Priority.URGENT),
                    self.subject,
                    patience=patience,
                    warn=self._cannot_cancel_yet,
                )
        except Exception as error:
            self.log.warning(
                "%s %s could not be cancelled and may still run: %s To end it: %s",
                why,
                name,
                error,
                self._manual_cancel_hint,
            )
        else:
            is_done = work.is_over or not isinstance(work, Backfill)
            words = "was asked to cancel" if is_done else f"may go on (to end it: {self._manual_cancel_hint})"
            self.log.warning("%s %s %s: it is %s.%s", why, name, words, work.status, hint)

    @property
    def _manual_cancel_hint(self) -> str:
        return cancel_command(self.subject, self.planasonix_conn_id)

    def _cannot_cancel_yet(self, error: PlanasonixError) -> None:
        self.log.warning(
            "%s cannot be cancelled yet, still trying: %s To end it: %s",
            capitalize(self.subject.name),
            error,
            self._manual_cancel_hint,
        )
