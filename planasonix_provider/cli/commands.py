"""The commands of the shell, written once: Airflow's parser and that of ``python -m`` are both made of them.

Light on purpose: Airflow imports this at each ``airflow …``, whatever the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planasonix_provider.start_parameters import StartKind, StartParameter, parameters_of

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


@dataclass(frozen=True)
class Option:
    """What a command can be told.

    :param flags: its names; one without dashes stands for its place.
    :param help: what it means.
    :param how: what else argparse's ``add_argument`` is to know, and Airflow's ``Arg`` takes.
    """

    flags: tuple[str, ...]
    help: str
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """Something to do.

    :param name: what is typed.
    :param help: what it does, in a line.
    :param act: the function that does it, as ``module.function`` below :mod:`planasonix_provider.cli`.
    :param options: what it can be told, besides what every command can.
    :param more: what else there is to know.
    """

    name: str
    help: str
    act: str
    options: tuple[Option, ...] = ()
    more: str = ""


@dataclass(frozen=True)
class Group:
    """Commands that belong together.

    :param name: what is typed.
    :param help: what they are about.
    :param commands: the commands.
    """

    name: str
    help: str
    commands: tuple[Command | Group, ...]


def option(*flags: str, help: str, **how: Any) -> Option:  # noqa: A002 - argparse's name
    """Write an option as argparse has it.

    :param flags: its names.
    :param help: what it means.
    :param how: further arguments of ``add_argument``.
    :return: the option.
    """
    return Option(flags, help, how)


FORMATS = ("table", "json", "yaml", "plain")

CONN_ID = option(
    "--conn-id",
    help="the Airflow connection to Planasonix (default: planasonix_default)",
    metavar="CONN_ID",
    default="planasonix_default",
)
OUTPUT = option(
    "-o",
    "--output",
    help="how to print the answer: table, json, yaml, plain (default: table)",
    metavar="FORMAT",
    choices=FORMATS,
    default="table",
)

_CONNECTION = option("connection_id", help="the id of the connection in Planasonix")
_JOB = option("job_id", help="the id of the job")
_BACKFILL = option("backfill_id", help="the id of the backfill")
_WEBHOOK = option("webhook_id", help="the id of the webhook")

_IDEMPOTENCY_KEY = option(
    "--idempotency-key",
    help="names this start, so that it can be sent again after one that may or may not have arrived (default: a "
    "new key)",
    metavar="KEY",
)


def _start(kind: StartKind) -> tuple[Option, ...]:
    """Return the options of a command that starts work."""
    return (_CONNECTION, *map(_start_option, parameters_of(kind)), _IDEMPOTENCY_KEY, *_WAIT_FOR_OURS)


def _start_option(parameter: StartParameter) -> Option:
    how: dict[str, Any] = {"metavar": parameter.metavar}
    if parameter.choices:
        how["choices"] = parameter.choices
    if parameter.is_required:
        how["required"] = True
    if parameter.is_repeatable:
        how["action"] = "append"
    return option(f"--{parameter.name.replace('_', '-')}", help=parameter.help, **how)


def _waiting(default: str) -> tuple[Option, ...]:
    return (
        option("-w", "--wait", help="wait until it is over", action="store_true"),
        option("--timeout", help="how many seconds to wait at the most (default: without end)", metavar="SECONDS"),
        option(
            "--poll-interval",
            help="the seconds between two polls, at least 0.5 (default: 5)",
            metavar="SECONDS",
            default="5",
        ),
        option(
            "--on-interrupt",
            help="what Ctrl-C or a SIGTERM does while waiting: ask (where nobody can be asked: leave), cancel, leave "
            f"(default: {default})",
            metavar="WHAT",
            choices=("ask", "cancel", "leave"),
            default=default,
        ),
    )


_WAIT_FOR_OTHERS = _waiting("leave")
_WAIT_FOR_OURS = (
    *_waiting("ask"),
    option(
        "--on-timeout",
        help="what to do when the time is up: leave it running, or cancel (default: leave)",
        metavar="WHAT",
        choices=("leave", "cancel"),
        default="leave",
    ),
)
_WAIT_FOR_THE_END = _WAIT_FOR_OTHERS[:3]


def _limit(things: str) -> Option:
    return option(
        "--limit", help=f"how many {things} to list, newest first (default: 50)", metavar="N", type=int, default=50
    )


_SECRET_TO = option(
    "--secret-to",
    help="where the signing secret is kept, which is never shown: variable:NAME, connection:CONN_ID or "
    "file:/absolute/path",
    metavar="PLACE",
    required=True,
)
_EVENTS = "the events, for example job.succeeded; may be repeated, or a list with commas"

WEBHOOKS = Group(
    "webhooks",
    "Manage webhooks",
    (
        Command("list", "List webhooks", "webhooks.list_all", (_limit("webhooks"),)),
        Command(
            "create",
            "Create a webhook, which sends events to a URL",
            "webhooks.create",
            (
                option("url", help="where deliveries go: https, or http to this machine"),
                option("--events", help=_EVENTS, metavar="EVENT", action="append", required=True),
                _SECRET_TO,
                option(
                    "--secret-from",
                    help="a file that holds a secret of your own, or - for stdin (default: one is made up)",
                    metavar="PATH",
                ),
            ),
        ),
        Command("get", "Show a webhook", "webhooks.get", (_WEBHOOK,)),
        Command(
            "update",
            "Change a webhook",
            "webhooks.update",
            (
                _WEBHOOK,
                option("--url", help="where deliveries go from now on", metavar="URL"),
                option("--events", help=_EVENTS, metavar="EVENT", action="append"),
                option(
                    "--enabled",
                    help="whether anything is delivered",
                    action=argparse.BooleanOptionalAction,
                    default=None,
                ),
            ),
        ),
        Command(
            "delete",
            "Delete a webhook",
            "webhooks.delete",
            (_WEBHOOK, option("-y", "--yes", help="do not ask whether to delete it", action="store_true")),
        ),
        Command("rotate-secret", "Replace the signing secret of a webhook", "webhooks.rotate", (_WEBHOOK, _SECRET_TO)),
        Command(
            "test",
            "Send a test event to the URL of a webhook",
            "webhooks.send_test",
            (_WEBHOOK, option("--event", help="which event, for example job.succeeded", metavar="EVENT")),
        ),
        Command(
            "deliveries",
            "List what was sent to the URL of a webhook",
            "webhooks.deliveries",
            (_WEBHOOK, _limit("deliveries")),
        ),
    ),
)

SHELL = Group(
    "planasonix",
    "Start Planasonix syncs and backfills, wait for them, look at them",
    (
        Command(
            "sync",
            "Start a sync",
            "start.sync",
            _start("sync"),
        ),
        Command(
            "backfill",
            "Start a historical load of a window of time",
            "start.backfill",
            _start("backfill"),
            more="Times are ISO 8601; one without an offset is UTC.",
        ),
        Command(
            "jobs",
            "List jobs",
            "jobs.jobs",
            (
                option("--connection-id", help="only jobs of this connection", metavar="ID"),
                option("--pipeline-id", help="only jobs of this pipeline", metavar="ID"),
                option("--type", help="only jobs of this type, for example connection_sync", metavar="TYPE"),
                option("--status", help="only jobs in this state, for example failed", metavar="STATUS"),
                option(
                    "--since",
                    help="only jobs created at this time or later, for example 2025-03-27T14:00Z",
                    metavar="TIME",
                ),
                option("--until", help="only jobs created at this time or earlier", metavar="TIME"),
                _limit("jobs"),
            ),
            more="Times are ISO 8601; one without an offset is UTC.",
        ),
        Command("job", "Show a job, or wait for it", "jobs.job", (_JOB, *_WAIT_FOR_OTHERS)),
        Command("results", "Show what a job loaded", "jobs.results", (_JOB,)),
        Command(
            "cancel",
            "Cancel a job, or the jobs of a backfill",
            "jobs.cancel",
            (
                option("id", help="the id of the job, or with --backfill of the backfill", metavar="ID"),
                option(
                    "--backfill",
                    help="ID is that of a backfill: its jobs are cancelled and, with --wait, those that it makes "
                    "meanwhile",
                    action="store_true",
                ),
                *_WAIT_FOR_THE_END,
            ),
        ),
        Command(
            "backfills",
            "List backfills",
            "jobs.backfills",
            (
                option("--connection-id", help="only backfills of this connection", metavar="ID"),
                option("--status", help="only backfills in this state, for example running", metavar="STATUS"),
                _limit("backfills"),
            ),
        ),
        Command("backfill-status", "Show a backfill, or wait for it", "jobs.backfill", (_BACKFILL, *_WAIT_FOR_OTHERS)),
        WEBHOOKS,
        Command("ping", "Try the Airflow connection to Planasonix", "jobs.ping"),
        Command("openapi", "Print the OpenAPI document of Planasonix, as YAML", "jobs.openapi"),
    ),
)


def options_of(command: Command) -> Iterable[Option]:
    """Say all that a command can be told.

    :param command: the command.
    :return: its own options, and those that every command has.
    """
    return (*command.options, CONN_ID, OUTPUT)


def get_planasonix_cli_commands() -> list[CLICommand]:
    """Describe the commands to Airflow, from 3.2 on; the provider info names this function.

    :return: the group ``planasonix``.
    """
    return [_for_airflow(SHELL)]


def _for_airflow(command: Command | Group) -> CLICommand:
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    if isinstance(command, Group):
        return GroupCommand(command.name, command.help, [_for_airflow(one) for one in command.commands])
    return ActionCommand(
        name=command.name,
        help=command.help,
        func=_acting(command.act),
        args=[Arg(option.flags, help=option.help, **option.how) for option in options_of(command)],
        epilog=command.more or None,
    )


def _acting(act: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        from planasonix_provider.cli.runner import run_command

        # Airflow does not look at what a command returns.
        raise SystemExit(run_command(act, arguments, program=f"airflow {SHELL.name}"))

    return run
