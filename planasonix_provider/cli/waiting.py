"""Waits for jobs and backfills with a progress bar. Ctrl-C asks whether to cancel."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixError, PlanasonixTimeoutError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.cli.argument_types import UsageError, check_argument
from planasonix_provider.cli.exit_codes import exit_code
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.signals import Interrupted
from planasonix_provider.cli.terminal import ProgressBar
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.cancellation import Cancellation
from planasonix_provider.waiting.formatting import capitalize, format_duration
from planasonix_provider.waiting.report import report
from planasonix_provider.waiting.result import WorkResult, fetch_result
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority, run_requests
from planasonix_provider.waiting.targets import BackfillTarget, Snapshot, Work, WorkTarget, target_of
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState


def wait_for_result(context: CommandContext, work: Work) -> CommandResult:
    """Wait until a job or backfill is over and return its result, or what is known of it and an error."""
    wait = CliWait(context, target_of(work), work)
    return _result_of(wait, lambda: wait.result(wait.until_over(work)))


def cancel_and_wait(
    context: CommandContext, subject: WorkTarget, explaining: AbstractContextManager[None]
) -> CommandResult:
    """Cancel a job or backfill and, with ``--wait``, wait until it is over."""
    wait = CliWait(context, subject)

    def act() -> CommandResult:
        with explaining:
            work = wait.cancel_and_print()
        return wait.report(work if work.is_over or not context.is_waiting else wait.until_over(work))

    return _result_of(wait, act)


class CliWait:
    """One wait. ``work`` is a response that is known already."""

    def __init__(self, context: CommandContext, target: WorkTarget, work: Work | None = None) -> None:
        self.context = context
        self.target = target
        self.work = work
        self.interval, self.timeout = wait_times(context)
        self._cancellation = Cancellation(
            target,
            lambda cancel: run_requests(
                context.hook.config_source(), cancel, context.sleeper.async_sleep, RequestPriority.FIRST
            ),
        )

    def until_over(self, work: Work) -> Work:
        """Wait until the work is over.

        :raises PlanasonixError: if the wait ended before.
        :raises Interrupted: if the user leaves.
        """
        now = utcnow()
        deadline = None if self.timeout is None else now + timedelta(seconds=self.timeout)
        with self.context.terminal.progress_bar(self.target) as bar:
            watch = _ProgressWaitState(self, bar, now, deadline)
            event = self._until_interrupted(lambda: watch.on_snapshot(self.target.seen(work, now), now))
            while event is None:
                event = self._until_interrupted(lambda: self._wait(watch))
        return self._on_timeout() if event.is_out_of_time else event.work_or_error()

    def _until_interrupted(self, act: Callable[[], WaitEvent | None]) -> WaitEvent | None:
        """Run a part of the wait; return ``None`` if a signal came and the user wants to wait on."""
        try:
            self.context.signals.check()
            return act()
        except Interrupted as interrupt:
            # It may have interrupted a request.
            self.context.hook.close()
            self._on_interrupt(interrupt)
            return None

    def _wait(self, watch: WaitState) -> WaitEvent:
        cancellation = self._cancellation
        interval = cancellation.poll_interval(self.interval) if cancellation.is_sent else self.interval
        return blocking_wait.wait(
            watch,
            self._poll,
            interval=interval,
            rate_limit_delay=self.context.hook.delay,
            sleep=self.context.sleeper.sleep,
        )

    def _poll(self, request: Request[Any]) -> Any:
        if not self._cancellation.is_sent:
            return self._send(request)
        response = self._cancellation.poll(request, self._send)
        if isinstance(response, Backfill):
            self.work = response
        return response

    def _send(self, request: Request[Any]) -> Any:
        response = self.context.hook.send(request, NO_RETRY)
        if isinstance(response, (Job, Backfill)):
            self.work = response
        return response

    def _on_interrupt(self, interrupt: Interrupted) -> None:
        """Cancel, wait on, or leave, as the user decides."""
        terminal, name = self.context.terminal, self.target.name
        choice = "leave" if self._cancellation.is_sent else self.context.options.on_interrupt
        is_asked = choice == "ask" and terminal.can_confirm and interrupt.number == signal.SIGINT
        try:
            if is_asked and not terminal.confirm(f"Cancel {name}? [y/N, Ctrl-C leaves it running]"):
                return
            if is_asked or choice == "cancel":
                terminal.print(f"Cancelling {name}.")
                self._cancel()
                return
        except Interrupted as second:
            interrupt = second
        except PlanasonixError as error:
            error.set_message(f"{capitalize(name)} could not be cancelled, and may still run: {error}")
            if not is_asked:
                raise
            terminal.warn(error.message)
            return
        raise Interrupted(interrupt.number)

    @property
    def left_message(self) -> str:
        """The message for a user who leaves."""
        if self.work and self.work.is_over:
            account = self.context.hint(*self._show_command, "--wait")
            return f"{capitalize(self.target.name)} is {self.work.status}. To see its result: {account}"
        return f"No longer waiting for {self.target.name}. {self.leftover_note}"

    @property
    def _show_command(self) -> tuple[str, str]:
        return ("backfill-status" if isinstance(self.target, BackfillTarget) else "job", self.target.id)

    @property
    def leftover_note(self) -> str:
        """The state of the work when the wait ends early, and the commands for it."""
        wait = self.context.hint(*self._show_command, "--wait")
        if self._cancellation.is_sent:
            return f"It was asked to cancel. To wait for its end: {wait}"
        form = ("--backfill",) if isinstance(self.target, BackfillTarget) else ()
        cancel = self.context.hint("cancel", *form, self.target.id)
        state = (
            "It is unknown whether it was asked to cancel."
            if self._cancellation.is_in_doubt
            else "It was not cancelled, and runs on."
        )
        return f"{state} To wait for it again: {wait} To cancel it: {cancel}"

    def _cancel(self) -> Work:
        known = (self.work.job_ids or []) if isinstance(self.work, Backfill) else []
        self.work = work = self._cancellation.cancel(known)
        return work

    def cancel_and_print(self) -> Work:
        """Cancel, print the effect, and return the work."""
        work = self._cancel()
        if not self.context.is_waiting:
            advice = "add --wait: the jobs that it creates are then cancelled, too."
            self._cancellation.raise_if_without_effect(work, advice)
        self.context.terminal.print(self._cancellation.describe_effect(work))
        return work

    def _on_timeout(self) -> Work:
        late = f"{self.target.goal} within {format_duration(self.timeout or 0)}."
        if getattr(self.context.options, "on_timeout", "leave") == "cancel":
            try:
                work = self._cancel()
            except PlanasonixError as error:
                raise PlanasonixTimeoutError(f"{late} It could not be cancelled, and may still run: {error}") from None
            if work.is_over and work.status != "cancelled":
                return work
            if work.is_over:
                raise PlanasonixTimeoutError(f"{late} It was cancelled.")
        raise PlanasonixTimeoutError(f"{late} {self.leftover_note}")

    def result(self, work: Work) -> CommandResult:
        """Return the result of work that is over, or raise its error."""

        async def request_result(send: AsyncSend) -> WorkResult:
            terminal, sleeper = self.context.terminal, self.context.sleeper
            fetcher = ResultFetcher(send, self.interval, terminal.warn, sleeper.async_sleep)
            return await fetch_result(work, fetcher, job_url=self.context.hook.job_url, info=terminal.print)

        result = run_requests(self.context.hook.config_source(), request_result, self.context.sleeper.async_sleep)
        # The response to a repeated start may lack the error of work that is over.
        self.work = result.work
        if result.error:
            raise result.error
        return CommandResult(result.report)

    def report(self, work: Work | None = None) -> CommandResult:
        """Return what is known of the work, without its results."""
        known = work or self.work
        if known is None:
            return CommandResult()
        error = {"error": known.error.known_fields()} if known.error else {}
        return CommandResult(report(known, self.context.hook.job_url) | error)


class _ProgressWaitState(WaitState):
    """A wait state that updates the progress bar."""

    def __init__(self, wait: CliWait, bar: ProgressBar, now: datetime, deadline: datetime | None) -> None:
        terminal = wait.context.terminal
        super().__init__(wait.target, now=now, info=self._inform, warn=terminal.warn, deadline=deadline)
        self._wait, self._bar, self._terminal = wait, bar, terminal
        self._is_reminding = False

    def on_snapshot(self, seen: Snapshot, now: datetime, age: float = 0.0) -> WaitEvent | None:
        self._bar.update(seen)
        return super().on_snapshot(seen, now, age)

    def on_error(self, error: PlanasonixError, now: datetime) -> WaitEvent | None:
        self._bar.show_outage()
        return super().on_error(error, now)

    def on_tick(self, now: datetime) -> WaitEvent | None:
        self._is_reminding = True
        try:
            return super().on_tick(now)
        finally:
            self._is_reminding = False

    def _inform(self, line: str) -> None:
        # The bar shows the periodic lines all the time.
        if not (self._is_reminding and self._bar.is_shown):
            self._terminal.print(line)

    def leftover_note(self, is_for_ever: bool) -> str:
        """Return the commands for the user, since there is no retry."""
        return f" {self._wait.leftover_note}"


def wait_times(context: CommandContext) -> tuple[float, float | None]:
    """Parse ``--poll-interval`` and ``--timeout``; a timeout of ``None`` is no limit."""
    options = context.options
    if options.timeout is not None and not context.is_waiting:
        raise UsageError("--timeout: got a time without --wait, so there is nothing to wait for: add --wait.")
    return (
        check_argument(validators.poll_interval, "--poll-interval", options.poll_interval),
        check_argument(validators.optional(validators.seconds), "--timeout", options.timeout),
    )


def _result_of(wait: CliWait, act: Callable[[], CommandResult]) -> CommandResult:
    """Return what is known of the work, however the wait ends, so that scripts have it."""
    try:
        return act()
    except PlanasonixError as error:
        return CommandResult(wait.report().data, code=exit_code(error), error=error.message)
    except Interrupted as interrupt:
        return CommandResult(wait.report().data, code=interrupt.code, error=wait.left_message)
