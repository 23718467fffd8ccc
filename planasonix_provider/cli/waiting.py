"""Waits for work as a worker does, shows how far it has come, and lets a person end it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixTimeoutError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY, has_unknown_effect
from planasonix_provider.cli.exit_codes import code_of
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.signals import Interrupted
from planasonix_provider.cli.terminal import ProgressBar
from planasonix_provider.cli.usage import UsageError, reading
from planasonix_provider.clock import utcnow
from planasonix_provider.waiting import blocking_wait
from planasonix_provider.waiting.cancel import CANCEL_POLL_INTERVAL, cancel
from planasonix_provider.waiting.formatting import capitalize, format_duration
from planasonix_provider.waiting.report import report
from planasonix_provider.waiting.result import WorkResult, account_for
from planasonix_provider.waiting.result_fetcher import ResultFetcher
from planasonix_provider.waiting.shared_client import Priority, SharedClient, run_aside
from planasonix_provider.waiting.targets import BackfillTarget, Snapshot, Work, WorkTarget, subject_of
from planasonix_provider.waiting.wait_event import WaitEvent
from planasonix_provider.waiting.wait_state import WaitState


def wait_and_account(stage: CommandContext, work: Work) -> CommandResult:
    """Wait until work is over, and say what came of it.

    :param stage: what the command acts with.
    :param work: the job or backfill, as it was just seen.
    :return: its account; where it was not done, what is known of it and why.
    """
    wait = CliWait(stage, subject_of(work), work)
    return _answer(wait, lambda: wait.account(wait.until_over(work)))


def cancel_and_wait(
    stage: CommandContext, subject: WorkTarget, explaining: AbstractContextManager[None]
) -> CommandResult:
    """Cancel work and, if told so, wait until it is over.

    :param stage: what the command acts with.
    :param subject: the job or backfill.
    :param explaining: adds to an error of the cancel what the person may have meant.
    :return: what is known of it then; where it could not be cancelled, or was not over in time, also why.
    """
    wait = CliWait(stage, subject)

    def act() -> CommandResult:
        with explaining:
            work = wait.cancel_and_tell()
        return wait.report(work if work.is_over or not stage.options.wait else wait.until_over(work))

    return _answer(wait, act)


class CliWait:
    """One wait.

    :param stage: what the command acts with.
    :param subject: what is waited for.
    :param work: the same, if it was seen already.
    :raises UsageError: if one of the options makes no sense.
    """

    def __init__(self, stage: CommandContext, subject: WorkTarget, work: Work | None = None) -> None:
        self.stage = stage
        self.subject = subject
        self.work = work
        self.interval, self.timeout = times(stage)
        # The jobs of a backfill that were cancelled; None where nothing is to be.
        self._asked: set[str] | None = None
        # Whether a cancel was sent of which nobody knows whether it arrived.
        self._is_in_doubt = False

    def until_over(self, work: Work) -> Work:
        """Wait.

        :param work: what is waited for, as it was just seen.
        :return: the work, which is over.
        :raises PlanasonixError: if the wait ended before.
        :raises Interrupted: if the person at the keyboard leaves.
        """
        now = utcnow()
        deadline = None if self.timeout is None else now + timedelta(seconds=self.timeout)
        with self.stage.screen.bar(self.subject) as bar:
            watch = _ProgressWaitState(self, bar, now, deadline)
            event = self._heeding(lambda: watch.on_snapshot(self.subject.seen(work, now), now))
            while event is None:
                event = self._heeding(lambda: self._wait(watch))
        return self._out_of_time() if event.is_out_of_time else event.work_or_error()

    def _heeding(self, act: Callable[[], WaitEvent | None]) -> WaitEvent | None:
        """Do a part of the wait, and listen to whoever wants to end it."""
        try:
            self.stage.interrupts.check()
            return act()
        except Interrupted as interrupt:
            # It may have come amid a request.
            self.stage.hook.close()
            self._decide(interrupt)
            return None

    def _wait(self, watch: WaitState) -> WaitEvent:
        is_pursuit = self._asked is not None and isinstance(self.work, Backfill)
        # Not to miss jobs that come and go between two looks.
        interval = min(self.interval, CANCEL_POLL_INTERVAL) if is_pursuit else self.interval
        return blocking_wait.wait(
            watch, self._look, interval=interval, rest=self.stage.hook.delay, nap=self.stage.rest.sleep
        )

    def _look(self, request: Request[Any]) -> Any:
        answer = self.stage.hook.send(request, NO_RETRY)
        if isinstance(answer, (Job, Backfill)):
            self.work = answer
        if self._asked is not None and isinstance(answer, Backfill) and not answer.is_over:
            # It may have made more jobs since.
            return self._cancel()
        return answer

    def _decide(self, interrupt: Interrupted) -> None:
        """Cancel, wait on, or leave, as the person at the keyboard says."""
        screen, name = self.stage.screen, self.subject.name
        choice = "leave" if self._asked is not None else self.stage.options.on_interrupt
        is_asked = choice == "ask" and screen.can_ask and interrupt.number == signal.SIGINT
        try:
            if is_asked and not screen.ask(f"Cancel {name}? [y/N, Ctrl-C leaves it running]"):
                return
            if is_asked or choice == "cancel":
                screen.say(f"Cancelling {name}.")
                self._cancel()
                return
        except Interrupted as second:
            interrupt = second
        except PlanasonixError as error:
            error.with_message(f"{capitalize(name)} could not be cancelled, and may still run: {error}")
            if not is_asked:
                raise
            screen.warn(error.message)
            return
        raise Interrupted(interrupt.number)

    @property
    def left(self) -> str:
        """What there is to say when the person at the keyboard leaves."""
        if self.work and self.work.is_over:
            account = self.stage.hint(*self._show, "--wait")
            return f"{capitalize(self.subject.name)} is {self.work.status}. To have it accounted for: {account}"
        return f"No longer waiting for {self.subject.name}. {self.leftover_note}"

    @property
    def _show(self) -> tuple[str, str]:
        return ("backfill-status" if isinstance(self.subject, BackfillTarget) else "job", self.subject.id)

    @property
    def leftover_note(self) -> str:
        """What is left behind when the wait ends early, and what can be done with it."""
        wait = self.stage.hint(*self._show, "--wait")
        if self._asked is not None:
            return f"It was asked to cancel. To wait for its end: {wait}"
        form = ("--backfill",) if isinstance(self.subject, BackfillTarget) else ()
        cancel = self.stage.hint("cancel", *form, self.subject.id)
        state = (
            "Nobody knows whether it was asked to cancel."
            if self._is_in_doubt
            else "It was not cancelled, and runs on."
        )
        return f"{state} To wait for it again: {wait} To cancel it: {cancel}"

    def _cancel(self) -> Work:
        """Ask to cancel it; of a backfill, the jobs that it has made and that were not asked yet."""
        asked = set() if self._asked is None else self._asked
        known = (self.work.job_ids or []) if isinstance(self.work, Backfill) else []

        async def ask(channel: SharedClient) -> Work:
            return await cancel(
                partial(channel.send, priority=Priority.FIRST), self.subject, known, patience=0, asked=asked
            )

        self._is_in_doubt = True
        try:
            self.work = work = run_aside(self.stage.hook.config_source(), ask, self.stage.rest.sleep_aside)
        except PlanasonixError as error:
            self._is_in_doubt = has_unknown_effect(error)
            raise
        self._asked, self._is_in_doubt = asked, False
        return work

    def cancel_and_tell(self) -> Work:
        """Cancel the work, and say what that has done.

        :return: the work as it is then.
        :raises PlanasonixError: if it could not be cancelled.
        """
        work, name = self._cancel(), capitalize(self.subject.name)
        if work.is_over:
            self.stage.screen.say(f"{name} is over: it is {work.status}.")
        elif not isinstance(work, Backfill) or self._asked:
            self.stage.screen.say(f"{name} was asked to cancel: it is {work.status}.")
        elif self.stage.options.wait:
            self.stage.screen.say(f"{name} is {work.status} and has made no jobs yet; they are cancelled as they come.")
        else:
            raise PlanasonixConflictError(
                f"{name} is {work.status} and has made no jobs yet, so there is nothing to cancel. Try later, or add "
                "--wait: what it makes is cancelled then."
            )
        return work

    def _out_of_time(self) -> Work:
        late = f"{self.subject.goal} within {format_duration(self.timeout or 0)}."
        if getattr(self.stage.options, "on_timeout", "leave") == "cancel":
            try:
                work = self._cancel()
            except PlanasonixError as error:
                raise PlanasonixTimeoutError(f"{late} It could not be cancelled, and may still run: {error}") from None
            if work.is_over and work.status != "cancelled":
                return work
            if work.is_over:
                raise PlanasonixTimeoutError(f"{late} It was cancelled.")
        raise PlanasonixTimeoutError(f"{late} {self.leftover_note}")

    def account(self, work: Work) -> CommandResult:
        """Say what came of work that is over.

        :param work: the work.
        :return: the account, in JSON types.
        :raises PlanasonixError: if it was not done.
        """

        async def ask(channel: SharedClient) -> WorkResult:
            screen, rest = self.stage.screen, self.stage.rest
            patience = ResultFetcher(channel.send, self.interval, screen.warn, rest.sleep_aside)
            return await account_for(work, patience, job_url=self.stage.hook.job_url, info=screen.say)

        account = run_aside(self.stage.hook.config_source(), ask, self.stage.rest.sleep_aside)
        if account.error:
            raise account.error
        return CommandResult(account.result)

    def report(self, work: Work | None = None) -> CommandResult:
        """Say what is known of work, without what it has loaded.

        :param work: the work; default: as it was seen last.
        :return: the account, in JSON types; nothing where it was not seen.
        """
        known = work or self.work
        return CommandResult(known and report(known, self.stage.hook.job_url))


class _ProgressWaitState(WaitState):
    """A watch of which a person sees the bar."""

    def __init__(self, wait: CliWait, bar: ProgressBar, now: datetime, deadline: datetime | None) -> None:
        screen = wait.stage.screen
        super().__init__(wait.subject, now=now, info=self._inform, warn=screen.warn, deadline=deadline)
        self._wait, self._bar, self._screen = wait, bar, screen
        self._is_reminding = False

    def on_snapshot(self, seen: Snapshot, now: datetime, age: float = 0.0) -> WaitEvent | None:
        self._bar.show(seen)
        return super().on_snapshot(seen, now, age)

    def on_error(self, error: PlanasonixError, now: datetime) -> WaitEvent | None:
        self._bar.lose()
        return super().on_error(error, now)

    def on_tick(self, now: datetime) -> WaitEvent | None:
        self._is_reminding = True
        try:
            return super().on_tick(now)
        finally:
            self._is_reminding = False

    def _inform(self, line: str) -> None:
        # What is said from time to time is what the bar shows all the time.
        if not (self._is_reminding and self._bar.is_shown):
            self._screen.say(line)

    def leftover_note(self, is_for_ever: bool) -> str:
        """Say what a person can do where the wait ends early; there is no retry."""
        return f" {self._wait.leftover_note}"


@reading()
def times(stage: CommandContext) -> tuple[float, float | None]:
    """Read how to wait.

    :param stage: what the command acts with.
    :return: the seconds between two looks, and for how many to wait, or ``None`` for ever.
    :raises UsageError: if one makes no sense.
    """
    options = stage.options
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout: got a time without --wait, so there is nothing to wait for: add --wait.")
    return (
        validators.poll_interval("--poll-interval", options.poll_interval),
        validators.optional(validators.seconds)("--timeout", options.timeout),
    )


def _answer(wait: CliWait, act: Callable[[], CommandResult]) -> CommandResult:
    """Let a script have what is known of the work, however the wait for it ends."""
    try:
        return act()
    except PlanasonixError as error:
        return CommandResult(wait.report().data, code=code_of(error), complaint=error.message)
    except Interrupted as interrupt:
        return CommandResult(wait.report().data, code=interrupt.code, complaint=wait.left)
