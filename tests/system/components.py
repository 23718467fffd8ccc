"""The two ways in which a component of Airflow ends."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from dev.local_airflow import LocalAirflow
from dev.processes import end, in_session


def kill_with_all_its_children(airflow: LocalAirflow, component: str) -> None:
    for process in in_session(airflow.processes[component].pid):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def end_politely(airflow: LocalAirflow, component: str) -> None:
    end(airflow.processes[component], patience=60)
