"""Ctrl-C and SIGTERM, at moments when they do no harm."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from planasonix_provider.cli.exit_codes import SIGNALLED


class Interrupted(KeyboardInterrupt):
    """Somebody wants the command to end.

    :param number: the signal.
    :param amid: whether that was amid something of which nobody knows now whether it was done.
    :param says: what there is to say of it.
    """

    def __init__(self, number: int, *, amid: bool = False, says: str = "Interrupted.") -> None:
        super().__init__(number)
        self.number = number
        self.amid = amid
        self.says = says

    @property
    def code(self) -> int:
        """The exit code."""
        return SIGNALLED + self.number


class SignalHandler:
    """Turns the signals into :class:`Interrupted`, and holds one back where it would lose what has been started.

    :param warn: tells the person at the keyboard that they were heard.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._holds = self._is_whole = False
        self._held: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self, until: str, *, whole: bool = False) -> Iterator[None]:
        """Hold the first signal back during a block; a second one is let through.

        :param until: what is being waited for.
        :param whole: whether nothing in the block lets it through, either: not even what waits for another try.
        """
        self._holds, self._is_whole, self._until = True, whole, until
        try:
            yield
        finally:
            self._holds = self._is_whole = False

    def check(self) -> None:
        """Let through what was held back: at a moment when nothing is under way.

        :raises Interrupted: if something was.
        """
        if self._held is not None and not self._is_whole:
            number, self._held = self._held, None
            raise Interrupted(number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holds and self._held is None:
            self._held = number
            self._warn(f"Interrupted: ending once {self._until}. Once more ends at once.")
            return
        self._held = None
        raise Interrupted(number, amid=self._holds)
