"""Reads what was typed behind an option; what makes no sense is a misuse that names the option."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from planasonix_provider import validators
from planasonix_provider.cli.usage import UsageError, reading
from planasonix_provider.validators import invalid_parameter


@reading()
def metadata(name: str, given: Sequence[str] | None) -> dict[str, Any] | None:
    """Read metadata.

    :param name: the option.
    :param given: each ``KEY=VALUE``, or a JSON object; of two that have a key in common the later wins.
    :return: all of them together, or ``None`` where there are none.
    :raises UsageError: if one is neither.
    """
    if given is None:
        return None
    together: dict[str, Any] = {}
    for text in given:
        together |= _object(name, text) if text.lstrip().startswith("{") else _pair(name, text)
    return together


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        # Not JSON; or it is, with a number too long or nested too deep for Python.
        raise invalid_parameter(name, text, "KEY=VALUE, or a JSON object") from None
    return validators.metadata(name, given)


def _pair(name: str, text: str) -> dict[str, Any]:
    key, mark, value = text.partition("=")
    if not key.strip() or not mark:
        raise invalid_parameter(name, text, "KEY=VALUE, or a JSON object")
    return {key.strip(): value}


@reading()
def identifier(name: str, given: str) -> str:
    """Read the id of something in Planasonix.

    :param name: what it is the id of.
    :param given: what was given.
    :return: the id.
    :raises UsageError: if it can be none.
    """
    return validators.identifier(name, given)


def words(given: Sequence[str] | None) -> list[str] | None:
    """Read a list that is typed with commas, or word by word.

    :param given: what was given each time.
    :return: the words, or ``None`` where nothing was given.
    """
    if given is None:
        return None
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


@reading()
def tables(name: str, given: Sequence[str] | None) -> list[str] | None:
    """Read the names of tables.

    :param name: the option.
    :param given: what was given each time.
    :return: the names, or ``None`` for all tables.
    :raises UsageError: if there is none, or one is there twice.
    """
    names = words(given)
    return None if names is None else validators.tables(name, names)


@reading()
def window(start_at: str, end_at: str) -> tuple[datetime, datetime]:
    """Read the window of a backfill.

    :param start_at: where it begins.
    :param end_at: where it ends.
    :return: both, in UTC.
    :raises UsageError: if one is no time, or it ends before it begins.
    """
    return validators.window(start_at, end_at, ("--start-at", "--end-at"))


@reading()
def moment(name: str, given: str | None) -> datetime | None:
    """Read a time.

    :param name: the option.
    :param given: what was given.
    :return: the time in UTC, or ``None`` where nothing was given.
    :raises UsageError: if it is none.
    """
    return None if given is None else validators.utc(name, given)


@reading()
def how_many(name: str, given: int) -> int:
    """Read how many things to list.

    :param name: the option.
    :param given: what was given.
    :return: the same.
    :raises UsageError: if it is not above 0.
    """
    if given < 1:
        raise invalid_parameter(name, given, "a whole number from 1")
    return given


def secret(name: str, path: str | None) -> SecretStr | None:
    """Read a secret from where it can be read, which is not the command line: others see that in the list of processes.

    :param name: the option.
    :param path: a file, or ``-`` for stdin.
    :return: the secret, without the line break at its end; or ``None`` where nothing was given.
    :raises UsageError: if there is none to be read.
    """
    if path is None:
        return None
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text()
    except OSError as fault:
        raise _no_secret(name, fault.strerror or "it cannot be read") from None
    except ValueError:
        raise _no_secret(name, "it is no text") from None
    except RuntimeError:
        raise _no_secret(name, "there is no such home") from None
    if not text.strip():
        raise _no_secret(name, "there is nothing in it")
    return SecretStr(text.rstrip("\r\n"))


def _no_secret(name: str, reason: str) -> UsageError:
    # What was given is not shown: it may be the secret itself.
    return UsageError(f"{name}: allowed is a file that holds the secret, or - for stdin ({reason}).")
