"""Kill, end, suspend and measure the components of Airflow."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from dev.local_airflow import LocalAirflow
from dev.processes import end, in_session, start


def kill_process_tree(airflow: LocalAirflow, component: str) -> None:
    for process in in_session(airflow.processes[component].pid):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def terminate(airflow: LocalAirflow, component: str) -> None:
    end(airflow.processes[component], patience=60)


def freeze(airflow: LocalAirflow, component: str) -> None:
    """Suspend all processes of a component until :func:`resume`, like a paused machine."""
    for process in _processes(airflow, component):
        process.suspend()


def resume(airflow: LocalAirflow, component: str) -> None:
    for process in _processes(airflow, component):
        process.resume()


@contextmanager
def second_process(airflow: LocalAirflow, component: str) -> Iterator[str]:
    """Run a second process of a component, and yield its name. The first one serves the logs of both."""
    name = f"another-{component}"
    command = [airflow.python, "-m", "airflow", component, "--skip-serve-logs"]
    airflow.processes[name] = start(command, airflow.env, airflow.log(name))
    try:
        yield name
    finally:
        end(airflow.processes.pop(name))


def cpu_seconds(airflow: LocalAirflow, component: str) -> float:
    """Return the CPU seconds of the running processes of a component."""
    return sum(sum(process.cpu_times()[:2]) for process in _processes(airflow, component))


def megabytes(airflow: LocalAirflow, component: str) -> float:
    """Return the memory of the processes of a component. Shared memory counts once for each process."""
    return sum(process.memory_info().rss for process in _processes(airflow, component)) / 2**20


def _processes(airflow: LocalAirflow, component: str) -> Iterator[psutil.Process]:
    for process in in_session(airflow.processes[component].pid):
        with suppress(psutil.NoSuchProcess):
            yield process
