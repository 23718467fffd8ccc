"""Start and end the processes of an Airflow, and build their environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

ROOT = Path(__file__).parent.parent
EXAMPLE_DAGS = ROOT / "example_dags"
EXAMPLE_PLUGINS = ROOT / "example_plugins"


def airflow_environment(home: Path, dags: Path) -> dict[str, str]:
    """Return this process's environment with a separate Airflow in place of the user's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        # No telemetry, and no DNS query for the host name.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    }


def start(command: Sequence[str | Path], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a new session, which Ctrl-C does not reach. :func:`end` ends the whole session."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def end(*processes: subprocess.Popen[bytes], patience: float = 10) -> None:
    """End processes and all that they started: with SIGTERM, and after at most ``patience`` seconds with SIGKILL."""
    deadline = time.monotonic() + patience
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
    finally:  # a second Ctrl-C interrupts the wait
        stragglers = [straggler for process in processes for straggler in in_session(process.pid)]
        for straggler in stragglers:
            with suppress(psutil.NoSuchProcess):
                straggler.kill()
        psutil.wait_procs(stragglers, timeout=5)
        for process in processes:
            process.wait()


def in_session(session: int) -> list[psutil.Process]:
    """List the processes of a session, including orphans and children in other process groups."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == session:
                found.append(psutil.Process(pid))
    return found


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether a port is free."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def tail(log: Path, lines: int = 40) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def end_on_sigterm() -> None:
    """Make SIGTERM raise ``SystemExit``, so that ``finally`` blocks run."""

    def leave(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
