"""The parser of ``python -m planasonix_provider``."""

from __future__ import annotations

import argparse
from typing import Any

from planasonix_provider import __version__
from planasonix_provider.cli.commands import SHELL, Command, Group, options_of
from planasonix_provider.waiting.cli_hints import PROGRAM


def new_parser() -> argparse.ArgumentParser:
    """Return the parser; its result names the function to call in ``act``."""
    made = argparse.ArgumentParser(prog=PROGRAM, description=f"{SHELL.help}.")
    made.add_argument("--version", action="version", version=f"airflow-provider-planasonix {__version__}")
    _add_commands(made, SHELL)
    return made


def _add_commands(to: argparse.ArgumentParser, group: Group) -> None:
    commands = to.add_subparsers(metavar="COMMAND", required=True)
    for command in group.commands:
        _add(commands, command)


def _add(commands: Any, command: Command | Group) -> None:
    made = commands.add_parser(command.name, help=command.help, description=f"{command.help}.")
    if isinstance(command, Group):
        _add_commands(made, command)
        return
    made.epilog = command.epilog or None
    made.set_defaults(act=command.function)
    for option in options_of(command):
        made.add_argument(*option.flags, help=option.help, **option.keywords)
