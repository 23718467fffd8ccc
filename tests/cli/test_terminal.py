from __future__ import annotations

import os
import subprocess
import sys

import pytest

from planasonix_provider.cli.loading import loading_status
from planasonix_provider.simulator import Simulator
from tests.cli.conftest import Run
from tests.support.scenarios import CONNECTION

#: Runs a command in a new terminal, and forwards its input and output.
SPAWN = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize(("term", "is_shown"), [("xterm", True), ("dumb", False)])
def test_a_status_line_shows_that_airflow_is_loaded(
    simulator: Simulator, at_a_terminal: Run, monkeypatch: pytest.MonkeyPatch, term: str, is_shown: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    ran = at_a_terminal("ping", "-o", "json")
    assert (ran.code, ran.json["works"]) == (0, True)
    assert ("Loading Airflow" in ran.err, "\x1b" in ran.err) == (is_shown, is_shown)


@pytest.mark.slow("starts processes")
def test_ctrl_c_in_a_real_terminal(simulator: Simulator) -> None:
    simulator.plan(CONNECTION, queued_seconds=0, running_seconds=60)
    command = [sys.executable, "-m", "planasonix_provider", "sync", CONNECTION, "--wait", "--poll-interval", "0.5"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", SPAWN, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        for text, typed in ((b" rows loaded", b"\x03"), (b"[y/N, Ctrl-C leaves it running]", b"y\n"), (b"\x04", b"")):
            while text not in shown and (piece := os.read(process.stdout.fileno(), 4096)):
                shown += piece
            if typed:
                os.write(process.stdin.fileno(), typed)
    (job,) = simulator.jobs()
    assert process.returncode == 4, shown.decode()
    assert f"Cancel job {job.id}?" in shown.decode()
    assert job.status == "cancelled"
    assert "━" in shown.decode()


def test_no_status_is_shown_if_stderr_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with loading_status():
        pass
