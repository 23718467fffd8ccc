"""Runs one command, prints its result, and returns its exit code."""

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
from planasonix_provider.cli.argument_types import UsageError, usage_errors
from planasonix_provider.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_USAGE, exit_code
from planasonix_provider.cli.output import CommandResult, print_result
from planasonix_provider.cli.signals import Interrupted, SignalHandler
from planasonix_provider.cli.terminal import Terminal, log_to, redirect_to_devnull
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting.interruptible_sleep import InterruptibleSleep

T = TypeVar("T")

#: A person is waiting: an early error is better than a late result.
INTERACTIVE_RETRY = RetryPolicy(max_tries=4, max_seconds=30.0, respects_rate_limit=False)


class ShellHook(PlanasonixHook):
    """A hook for a person at a terminal: few retries, and invalid arguments are usage errors."""

    def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request; the default policy is :data:`INTERACTIVE_RETRY`."""
        return super().send(request, policy or INTERACTIVE_RETRY)


for _name, _method in vars(Operations).items():
    if isinstance(_method, (operation, paginated_operation)):
        setattr(ShellHook, _name, type(_method)(usage_errors()(_method.route)))


@dataclass(frozen=True)
class CommandContext:
    """The objects that a command uses. ``program`` is the name of this program in hints."""

    options: Namespace
    program: str
    terminal: Terminal
    signals: SignalHandler
    sleeper: InterruptibleSleep
    hook: ShellHook

    @property
    def is_waiting(self) -> bool:
        """Whether the command waits for the end of the work: with ``--wait``, or always if there is no such option."""
        return getattr(self.options, "wait", True)

    def hint(self, *words: str) -> str:
        """Return a command for the user to type next, with the same ``--conn-id``, quoted for a shell."""
        conn_id = self.options.conn_id
        own = () if conn_id == PlanasonixHook.default_conn_name else ("--conn-id", conn_id)
        return f"`{self.program} {shlex.join([*words, *own])}`"


def run_command(act: str, options: Namespace, *, program: str) -> int:
    """Run one command and return its exit code.

    ``act`` is ``module.function`` below :mod:`planasonix_provider.cli`; ``program`` is the name in hints.
    """
    terminal = Terminal()
    with log_to(terminal), SignalHandler(terminal.warn) as signals:
        try:
            answer = _print(_call(act, options, program, terminal, signals), options.output)
        except Interrupted as interrupt:
            answer = CommandResult(code=interrupt.code, error=interrupt.message)
        except PlanasonixError as error:
            answer = CommandResult(code=exit_code(error), error=error.message)
        except UsageError as misuse:
            answer = CommandResult(code=EXIT_USAGE, error=str(misuse))
        if answer.error:
            terminal.print_error(answer.error)
        return answer.code


def _call(act: str, options: Namespace, program: str, terminal: Terminal, signals: SignalHandler) -> CommandResult:
    module, _, function = act.rpartition(".")
    command: Callable[[CommandContext], CommandResult] = getattr(
        import_module(f"planasonix_provider.cli.{module}"), function
    )
    rest = InterruptibleSleep(signals.check)
    with _database_connections(), ShellHook(options.conn_id or ShellHook.default_conn_name, sleep=rest.sleep) as hook:
        return command(CommandContext(options, program, terminal, signals, rest, hook))


def _print(answer: CommandResult, form: str) -> CommandResult:
    try:
        print_result(answer, form)
    except BrokenPipeError:
        redirect_to_devnull(sys.stdout)
        return replace(answer, code=EXIT_BROKEN_PIPE)
    return answer


@contextmanager
def _database_connections() -> Iterator[None]:
    """Allow Airflow to read connections and Variables from its database, as ``airflow connections`` does.

    Airflow 3 does so only in server processes.
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
