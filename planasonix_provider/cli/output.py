"""Prints the result of a command. Nothing else goes to stdout."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any

from airflow.cli.simple_table import AirflowConsole
from airflow.utils import yaml

from planasonix_provider.cli.exit_codes import EXIT_OK
from planasonix_provider.cli.terminal import escape_control_chars


@dataclass(frozen=True)
class CommandResult:
    """The result of a command.

    ``data`` is an object or a list of objects in JSON types, a text that is printed as it is, or ``None``. ``columns``
    are the columns of a list's table, ``error`` explains an exit code other than 0.
    """

    data: Any = None
    columns: Sequence[str] = ()
    code: int = EXIT_OK
    error: str | None = None


def print_result(answer: CommandResult, form: str) -> None:
    """Print a result: all of it as ``json`` or ``yaml``, the main fields as ``table`` or ``plain``."""
    data = answer.data
    if isinstance(sys.stdout, TextIOWrapper):
        # A character that the terminal cannot encode must not hide the id of a started job.
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(data, str):
        # A file gets every byte; a terminal gets no control characters.
        text = escape_control_chars(data) if sys.stdout.isatty() else data
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    elif data is not None and form == "json":
        print(_json(data))
    elif data is not None and form == "yaml":
        print(_yaml(data), end="")
    elif data is not None:
        _print_tables(data, answer.columns, form)
    # At exit, a broken pipe could no longer be caught.
    sys.stdout.flush()


def _json(data: Any) -> str:
    """Return JSON with escapes for the characters that would control a terminal."""
    text = json.dumps(data, indent=2, ensure_ascii=not _is_unicode())
    return text if _is_printable(text) else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    return letter if _is_printable(letter) else json.dumps(letter)[1:-1]


def _yaml(data: Any) -> str:
    """Return YAML, in ASCII if a character would control a terminal."""
    text: str = yaml.dump(data, sort_keys=False, allow_unicode=_is_unicode())
    return text if _is_printable(text) else yaml.dump(data, sort_keys=False, allow_unicode=False)


def _is_printable(text: str) -> bool:
    return escape_control_chars(text) == text


def _is_unicode() -> bool:
    """Return whether stdout can encode every character; JSON and YAML have escapes for the others."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")


class _OutputConsole(AirflowConsole):
    """Raises an error for a broken pipe; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _print_tables(data: Any, columns: Sequence[str], form: str) -> None:
    # No markup, because error messages may contain brackets.
    console = _OutputConsole(markup=False, highlight=False, emoji=False)
    draw = console.print_as_table if form == "table" else console.print_as_plain_table
    if isinstance(data, list):
        draw([{column: _cell(row.get(column)) for column in columns} for row in data])
        return
    draw([{"field": escape_control_chars(name), "value": _cell(value)} for name, value in _fields(data)])
    for name, rows in data.items():
        if _is_table(rows):
            heading = escape_control_chars(name)
            console.print(heading if form == "table" else f"\n{heading}")
            draw([{escape_control_chars(column): _cell(value) for column, value in row.items()} for row in rows])


def _fields(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the rows of an object's table: its fields, and those of nested objects with dotted names."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{before}{name}.")
        elif value is not None and value != [] and not _is_table(value):
            yield before + name, value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    # Times without fractions of a second.
    return escape_control_chars(re.sub(r"(?<=\d\dT\d\d:\d\d:\d\d)\.\d+(?=Z$)", "", str(value)))
