"""What is said to whoever sits there, on stderr: lines, a progress bar, a question. Answers go elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from planasonix_provider.api.models import Backfill
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.targets import Snapshot, WaitTarget


def escape_control_chars(text: str) -> str:
    """Take out of a text what would steer the terminal, for it may come from anywhere.

    :param text: what is to be shown.
    :return: the same, with a mark in the place of each such character.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text)


def redirect_to_devnull(stream: TextIO) -> None:
    """Let a stream that nobody reads any more swallow the rest: Python would complain once more when it ends.

    :param stream: stdout or stderr.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Console(Console):
    """Goes on where nobody reads any more: what was asked for is done all the same."""

    def on_broken_pipe(self) -> None:
        redirect_to_devnull(sys.stderr)


class Terminal:
    """The stderr of this process."""

    def __init__(self) -> None:
        self._console = _Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar: Progress | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody may be looking."""
        return sys.stderr.isatty() and not self._console.is_dumb_terminal

    @property
    def can_ask(self) -> bool:
        """Whether somebody can be asked."""
        return sys.stderr.isatty() and sys.stdin.isatty()

    def say(self, line: str) -> None:
        """Write a line."""
        self._write(line)

    def warn(self, line: str) -> None:
        """Write a line that deserves attention."""
        self._write(line, "yellow")

    def complain(self, line: str) -> None:
        """Write why the command did not do what was asked, in one line whatever it says."""
        self._write(" ".join(line.split()), "red")

    def _write(self, line: str, style: str | None = None) -> None:
        # A line that is cut in two by the width of a terminal is found by no search.
        self._console.print(escape_control_chars(line), style=style, soft_wrap=True)

    def ask(self, question: str) -> bool:
        """Ask what is answered by yes or no; no is what is meant by anything else.

        :param question: the question, with what can be answered.
        :return: whether the answer was yes.
        """
        if self._bar:
            self._bar.stop()
        # Not by input(), which writes its question to stdout.
        self._console.print(f"{escape_control_chars(question)} ", end="", soft_wrap=True)
        answer = ""
        try:
            answer = sys.stdin.readline()
        finally:
            if not answer:
                self._console.print()
        if self._bar:
            self._bar.start()
        return answer.strip().lower() in ("y", "yes")

    @contextmanager
    def bar(self, subject: WaitTarget) -> Iterator[ProgressBar]:
        """Show a bar on a terminal, and nothing elsewhere, for as long as a block runs.

        :param subject: what is being waited for.
        :return: what moves the bar.
        """
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            # What stands in the place of a redirected stderr says that it is no terminal.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        if not self.is_terminal:
            yield ProgressBar(progress, subject)
            return
        with progress:
            self._bar = progress
            try:
                yield ProgressBar(progress, subject, is_shown=True)
            finally:
                self._bar = None


class ProgressBar:
    """How far something has come that is being waited for.

    :param progress: shows it.
    :param subject: what it is.
    :param is_shown: whether there is a bar to be seen.
    """

    def __init__(self, progress: Progress, subject: WaitTarget, *, is_shown: bool = False) -> None:
        self.is_shown = is_shown
        self._progress = progress
        # The id stands in the lines above; beside it there would be no room for anything else.
        self._task = progress.add_task(capitalize(subject.kind), total=None, figures="")

    def show(self, seen: Snapshot) -> None:
        """Show what a look has brought.

        :param seen: what it was. Only a backfill says how much of it is done.
        """
        percent = seen.work.progress_percent if isinstance(seen.work, Backfill) else None
        self._progress.update(
            self._task,
            description=escape_control_chars(seen.status),
            figures=escape_control_chars(", ".join(seen.progress)),
            total=None if percent is None else 100,
            completed=percent,
        )

    def lose(self) -> None:
        """Show that there is no news."""
        self._progress.update(self._task, description="no answer")


class TerminalLogHandler(logging.Handler):
    """Shows what the package logs, as the tries of a request, and of others what deserves attention.

    :param screen: where.
    """

    def __init__(self, screen: Terminal) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line.

        :param record: what was logged.
        """
        is_ours = record.name.partition(".")[0] == "planasonix_provider"
        if record.levelno >= logging.WARNING:
            self._screen.warn(record.getMessage())
        elif is_ours and record.levelno >= logging.INFO:
            self._screen.say(record.getMessage())


@contextmanager
def log_on(screen: Terminal) -> Iterator[None]:
    """Let all that is logged during a block go to the screen: Airflow's own handlers may write to stdout.

    :param screen: where.
    """
    root, ours = logging.getLogger(), logging.getLogger("planasonix_provider")
    handlers, level = root.handlers, ours.level
    root.handlers = [TerminalLogHandler(screen)]
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = handlers
        ours.setLevel(level)
