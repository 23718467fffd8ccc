"""Ctrl-C and SIGTERM, deferred while they would lose the id of something that was started."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TextIO

from planasonix_provider.cli.exit_codes import EXIT_SIGNAL


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    :param number: the signal.
    :param in_flight: whether it interrupted a request whose effect is now unknown.
    :param message: the message for the user.
    """

    def __init__(self, number: int, *, in_flight: bool = False, message: str = "Interrupted.") -> None:
        super().__init__(number)
        self.number = number
        self.in_flight = in_flight
        self.message = message

    @property
    def code(self) -> int:
        """The exit code."""
        return EXIT_SIGNAL + self.number


class SignalHandler:
    """Raises :class:`Interrupted` for signals, and defers the first one inside of :meth:`deferred`."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._is_deferring = self._is_uninterruptible = False
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self, until: str, *, uninterruptible: bool = False) -> Iterator[None]:
        """Defer the first signal during a block; a second one interrupts.

        :param until: the end of the message to the user, a clause such as ``the secret is stored``.
        :param uninterruptible: whether :meth:`check` raises nothing inside of the block, as between two tries.
        """
        self._is_deferring, self._is_uninterruptible, self._until = True, uninterruptible, until
        try:
            yield
        finally:
            self._is_deferring = self._is_uninterruptible = False

    def check(self) -> None:
        """Raise the deferred signal, if any. Called when no request is in flight."""
        if self._pending is not None and not self._is_uninterruptible:
            number, self._pending = self._pending, None
            raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferring and self._pending is None:
            self._pending = number
            self._warn(f"Interrupted: the command ends when {self._until}. A second interrupt ends it at once.")
            return
        self._pending = None
        raise Interrupted(number, in_flight=self._is_deferring)


def wait_for_input(file: TextIO) -> None:
    """Wait until a file can be read. A signal ends the wait, even if it arrives just before the wait begins.

    A plain read would miss such a signal, because Python runs the handler after the read.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        select.select([file.fileno(), reader], [], [])
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
