"""The components of Airflow: the two ways in which one ends, and what one takes."""

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
    """Let it stand still, as on a machine that is paused, until it is thawed."""
    for process in _processes(airflow, component):
        process.suspend()


def resume(airflow: LocalAirflow, component: str) -> None:
    for process in _processes(airflow, component):
        process.resume()


@contextmanager
def another(airflow: LocalAirflow, component: str) -> Iterator[str]:
    """Run one more of a component, under a name of its own; the first one serves the logs of both."""
    name = f"another-{component}"
    command = [airflow.python, "-m", "airflow", component, "--skip-serve-logs"]
    airflow.processes[name] = start(command, airflow.env, airflow.log(name))
    try:
        yield name
    finally:
        end(airflow.processes.pop(name))


def cpu_seconds(airflow: LocalAirflow, component: str) -> float:
    """How long its processes have computed; those that have ended are not counted."""
    return sum(sum(process.cpu_times()[:2]) for process in _processes(airflow, component))


def megabytes(airflow: LocalAirflow, component: str) -> float:
    """How much memory its processes hold; what some of them share is counted for each."""
    return sum(process.memory_info().rss for process in _processes(airflow, component)) / 2**20


def _processes(airflow: LocalAirflow, component: str) -> Iterator[psutil.Process]:
    for process in in_session(airflow.processes[component].pid):
        with suppress(psutil.NoSuchProcess):
            yield process
