"""Errors in the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """The command line is invalid; no request was sent."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the ``ValueError`` of a validator into a :class:`UsageError`. Use it only where arguments are parsed."""
    try:
        yield
    except ValueError as refusal:
        raise UsageError(str(refusal)) from None
