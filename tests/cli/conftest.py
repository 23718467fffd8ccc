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
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1]


Run = Callable[..., Ran]

#: The window of a backfill.
WINDOW = ("--start-at", "2025-01-01", "--end-at", "2025-03-01")
#: Options of a wait whose result a test reads.
QUICK_WAIT = ("--wait", "--poll-interval", "0.03", "-o", "json")


@pytest.fixture(autouse=True)
def _no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries have no delay here; other tests check the delays."""
    monkeypatch.setattr(runner, "INTERACTIVE_RETRY", replace(runner.INTERACTIVE_RETRY, uniform=lambda low, high: 0.0))
    monkeypatch.setattr(shared_client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture(autouse=True)
def _frequent_cancel_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled jobs are polled often, because the simulator's jobs are short."""
    monkeypatch.setattr(cancellation, "CANCEL_POLL_INTERVAL_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def _process_state_is_restored() -> Iterator[None]:
    """Checks that a command restores the state of the process."""
    before = _process_state()
    yield
    assert _process_state() == before


def _process_state() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return [handlers, logging.getLogger("planasonix_provider").level, os.environ.get("_AIRFLOW_PROCESS_CONTEXT")]


@pytest.fixture
def shell(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command without a terminal."""

    def run(*arguments: str) -> Ran:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


#: The threads that wait for requests in one test, and a message for each wait that failed.
_watchers: list[threading.Thread] = []
_failed_waits: list[str] = []
_is_over = threading.Event()


@pytest.fixture(autouse=True)
def _end_watchers() -> Iterator[None]:
    """Ends the waiting threads with their test, and fails if one has waited in vain."""
    _is_over.clear()
    yield
    _is_over.set()
    while _watchers:
        _watchers.pop().join()
    missed = _failed_waits.copy()
    _failed_waits.clear()
    assert not missed


def call_on_request(simulator: Simulator, route: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Call a function in a thread as soon as a route has been requested this many times."""

    def watch() -> None:
        while [request.route for request in simulator.requests].count(route) < times:
            if _is_over.wait(0.005):
                _failed_waits.append(f"{route} was not requested {times} times")
                return
        act()

    thread = threading.Thread(target=watch, daemon=True)
    _watchers.append(thread)
    thread.start()


def call_before_retry(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call a function once, before the first retry, in the thread of the command."""
    left = [act]

    def draw(low: float, high: float) -> float:
        if left:
            left.pop()()
        return 0.0

    monkeypatch.setattr(runner, "INTERACTIVE_RETRY", replace(runner.INTERACTIVE_RETRY, uniform=draw))


@pytest.fixture
def end_all_jobs(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that moves Planasonix's clock forward by an hour."""
    now = simulator.workspace.clock
    return lambda: monkeypatch.setattr(simulator.workspace, "clock", lambda: now() + timedelta(hours=1))


def press(number: int = signal.SIGINT) -> None:
    """Send a signal to this process, by default that of Ctrl-C."""
    os.kill(os.getpid(), number)


class Terminal:
    """A terminal with a user who reads the output and answers.

    :param answers: pairs of a text to wait for, and the input to type or the function to call then.
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
        """Close the terminal."""
        self.stdin.close()
        self.stderr.close()
        self._reader.join(60)
        os.close(self._master)


@pytest.fixture
def at_a_terminal(
    simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Runs a command at a terminal; stdout is redirected, as in a pipe."""
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
