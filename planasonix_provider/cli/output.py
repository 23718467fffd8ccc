"""Prints the result of a command. Nothing else goes to stdout."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any

from airflow.utils import yaml

from planasonix_provider.cli.exit_codes import EXIT_OK
from planasonix_provider.cli.tables import print_tables
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
        print_tables(data, answer.columns, form)
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
