"""Runs one task in a test, and returns its log and its error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger
from packaging.version import Version

from planasonix_provider import state_store
from planasonix_provider.testing import task_run
from planasonix_provider.testing.task_run import TaskRun, deserialize_trigger, first_event

__all__ = [
    "HAS_NOTES",
    "Log",
    "Run",
    "context",
    "deserialize_trigger",
    "drive",
    "first_event",
    "no_variables",
    "record",
]

#: Whether tasks have a state store.
HAS_NOTES = Version(version("apache-airflow")) >= Version("3.3")


@dataclass
class Log:
    """A logger that stores its lines."""

    lines: list[str] = field(default_factory=list)
    #: The subset of the lines that are warnings.
    warnings: list[str] = field(default_factory=list)
    debug_lines: list[str] = field(default_factory=list)

    def _write(self, line: str, *values: object, **_: object) -> None:
        # Airflow logs this because a test calls it.
        if "cannot be called outside" not in line:
            self.lines.append(line % values if values else line)

    info = error = exception = _write

    def debug(self, line: str, *values: object, **_: object) -> None:
        self.debug_lines.append(line % values if values else line)

    def warning(self, line: str, *values: object, **options: object) -> None:
        before = len(self.lines)
        self._write(line, *values, **options)
        self.warnings += self.lines[before:]


@dataclass
class Run(TaskRun):
    """The result, the error and the log of a task."""

    error: BaseException | None = None
    log: Log = field(default_factory=Log)
    trigger_arguments: dict[str, Any] | None = None

    @property
    def said(self) -> str:
        """All text of the run that a user could read."""
        return json.dumps(
            [self.log.lines, self.result, repr(self.error), self.xcoms, self.trigger_arguments, self.event],
            default=repr,
        )


def record(logging: Any, log: Log) -> None:
    """Make an operator or a trigger write to this log."""
    logging._log = logging._cached_logger = log


def context(
    run: Run,
    *,
    try_number: int = 1,
    map_index: int = -1,
    max_tries: int = 2,
    retries: int = 2,
    clear_number: int = 0,
    dag_version: int | None = None,
) -> dict[str, Any]:
    """Return the part of Airflow's context that the provider uses."""
    made = task_run.new_context(
        run, dag_id="nightly", task_id="load", try_number=try_number, map_index=map_index, max_tries=max_tries
    )
    if dag_version is not None:
        made["ti"].dag_version_id = UUID(int=dag_version)
    if not HAS_NOTES:
        del made["task_state_store"]
    return made | {"task": SimpleNamespace(retries=retries), "dag_run": SimpleNamespace(clear_number=clear_number)}


def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace Airflow's variables, the state store before Airflow 3.3, by an empty store in memory."""
    kept: dict[str, str] = {}
    fake = SimpleNamespace(
        get=lambda name, default: kept.get(name, default),
        set=lambda name, value, description: kept.__setitem__(name, value),
        delete=lambda name: kept.pop(name, None),
    )
    monkeypatch.setattr(state_store, "variable_class", lambda: fake)


def drive(make: Callable[[], BaseOperator], notes: dict[str, Any] | None = None, **ti: int) -> Run:
    """Run a task to its end.

    :param make: makes the operator; called again for the resume, which is another process in a real Airflow.
    :param notes: the content of Airflow's state store after earlier tries.
    :param ti: fields of the task instance.
    """
    run = Run(notes={} if notes is None else notes)

    def watch(worker: Any) -> None:
        record(worker, run.log)
        if isinstance(worker, BaseTrigger):
            run.trigger_arguments = worker.serialize()[1]

    try:
        task_run.run_with_resumes(make, run, partial(context, run, **ti), watch)
    except Exception as error:
        run.error = error
    return run
