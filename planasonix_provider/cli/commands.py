"""The table of commands, from which Airflow's parser and that of ``python -m planasonix_provider`` are built.

It imports little, because Airflow imports it at every ``airflow …`` command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.start_parameters import StartKind, StartParameter, parameters_of

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


@dataclass(frozen=True)
class Option:
    """An option or an argument. ``keywords`` go to argparse's ``add_argument`` and to Airflow's ``Arg``."""

    flags: tuple[str, ...]
    help: str
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """A command. ``function`` is ``module.function`` below :mod:`planasonix_provider.cli`."""

    name: str
    help: str
    function: str
    options: tuple[Option, ...] = ()
    epilog: str = ""
    #: Whether the command asks all Airflow connections of Planasonix, unless one is given.
    is_for_all_connections: bool = False


@dataclass(frozen=True)
class Group:
    """A group of commands."""

    name: str
    help: str
    commands: tuple[Command | Group, ...]


def option(*flags: str, help: str, **how: Any) -> Option:  # noqa: A002 - argparse's name
    """Return an option, with the arguments of argparse's ``add_argument``."""
    return Option(flags, help, how)


FORMATS = ("table", "json", "yaml", "plain")

CONN_ID = option(
    "--conn-id",
    help="the Airflow connection to Planasonix (default: planasonix_default)",
    metavar="CONN_ID",
    default="planasonix_default",
)
ANY_CONN_ID = option("--conn-id", help="only work of this Airflow connection (default: all)", metavar="CONN_ID")
OUTPUT = option(
    "-o",
    "--output",
    help="the output format: table, json, yaml or plain (default: table)",
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
    help="identifies this start, so that it can be repeated safely after an unknown outcome (default: a new key)",
    metavar="KEY",
)


def _start_options(kind: StartKind) -> tuple[Option, ...]:
    """Return the options of a command that starts work."""
    return (_CONNECTION, *map(_start_option, parameters_of(kind)), _IDEMPOTENCY_KEY, *_START_WAIT_OPTIONS)


def _start_option(parameter: StartParameter) -> Option:
    how: dict[str, Any] = {"metavar": parameter.metavar} if parameter.metavar else {}
    if parameter.choices:
        how["choices"] = parameter.choices
    if parameter.is_required:
        how["required"] = True
    if parameter.is_repeatable:
        how["action"] = "append"
    if parameter.is_flag:
        # Without a default, which the server has.
        how |= {"action": argparse.BooleanOptionalAction, "default": None}
    return option(f"--{parameter.name.replace('_', '-')}", help=parameter.help, **how)


def _wait_options(default: str) -> tuple[Option, ...]:
    return (
        option("-w", "--wait", help="wait until the work is over", action="store_true"),
        option("--timeout", help="the maximum wait in seconds (default: no limit)", metavar="SECONDS"),
        option(
            "--poll-interval",
            help="the seconds between two polls, at least 0.5 (default: 5)",
            metavar="SECONDS",
            default="5",
        ),
        option(
            "--on-interrupt",
            help="the effect of Ctrl-C or SIGTERM during the wait: ask (without a terminal: leave), cancel or leave "
            f"(default: {default})",
            metavar="ACTION",
            choices=("ask", "cancel", "leave"),
            default=default,
        ),
    )


_WAIT_OPTIONS = _wait_options("leave")
_WEB = option(
    "--web", help="open the page of the job in a browser; of a backfill, that of its first job", action="store_true"
)
_START_WAIT_OPTIONS = (
    *_wait_options("ask"),
    option(
        "--on-timeout",
        help="the effect of the timeout: leave the work running, or cancel it (default: leave)",
        metavar="ACTION",
        choices=("leave", "cancel"),
        default="leave",
    ),
)
_CANCEL_WAIT_OPTIONS = _WAIT_OPTIONS[:3]


def _status(things: str, states: Collection[str]) -> Option:
    """Return the option that filters by state. A misspelt state would list nothing, and look as if there were none."""
    allowed = sorted(states)
    return option(
        "--status", help=f"only {things} in this state: {', '.join(allowed)}", metavar="STATUS", choices=allowed
    )


def _limit(things: str) -> Option:
    return option(
        "--limit", help=f"the maximum number of {things}, newest first (default: 50)", metavar="N", type=int, default=50
    )


_SECRET_TO = option(
    "--secret-to",
    help="the place for the signing secret, which is never printed: variable:NAME, connection:CONN_ID or "
    "file:/absolute/path",
    metavar="PLACE",
    required=True,
)
_EVENTS = "the events, separated by commas, for example job.succeeded; may be repeated"

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
                option("url", help="the URL for deliveries: https, or http to this machine"),
                option("--events", help=_EVENTS, metavar="EVENT", action="append", required=True),
                _SECRET_TO,
                option(
                    "--secret-from",
                    help="a file that contains your own secret, or - for stdin (default: a random secret)",
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
                option("--url", help="the new URL for deliveries", metavar="URL"),
                option("--events", help=_EVENTS, metavar="EVENT", action="append"),
                option(
                    "--enabled",
                    help="send deliveries, or stop sending them",
                    action=argparse.BooleanOptionalAction,
                    default=None,
                ),
            ),
        ),
        Command(
            "delete",
            "Delete a webhook",
            "webhooks.delete",
            (_WEBHOOK, option("-y", "--yes", help="do not ask for confirmation", action="store_true")),
        ),
        Command("rotate-secret", "Replace the signing secret of a webhook", "webhooks.rotate", (_WEBHOOK, _SECRET_TO)),
        Command(
            "test",
            "Send a test event to the URL of a webhook",
            "webhooks.send_test",
            (
                _WEBHOOK,
                option(
                    "--event",
                    help="the event, for example job.succeeded",
                    metavar="EVENT",
                ),
            ),
        ),
        Command(
            "deliveries",
            "List the deliveries of a webhook",
            "webhooks.deliveries",
            (_WEBHOOK, _limit("deliveries")),
        ),
    ),
)

SHELL = Group(
    "planasonix",
    "Start, watch and cancel Planasonix syncs and backfills, and manage webhooks",
    (
        Command(
            "sync",
            "Start a sync",
            "start.sync",
            (*_start_options("sync"), _WEB),
        ),
        Command(
            "backfill",
            "Start a historical load of a time window",
            "start.backfill",
            _start_options("backfill"),
            epilog="Times are ISO 8601. A time without an offset is UTC.",
        ),
        Command(
            "jobs",
            "List jobs",
            "jobs.jobs",
            (
                option("--connection-id", help="only jobs of this connection", metavar="ID"),
                option("--pipeline-id", help="only jobs of this pipeline", metavar="ID"),
                option("--type", help="only jobs of this type, for example connection_sync", metavar="TYPE"),
                _status("jobs", JOB_STATES),
                option(
                    "--since",
                    help="only jobs created at this time or later, for example 24h, 7d or 2025-03-27T14:00Z",
                    metavar="TIME",
                ),
                option("--until", help="only jobs created at this time or earlier", metavar="TIME"),
                _limit("jobs"),
            ),
            epilog="A time is ISO 8601, and UTC if it has no offset; or an age in m, h, d or w: 24h is one day ago.",
        ),
        Command("job", "Show a job, or wait for it", "jobs.job", (_JOB, *_WAIT_OPTIONS, _WEB)),
        Command(
            "watch",
            "Wait for a job or a backfill, no matter who has started it",
            "jobs.watch",
            (option("id", help="the id of the job or the backfill", metavar="ID"), *_WAIT_OPTIONS[1:], _WEB),
        ),
        Command("results", "Show the tables and rows that a job has loaded", "jobs.results", (_JOB,)),
        Command(
            "cancel",
            "Cancel a job, or the jobs of a backfill",
            "jobs.cancel",
            (
                option("id", help="the id of the job; with --backfill, of the backfill", metavar="ID"),
                option(
                    "--backfill",
                    help="ID is the id of a backfill: cancel its jobs and, with --wait, the jobs that it creates later",
                    action="store_true",
                ),
                *_CANCEL_WAIT_OPTIONS,
            ),
        ),
        Command(
            "backfills",
            "List backfills",
            "jobs.backfills",
            (
                option("--connection-id", help="only backfills of this connection", metavar="ID"),
                _status("backfills", BACKFILL_STATES),
                _limit("backfills"),
            ),
        ),
        Command(
            "backfill-status", "Show a backfill, or wait for it", "jobs.backfill", (_BACKFILL, *_WAIT_OPTIONS, _WEB)
        ),
        Command(
            "orphans",
            "List work that runs on although its task is over, or cancel it",
            "orphaned.orphans",
            (
                option(
                    "--older-than",
                    help="only work whose task ended this long ago, for example 10m, 24h or 7d",
                    metavar="AGE",
                ),
                option("--cancel", help="cancel them", action="store_true"),
            ),
            is_for_all_connections=True,
        ),
        WEBHOOKS,
        Command(
            "status",
            "Show connections, what runs, and webhook receivers",
            "status.status",
            epilog="It shows all Airflow connections in Airflow's database and the environment, and that of --conn-id.",
        ),
        Command("waits", "List the deferred tasks that wait for Planasonix", "status.waits"),
        Command("ping", "Test the Airflow connection to Planasonix", "jobs.ping"),
        Command("openapi", "Print the OpenAPI document of Planasonix, as YAML", "jobs.openapi"),
    ),
)


def options_of(command: Command) -> Iterable[Option]:
    """Return a command's own options and the common ones."""
    return (*command.options, ANY_CONN_ID if command.is_for_all_connections else CONN_ID, OUTPUT)


def get_planasonix_cli_commands() -> list[CLICommand]:
    """Return the commands for Airflow 3.2 and later, which finds this function in the provider info."""
    return [_airflow_command(SHELL)]


def _airflow_command(command: Command | Group) -> CLICommand:
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    if isinstance(command, Group):
        return GroupCommand(command.name, command.help, [_airflow_command(one) for one in command.commands])
    return ActionCommand(
        name=command.name,
        help=command.help,
        func=_runner(command.function),
        args=[Arg(option.flags, help=option.help, **option.keywords) for option in options_of(command)],
        epilog=command.epilog or None,
    )


def _runner(act: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        from planasonix_provider.cli.loading import loading_status

        with loading_status():
            from planasonix_provider.cli.runner import run_command

        # Airflow ignores the return value of a command.
        raise SystemExit(run_command(act, arguments, program=f"airflow {SHELL.name}"))

    return run
