"""Parses the values of options. An invalid value raises a :class:`UsageError` that names the option."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from planasonix_provider import validators
from planasonix_provider.clock import utcnow
from planasonix_provider.validators import Check, invalid_parameter


class UsageError(Exception):
    """The command line is invalid; no request was sent."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the ``ValueError`` of a validator into a :class:`UsageError`. Use it only where arguments are parsed."""
    try:
        yield
    except ValueError as refusal:
        raise UsageError(str(refusal)) from None


@usage_errors()
def check_argument(check: Check, name: str, given: Any) -> Any:
    """Return a value after a check of :mod:`planasonix_provider.validators`."""
    return check(name, given)


@usage_errors()
def metadata(name: str, given: Sequence[str] | None) -> dict[str, Any] | None:
    """Merge values that are ``KEY=VALUE`` or JSON objects; the last value of a key wins."""
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
        # Invalid JSON, or a number too long or nesting too deep for Python.
        raise invalid_parameter(name, text, "KEY=VALUE, or a JSON object") from None
    return validators.metadata(name, given)


def _pair(name: str, text: str) -> dict[str, Any]:
    key, mark, value = text.partition("=")
    if not key.strip() or not mark:
        raise invalid_parameter(name, text, "KEY=VALUE, or a JSON object")
    return {key.strip(): value}


def split_list(given: Sequence[str] | None) -> list[str] | None:
    """Split the values of a repeatable option at commas."""
    if given is None:
        return None
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


@usage_errors()
def tables(name: str, given: Sequence[str] | None) -> list[str] | None:
    """Parse table names; ``None`` means all tables."""
    names = split_list(given)
    return None if names is None else validators.tables(name, names)


@usage_errors()
def window(start_at: str, end_at: str) -> tuple[datetime, datetime]:
    """Parse the window of a backfill, in UTC."""
    return validators.window(start_at, end_at, ("--start-at", "--end-at"))


@usage_errors()
def parse_time(name: str, given: str | None) -> datetime | None:
    """Parse an ISO 8601 time, or an age such as ``24h``. The result is in UTC."""
    if given is None:
        return None
    return validators.utc_or_age(name, given, utcnow())


@usage_errors()
def limit(name: str, given: int) -> int:
    """Validate a ``--limit``."""
    if given < 1:
        raise invalid_parameter(name, given, "a whole number from 1")
    return given


def secret(name: str, path: str | None) -> SecretStr | None:
    """Read a secret from a file, or from stdin for ``-``. Command lines are visible in the list of processes."""
    if path is None:
        return None
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text()
    except OSError as fault:
        raise _unreadable_secret(name, fault.strerror or "it cannot be read") from None
    except ValueError:
        raise _unreadable_secret(name, "it is not a text file") from None
    except RuntimeError:
        raise _unreadable_secret(name, "there is no such home directory") from None
    if not text.strip():
        raise _unreadable_secret(name, "it is empty")
    return SecretStr(text.rstrip("\r\n"))


def _unreadable_secret(name: str, reason: str) -> UsageError:
    # The value is not shown, because it may be the secret itself.
    return UsageError(f"{name}: allowed is a file that contains the secret, or - for stdin ({reason}).")
