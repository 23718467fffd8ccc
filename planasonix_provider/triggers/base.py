"""The trigger that waits: one event, a deadline, and the cancel if its task is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import Backfill
from planasonix_provider.clock import loop_time, monotonic, utcnow
from planasonix_provider.hooks.outage_settings import outage_policy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.triggers import deferral
from planasonix_provider.triggers.task_state import HAS_ON_KILL, is_interrupted, is_shutdown, kill_reason
from planasonix_provider.validators import optional, text, utc
from planasonix_provider.waiting.async_wait import poll_at_the_deadline, until_event
from planasonix_provider.waiting.cancellation import CANCEL_TIMEOUT_SECONDS, cancel
from planasonix_provider.waiting.cli_hints import cancel_command
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.poller import POLLERS, Poller
from planasonix_provider.waiting.shared_client import RequestPriority, SharedClient
from planasonix_provider.waiting.target_registry import deserialize_target
from planasonix_provider.waiting.targets import WaitTarget, Work, WorkTarget
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState
from planasonix_provider.waiting.work_metrics import WorkMetrics

#: For how many seconds the cancel of a killed task may block the triggerer; then it continues in the background.
#: Airflow allows 30 s.
ON_KILL_TIMEOUT_SECONDS = 20.0
#: How many seconds the state of the work may take before a cancel, which is sent without it then.
MAX_LOOK_SECONDS = 2.0
#: For how many seconds a cancel is tried after Ctrl-C, while the shell shows no prompt.
INTERRUPT_SECONDS = 60.0
CTRL_C = "The task was interrupted by Ctrl-C."

# References, because the event loop holds its tasks weakly, and these outlive their triggers.
_CANCEL_TASKS: set[asyncio.Task[None]] = set()


class PlanasonixWaitTrigger(BaseTrigger):
    """Waits for any target, on the poller that all triggers of an Airflow connection share, and sends one event.

    :param target: what to wait for: a target, or the fields of its ``serialize()``.
    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``.
    :param poll_interval: the seconds between two polls, at least 0.5; default 10.
    :param deadline: when to give up, as a time with an offset or as ISO 8601 text; default never.
    :param limit: the task's parameter that has set the deadline, for messages; default unknown.
    :param not_before: until when to hold the event back, as a time with an offset or as ISO 8601 text; default not at
        all. Airflow may notice only seconds after a task has deferred that its process has ended, and fails a task
        whose event comes first. The event is held back for at most 7 s after the trigger started, even if the clock of
        the triggerer is behind that of the worker.
    :param status: the state that is already in the task's log, so that it is not logged twice.
    :param owned: whether the task has started what it waits for; default not.
    :param silent: whether no error that may be transient ends the wait, as with a sensor's ``silent_fail``; default
        not.
    :param cancel_on_kill: whether to cancel the job or backfill at the deadline, and when the task is marked as failed
        or succeeded or is cleared while it is deferred; default not, because a task need not own what it waits for.
    :raises ValueError: if a parameter is invalid.
    """

    def __init__(
        self,
        target: WaitTarget | Mapping[str, Any],
        planasonix_conn_id: str = "planasonix_default",
        poll_interval: float = 10.0,
        deadline: datetime | str | None = None,
        not_before: datetime | str | None = None,
        status: str | None = None,
        owned: bool = False,
        silent: bool = False,
        limit: str | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.target = target if isinstance(target, WaitTarget) else deserialize_target(target)
        if cancel_on_kill and not isinstance(self.target, WorkTarget):
            raise ValueError(f"cancel_on_kill: {self.target.name} cannot be cancelled.")
        self.planasonix_conn_id = text("planasonix_conn_id", planasonix_conn_id)
        self.poll_interval = validators.poll_interval("poll_interval", poll_interval)
        self.deadline = optional(utc)("deadline", deadline)
        self.not_before = optional(utc)("not_before", not_before)
        self.status = status
        self.owned = owned
        self.silent = silent
        self.limit = limit
        self.cancel_on_kill = cancel_on_kill
        # By the monotonic clock.
        self._started_at: float | None = None
        self._is_late = False
        self._state: WaitState | None = None

    def target_arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the target; a subclass with parameters of its own returns those."""
        return {"target": self.target.serialize(), "cancel_on_kill": self.cancel_on_kill}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, in JSON types."""
        shared = ("planasonix_conn_id", "poll_interval", "deadline", "not_before", "status", "owned", "silent", "limit")
        values = self.target_arguments() | {name: getattr(self, name) for name in shared}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event, even after an error: a trigger that raises fails its task without a reason."""
        self._started_at = monotonic()
        self._is_late = self.deadline is not None and utcnow() >= self.deadline
        try:
            event = await self._wait()
        except asyncio.CancelledError:
            await self.on_cancelled()
            raise
        except PlanasonixConfigurationError as invalid:
            event = WaitEvent.failed(self.target, invalid)
        except Exception as bug:
            self.log.exception(f"The wait for {self.target.name} broke.")
            error = PlanasonixLostTrackError(
                f"The wait for {self.target.name} broke ({type(bug).__name__}), and it may still run: look at it in "
                "Planasonix before you clear the task, and please report this."
            )
            event = WaitEvent.failed(self.target, error)
        await asyncio.sleep(self._seconds_to_hold_back())
        is_needed = deferral.HAS_STALE_EVENTS
        try_number = getattr(self.task_instance, "try_number", None) if is_needed else None
        sent = event.model_copy(update={"deadline": self.deadline, "sent_at": utcnow(), "try_number": try_number})
        yield TriggerEvent(sent.to_payload())

    def _seconds_to_hold_back(self) -> float:
        if self.not_before is None or self._started_at is None:
            return 0.0
        # The worker has set not_before by its own clock, which may be ahead.
        limit = self._started_at + deferral.DEFER_SETTLE_TIME.total_seconds() - monotonic()
        return max(0.0, min(float((self.not_before - utcnow()).total_seconds()), limit))

    async def _wait(self) -> WaitEvent:
        hook = PlanasonixHook(self.planasonix_conn_id)
        poller = POLLERS.get(self.planasonix_conn_id, lambda: Poller(hook.async_client, self.planasonix_conn_id))
        state = self._state = WaitState(
            self.target,
            now=utcnow(),
            info=self.log.info,
            warn=self.log.warning,
            deadline=self.deadline,
            limit=self.limit,
            status=self.status,
            is_owned=self.owned,
            policy=outage_policy(),
            is_silent=self.silent,
        )
        # The task has polled just before it deferred, and an earlier event would be held back anyway.
        delay = min(self.poll_interval, self._seconds_to_hold_back())
        async with poller.wait(self.target.request, self.poll_interval, delay) as wait:
            event = await until_event(state, wait, poller.client)
            if not event.is_out_of_time:
                return event
            if self.cancel_on_kill:
                return await self._cancel_at_deadline(event, poller)
            event = await poll_at_the_deadline(state, event, poller.client)
            return event.without_cancel() if event.is_out_of_time and self.owned else event

    async def _cancel_at_deadline(self, event: WaitEvent, poller: Poller) -> WaitEvent:
        """Cancel the work. The task could not: there may be no worker for hours."""
        result: Work | PlanasonixError
        try:
            # A triggerer that has died since may have cancelled it, and has counted that.
            before = await self._cancelled_before(poller.client) if self._is_late else None
            result = before or await self._cancel(poller.client)
        except PlanasonixError as error:
            result = error
        return event.with_cancel_result(result, self._manual_cancel_hint)

    async def _cancel(self, client: SharedClient, max_seconds: float = CANCEL_TIMEOUT_SECONDS) -> Work:
        send = partial(client.send, priority=RequestPriority.URGENT)
        work = await cancel(send, self.target, max_seconds=max_seconds, warn=self._warn_of_retry)
        # The response to a cancel does not name the connection.
        seen = self._state.work if self._state else None
        connection_id = seen.connection_id if seen else None
        WorkMetrics(self.planasonix_conn_id, "operator", connection_id).count_cancel(work)
        return work

    # --- A killed task ---

    async def on_cancelled(self) -> None:
        """Cancel the work if the task was killed; Airflow before 3.3 does not say why it cancels a trigger."""
        if is_interrupted():
            await self._cancel_after_interrupt()
        elif self.cancel_on_kill and not HAS_ON_KILL and not is_shutdown():
            self._start_cancel()

    async def _cancel_after_interrupt(self) -> None:
        """Cancel the work of a task whose trigger runs inside ``airflow dags test``, or log the command for it."""
        if not self.owned:
            return
        name = capitalize(self.target.name)
        if not self.cancel_on_kill:
            self.log.warning(f"{CTRL_C} {name} was not cancelled, and runs on. To end it: {self._manual_cancel_hint}")
            return
        self.log.warning(f"Ctrl-C: cancelling {self.target.name}. To end it: {self._manual_cancel_hint}")
        await self._cancel_and_log(CTRL_C, max_seconds=INTERRUPT_SECONDS)

    async def on_kill(self) -> None:
        """Cancel the work of a task that was killed while it was deferred; Airflow 3.3 and later call this.

        The triggerer cancels this method each second until it returns, so a task of its own does the work.
        """
        if not self.cancel_on_kill:
            return
        cancel_task = self._start_cancel()
        give_up_at = loop_time() + ON_KILL_TIMEOUT_SECONDS
        while not cancel_task.done() and (left := give_up_at - loop_time()) > 0:
            try:
                await asyncio.wait([cancel_task], timeout=left)
            except asyncio.CancelledError:
                continue

    def _start_cancel(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._cancel_if_killed())
        _CANCEL_TASKS.add(task)
        task.add_done_callback(_CANCEL_TASKS.discard)
        return task

    async def _cancel_if_killed(self) -> None:
        name, kind = capitalize(self.target.name), self.target.kind
        try:
            reason = await kill_reason(self.task_instance)
        except Exception as error:
            self.log.warning(
                f"The task was killed, and Airflow cannot be asked why: {error!r}. {name} was not cancelled and may "
                f"still run. To end it: {self._manual_cancel_hint}"
            )
            return
        if reason is None:
            self.log.info(f"The task is still waiting, or waits again. {name} is not cancelled.")
            return
        hint = f" With cancel_on_kill=False, the {kind} would run on."
        await self._cancel_and_log(f"{reason}, so its {kind} is cancelled.", hint=hint)

    async def _cancel_and_log(
        self, reason: str, *, hint: str = "", max_seconds: float = CANCEL_TIMEOUT_SECONDS
    ) -> None:
        name = capitalize(self.target.name)
        self.log.info(f"{reason} {name} is being cancelled.")
        try:
            async with SharedClient(PlanasonixHook(self.planasonix_conn_id).async_client) as client:
                # The listener of Airflow's API server cancels it if no triggerer runs, and a triggerer may start then.
                work = await self._cancelled_before(client) or await self._cancel(client, max_seconds)
        except Exception as error:
            self.log.warning(
                f"{reason} {name} could not be cancelled and may still run: {error} To end it: "
                f"{self._manual_cancel_hint}"
            )
        else:
            is_done = work.is_over or not isinstance(work, Backfill)
            effect = "was asked to cancel" if is_done else f"may go on (to end it: {self._manual_cancel_hint})"
            self.log.warning(f"{reason} {name} {effect}: it is {work.status}.{hint}")

    async def _cancelled_before(self, client: SharedClient) -> Work | None:
        """Return the work if it needs no cancel any more."""
        with suppress(PlanasonixError, TimeoutError):
            async with asyncio.timeout(MAX_LOOK_SECONDS):
                work: Work = await client.send(self.target.request, priority=RequestPriority.URGENT, retry=False)
            if work.is_over or work.status == "cancelling":
                return work
        return None

    @property
    def _manual_cancel_hint(self) -> str:
        return cancel_command(cast(WorkTarget, self.target), self.planasonix_conn_id)

    def _warn_of_retry(self, error: PlanasonixError) -> None:
        name = capitalize(self.target.name)
        self.log.warning(f"{name} cannot be cancelled yet, still trying: {error} To end it: {self._manual_cancel_hint}")
