"""What was typed and makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """The command line makes no sense: nothing was asked of Planasonix."""


@contextmanager
def reading() -> Iterator[None]:
    """Take what a check refuses during a block, or a function, for misuse; around nothing but the reading of arguments.

    :raises UsageError: if a check refuses something.
    """
    try:
        yield
    except ValueError as refusal:
        raise UsageError(str(refusal)) from None
