from __future__ import annotations

import json
import logging
import os
import pty
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from planasonix_provider.__main__ import main
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.cli import runner
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting import cancellation, shared_client


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last_words(self) -> str:
        return self.err.splitlines()[-1]


Run = Callable[..., Ran]

#: The window of a backfill.
WINDOW = ("--start-at", "2025-01-01", "--end-at", "2025-03-01")
#: Options of a wait whose result a test reads.
QUICKLY = ("--wait", "--poll-interval", "0.03", "-o", "json")


@pytest.fixture(autouse=True)
def _no_time_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long to wait between two tries is tested where it is decided; here it would only be slept away."""
    monkeypatch.setattr(runner, "INTERACTIVE_RETRY", replace(runner.INTERACTIVE_RETRY, uniform=lambda low, high: 0.0))
    monkeypatch.setattr(shared_client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _a_quick_pursuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's jobs are quick, too."""
    monkeypatch.setattr(cancellation, "CANCEL_POLL_INTERVAL_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """A command gives back what it has taken of the process."""
    before = _of_the_process()
    yield
    assert _of_the_process() == before


def _of_the_process() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return [handlers, logging.getLogger("planasonix_provider").level, os.environ.get("_AIRFLOW_PROCESS_CONTEXT")]


@pytest.fixture
def shell(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command, where nobody sits at a terminal."""

    def run(*arguments: str) -> Ran:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


#: Those who wait for something to happen, during one test, and what did not.
_watchers: list[threading.Thread] = []
_in_vain: list[str] = []
_is_over = threading.Event()


@pytest.fixture(autouse=True)
def _nobody_watches_in_vain() -> Iterator[None]:
    """Whoever waited for what did not happen does nothing any more, least of all to the next test."""
    _is_over.clear()
    yield
    _is_over.set()
    while _watchers:
        _watchers.pop().join()
    missed = _in_vain.copy()
    _in_vain.clear()
    assert not missed


def when(simulator: Simulator, route: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Do something the moment that a route has been asked for so many times."""

    def watch() -> None:
        while [request.route for request in simulator.requests].count(route) < times:
            if _is_over.wait(0.005):
                _in_vain.append(f"{route} was not asked for {times} times")
                return
        act()

    thread = threading.Thread(target=watch, daemon=True)
    _watchers.append(thread)
    thread.start()


def between_two_tries(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something, once, where the first request that fails is to be tried again: in the command's own thread."""
    left = [act]

    def draw(low: float, high: float) -> float:
        if left:
            left.pop()()
        return 0.0

    monkeypatch.setattr(runner, "INTERACTIVE_RETRY", replace(runner.INTERACTIVE_RETRY, uniform=draw))


@pytest.fixture
def end_all_jobs(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets an hour pass for Planasonix, when it is called."""
    now = simulator.workspace.clock
    return lambda: monkeypatch.setattr(simulator.workspace, "clock", lambda: now() + timedelta(hours=1))


def press(number: int = signal.SIGINT) -> None:
    """Press Ctrl-C, or send another signal to whoever runs."""
    os.kill(os.getpid(), number)


class Terminal:
    """Somebody sits there: sees what is said, and answers.

    :param answers: each a text that is waited for, and what is done when it is there.
    """

    def __init__(self, *answers: tuple[str, Callable[[], object] | str]) -> None:
        self._answers = list(answers)
        self._seen = 0
        self.shown = ""
        self._master, slave = pty.openpty()
        self.stdin = os.fdopen(os.dup(slave))
        self.stderr = os.fdopen(slave, "w")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._master, 4096):
                self.shown += piece.decode(errors="replace")
                self._answer()
        except OSError:
            return

    def _answer(self) -> None:
        while self._answers and (found := self.shown.find(self._answers[0][0], self._seen)) >= 0:
            text, answer = self._answers.pop(0)
            self._seen = found + len(text)
            if isinstance(answer, str):
                os.write(self._master, answer.encode())
            else:
                answer()

    def close(self) -> None:
        """Stand up."""
        self.stdin.close()
        self.stderr.close()
        self._reader.join(60)
        os.close(self._master)


@pytest.fixture
def at_a_terminal(
    simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Types a command at a terminal; stdout leads elsewhere, as in a pipe."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, answers: tuple[tuple[str, Callable[[], object] | str], ...] = ()) -> Ran:
        terminal = Terminal(*answers)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", terminal.stdin)
            patch.setattr(sys, "stderr", terminal.stderr)
            code = main(arguments)
        terminal.close()
        return Ran(code, capsys.readouterr().out, terminal.shown)

    return run
