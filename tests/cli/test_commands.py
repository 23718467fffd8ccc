"""Airflow's parser and ``python -m`` have the same commands, which cover all routes of the API."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from planasonix_provider.cli import exit_codes
from planasonix_provider.cli.commands import SHELL, Command, Group, get_planasonix_cli_commands
from planasonix_provider.cli.parser import new_parser
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from tests.cli.conftest import Run
from tests.support.example_calls import EXAMPLE_CALLS
from tests.support.scenarios import CONNECTION, routes_asked

AIRFLOW = Version(version("apache-airflow"))
takes_commands = pytest.mark.skipif(Version("3.2") > AIRFLOW, reason="commands of providers need Airflow 3.2")
PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()


def commands(group: Group = SHELL, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for command in group.commands:
        if isinstance(command, Group):
            yield from commands(command, (*before, command.name))
        else:
            yield (*before, command.name), command


COMMANDS = dict(commands())


def options_of(made: argparse.ArgumentParser) -> dict[str, object]:
    """Return the subcommands or the options of a parser."""
    (subparsers,) = [action for action in made._actions if isinstance(action, argparse._SubParsersAction)] or [None]
    if subparsers:
        return {name: options_of(one) for name, one in subparsers.choices.items()}
    return {
        action.dest: (sorted(action.option_strings), action.default, action.choices, action.required, action.help)
        for action in made._actions
        if action.dest != "help"
    }


def test_each_command_has_a_function() -> None:
    for command in COMMANDS.values():
        module, _, function = command.function.rpartition(".")
        assert callable(getattr(import_module(f"planasonix_provider.cli.{module}"), function))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_has_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        new_parser().parse_args([*words, "--help"])
    assert end.value.code == 0
    assert f"{COMMANDS[words].help}." in capsys.readouterr().out


@takes_commands
def test_airflow_has_the_same_commands() -> None:
    from airflow.cli.cli_parser import get_parser

    get_parser.cache_clear()
    (subparsers,) = [action for action in get_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert options_of(subparsers.choices["planasonix"]) == options_of(new_parser())


@pytest.mark.skipif(Version("3.2") <= AIRFLOW, reason="Airflow 3.2 and later have the commands")
def test_airflow_before_3_2_works_without_the_commands() -> None:
    from airflow.cli.cli_parser import get_parser

    (subparsers,) = [action for action in get_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert "planasonix" not in subparsers.choices


def test_the_commands_for_airflow_fit_its_parser(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.cli.cli_parser import _add_command

    made = argparse.ArgumentParser()
    subparsers = made.add_subparsers()
    for command in get_planasonix_cli_commands():
        _add_command(subparsers, command)
    simulator.plan(CONNECTION, running_seconds=60)
    options = made.parse_args(["planasonix", "sync", CONNECTION, "-o", "json"])
    with pytest.raises(SystemExit) as end:
        options.func(options)
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["job_id"] == simulator.jobs()[0].id
    options = made.parse_args(["planasonix", "sync", CONNECTION])
    with pytest.raises(SystemExit) as end:
        options.func(options)
    assert end.value.code == 1
    assert "To wait for it: `airflow planasonix job job_" in capsys.readouterr().err


def test_the_parser_imports_no_large_package() -> None:
    probe = (
        "import sys, planasonix_provider.__main__, planasonix_provider.cli.parser\n"
        "planasonix_provider.cli.parser.new_parser()\n"
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('airflow', 'httpx', 'pydantic', 'rich', 'tenacity', 'yaml')])"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("route", EXAMPLE_CALLS)
def test_each_route_has_a_command(simulator: Simulator, shell: Run, tmp_path: Path, route: str) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=0)
    job = simulator.workspace.start_sync(CONNECTION)
    window = BackfillRequestBody(start_at="2025-01-01T00:00:00Z", end_at="2025-01-02T00:00:00Z")
    backfill = simulator.workspace.start_backfill(CONNECTION, window)
    webhook = simulator.subscribe("https://example.com", ["job.failed"])
    command = EXAMPLE_CALLS[route].command.format(
        connection_id=CONNECTION,
        job_id=job.id,
        backfill_id=backfill.id,
        webhook_id=webhook.id,
        secret=tmp_path / "secret",
    )
    assert shell(*command.split()).code == 0
    assert route in routes_asked(simulator)


def test_the_page_lists_every_command_and_option() -> None:
    for words, command in COMMANDS.items():
        assert re.search(rf"`{' '.join(words)}\b", PAGE), f"docs/command-line.md lacks {' '.join(words)}"
        for option in command.options:
            is_named = f"`{option.flags[-1]}" in PAGE or not option.flags[0].startswith("-")
            assert is_named, f"docs/command-line.md lacks {option.flags[-1]} of {' '.join(words)}"


def test_the_page_lists_every_exit_code() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    codes = codes - {exit_codes.EXIT_SIGNAL} | {130, 143}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
