"""Runs one command: gives it what it needs, prints its answer, and makes an exit code of how it ended."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.operations import Operations, operation, paginated_operation
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.cli.exit_codes import BROKEN_PIPE, MISUSED, code_of
from planasonix_provider.cli.output import CommandResult, show
from planasonix_provider.cli.signals import Interrupted, SignalHandler
from planasonix_provider.cli.terminal import Terminal, log_on, redirect_to_devnull
from planasonix_provider.cli.usage import UsageError, reading
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep

T = TypeVar("T")

#: Somebody sits there: better an error soon than an answer late.
QUICK = RetryPolicy(max_tries=4, max_seconds=30.0, respects_rate_limit=False)


class ShellHook(PlanasonixHook):
    """Calls Planasonix for a person who waits for the answer. What a route refuses was typed: it is a misuse."""

    def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: which failures to try again, and for how long; the default is :data:`QUICK`.
        :return: what the answer holds.
        """
        return super().send(request, policy or QUICK)


for _name, _method in vars(Operations).items():
    if isinstance(_method, (operation, paginated_operation)):
        setattr(ShellHook, _name, type(_method)(reading()(_method.route)))


@dataclass(frozen=True)
class CommandContext:
    """What a command acts with.

    :param options: what was typed.
    :param program: how the shell was called, for hints at other commands.
    :param screen: speaks to the person at the keyboard.
    :param interrupts: says when that person wants to end.
    :param rest: sleeps, until then.
    :param hook: knows the Airflow connection.
    """

    options: Namespace
    program: str
    screen: Terminal
    interrupts: SignalHandler
    rest: InterruptibleSleep
    hook: ShellHook

    def hint(self, *words: str) -> str:
        """Write a command to be typed next.

        :param words: the command, and what it is told.
        :return: the same with what was told of Airflow's connection, as a shell takes it.
        """
        conn_id = self.options.conn_id
        own = () if conn_id == PlanasonixHook.default_conn_name else ("--conn-id", conn_id)
        return f"`{self.program} {shlex.join([*words, *own])}`"


def run_command(act: str, options: Namespace, *, program: str) -> int:
    """Do what was typed.

    :param act: which function does it, as ``module.function`` below :mod:`planasonix_provider.cli`.
    :param options: what was typed.
    :param program: how the shell was called.
    :return: the exit code, see :mod:`planasonix_provider.cli.exit_codes`.
    """
    screen = Terminal()
    with log_on(screen), SignalHandler(screen.warn) as interrupts:
        try:
            answer = _shown(_act(act, options, program, screen, interrupts), options.output)
        except Interrupted as interrupt:
            answer = CommandResult(code=interrupt.code, complaint=interrupt.says)
        except PlanasonixError as error:
            answer = CommandResult(code=code_of(error), complaint=error.message)
        except UsageError as misuse:
            answer = CommandResult(code=MISUSED, complaint=str(misuse))
        if answer.complaint:
            screen.complain(answer.complaint)
        return answer.code


def _act(act: str, options: Namespace, program: str, screen: Terminal, interrupts: SignalHandler) -> CommandResult:
    module, _, function = act.rpartition(".")
    command: Callable[[CommandContext], CommandResult] = getattr(
        import_module(f"planasonix_provider.cli.{module}"), function
    )
    rest = InterruptibleSleep(interrupts.check)
    with _connections_of_the_database(), ShellHook(options.conn_id, sleep=rest.sleep) as hook:
        return command(CommandContext(options, program, screen, interrupts, rest, hook))


def _shown(answer: CommandResult, form: str) -> CommandResult:
    try:
        show(answer, form)
    except BrokenPipeError:
        redirect_to_devnull(sys.stdout)
        return replace(answer, code=BROKEN_PIPE)
    return answer


@contextmanager
def _connections_of_the_database() -> Iterator[None]:
    """Let Airflow look for connections and variables in its database, too, as ``airflow connections`` does.

    Airflow 3 does so only in a process that says that it is one of the server's.
    """
    name = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(name)
    os.environ[name] = "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
