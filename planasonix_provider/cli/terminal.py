"""Output for a person, on stderr: lines, a progress bar, a confirmation. Results go to stdout."""

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
from planasonix_provider.cli.signals import wait_for_input
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.targets import Snapshot, WaitTarget


def escape_control_chars(text: str) -> str:
    """Replace characters that would control the terminal: the text may come from anywhere."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text)


def redirect_to_devnull(stream: TextIO) -> None:
    """Redirect a stream whose reader is gone. Otherwise Python reports the broken pipe again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _StderrConsole(Console):
    """A console that ignores a broken pipe, so that the command still finishes."""

    def on_broken_pipe(self) -> None:
        redirect_to_devnull(sys.stderr)


class Terminal:
    """The stderr of this process."""

    def __init__(self) -> None:
        self._console = _StderrConsole(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar: Progress | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether stderr is a terminal that can show a progress bar."""
        return sys.stderr.isatty() and not self._console.is_dumb_terminal

    @property
    def can_confirm(self) -> bool:
        """Whether a person can answer a question."""
        return sys.stderr.isatty() and sys.stdin.isatty()

    def print(self, line: str) -> None:
        """Write a line."""
        self._write(line)

    def warn(self, line: str) -> None:
        """Write a warning."""
        self._write(line, "yellow")

    def print_error(self, line: str) -> None:
        """Write an error, in one line."""
        self._write(" ".join(line.split()), "red")

    def _write(self, line: str, style: str | None = None) -> None:
        # No line breaks at the width of the terminal, so that a search finds the message.
        self._console.print(escape_control_chars(line), style=style, soft_wrap=True)

    def confirm(self, question: str) -> bool:
        """Ask a question and return whether the answer is yes; any other answer is no."""
        if self._bar:
            self._bar.stop()
        # input() would write the question to stdout.
        self._console.print(f"{escape_control_chars(question)} ", end="", soft_wrap=True)
        answer = ""
        try:
            wait_for_input(sys.stdin)
            answer = sys.stdin.readline()
        finally:
            if not answer:
                self._console.print()
        if self._bar:
            self._bar.start()
        return answer.strip().lower() in ("y", "yes")

    @contextmanager
    def progress_bar(self, target: WaitTarget) -> Iterator[ProgressBar]:
        """Show a progress bar during a block if stderr is a terminal."""
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            # A redirected stderr would no longer be a terminal for isatty().
            redirect_stdout=False,
            redirect_stderr=False,
        )
        if not self.is_terminal:
            yield ProgressBar(progress, target)
            return
        with progress:
            self._bar = progress
            try:
                yield ProgressBar(progress, target, is_shown=True)
            finally:
                self._bar = None


class ProgressBar:
    """The progress of a job or a backfill; invisible without a terminal."""

    def __init__(self, progress: Progress, target: WaitTarget, *, is_shown: bool = False) -> None:
        self.is_shown = is_shown
        self._progress = progress
        # Without the id, which the lines above show: there is no room for it.
        self._task = progress.add_task(capitalize(target.kind), total=None, figures="")

    def update(self, seen: Snapshot) -> None:
        """Show a snapshot. Only backfills have a percentage."""
        percent = seen.work.progress_percent if isinstance(seen.work, Backfill) else None
        self._progress.update(
            self._task,
            description=escape_control_chars(seen.status),
            figures=escape_control_chars(", ".join(seen.progress)),
            total=None if percent is None else 100,
            completed=percent,
        )

    def show_outage(self) -> None:
        """Show that the API does not answer."""
        self._progress.update(self._task, description="no answer")


class TerminalLogHandler(logging.Handler):
    """Shows log messages of this package from INFO on, and of other packages from WARNING on."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message of a record."""
        is_ours = record.name.partition(".")[0] == "planasonix_provider"
        if record.levelno >= logging.WARNING:
            self._terminal.warn(record.getMessage())
        elif is_ours and record.levelno >= logging.INFO:
            self._terminal.print(record.getMessage())


@contextmanager
def log_to(terminal: Terminal) -> Iterator[None]:
    """Send log messages to the terminal during a block, because Airflow's handlers may write to stdout."""
    root, ours = logging.getLogger(), logging.getLogger("planasonix_provider")
    handlers, level = root.handlers, ours.level
    root.handlers = [TerminalLogHandler(terminal)]
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = handlers
        ours.setLevel(level)
