"""Prints the answer of a command, which is all that goes to stdout."""

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

from planasonix_provider.cli.exits import DONE
from planasonix_provider.cli.screen import harmless


@dataclass(frozen=True)
class Answer:
    """What a command has to say.

    :param data: JSON types: an object or a list of them; a text, to be printed as it is; or ``None``.
    :param columns: of a list, what a table of it shows.
    :param code: the exit code.
    :param complaint: why that is not 0.
    """

    data: Any = None
    columns: Sequence[str] = ()
    code: int = DONE
    complaint: str | None = None


def show(answer: Answer, form: str) -> None:
    """Print an answer.

    :param answer: the answer.
    :param form: ``json`` and ``yaml`` print all of it, and numbers as numbers; ``table`` and ``plain`` what a person
        looks for, ``plain`` without lines.
    """
    data = answer.data
    if isinstance(sys.stdout, TextIOWrapper):
        # Whatever a terminal cannot show: the id of what was started comes out.
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(data, str):
        sys.stdout.write(data if data.endswith("\n") else f"{data}\n")
    elif data is not None and form == "json":
        print(json.dumps(data, indent=2, ensure_ascii=not _is_unicode()))
    elif data is not None and form == "yaml":
        print(yaml.dump(data, sort_keys=False, allow_unicode=_is_unicode()), end="")
    elif data is not None:
        _show_tables(data, answer.columns, form)
    # What waits in the buffer until the process ends could not be caught any more when nobody reads it.
    sys.stdout.flush()


def _is_unicode() -> bool:
    """Say whether every letter can be written as it is; JSON and YAML have ways of their own to write it else."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")


class _Console(AirflowConsole):
    """Leaves it to others what a pipe means that nobody reads: rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _show_tables(data: Any, columns: Sequence[str], form: str) -> None:
    # No markup: there may be brackets in an error's message.
    console = _Console(markup=False, highlight=False, emoji=False)
    draw = console.print_as_table if form == "table" else console.print_as_plain_table
    if isinstance(data, list):
        draw([{column: _cell(row.get(column)) for column in columns} for row in data])
        return
    draw([{"field": name, "value": _cell(value)} for name, value in _fields(data)])
    for name, rows in data.items():
        if _is_table(rows):
            console.print(name if form == "table" else f"\n{name}")
            draw([{column: _cell(value) for column, value in row.items()} for row in rows])


def _fields(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Give what a table shows of an object line by line: what is in it, and what is in that."""
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
    # Of times, the seconds are enough for a person.
    return harmless(re.sub(r"(?<=\d\dT\d\d:\d\d:\d\d)\.\d+(?=Z$)", "", str(value)))
