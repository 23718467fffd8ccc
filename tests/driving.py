"""Runs one task as Airflow would, in process: execute, defer, trigger, resume; or execute, again and again.

What crosses between processes in a real Airflow (the trigger's arguments, the event) crosses here as JSON, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, TaskDeferred
from airflow.triggers.base import BaseTrigger
from packaging.version import Version

#: Whether a task can leave a note for the process that goes on with it.
HAS_NOTES = Version(version("apache-airflow")) >= Version("3.3")
#: Airflow's own module of sensors.
SENSORS: Any = sys.modules[BaseSensorOperator.__module__]


@dataclass
class Log:
    """A logger that keeps its lines."""

    lines: list[str] = field(default_factory=list)

    def _write(self, line: str, *values: object, **_: object) -> None:
        # Airflow's own remark on being called from a test.
        if "cannot be called outside" not in line:
            self.lines.append(line % values if values else line)

    debug = info = warning = error = exception = _write


@dataclass
class Run:
    """What came of a task."""

    result: Any = None
    error: BaseException | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    deferred: TaskDeferred | None = None
    pokes: list[datetime] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    trigger_arguments: dict[str, Any] | None = None
    event: Any = None

    @property
    def said(self) -> str:
        """All that a person could read of the run, in one text."""
        return json.dumps(
            [self.log.lines, self.result, repr(self.error), self.xcoms, self.trigger_arguments, self.event],
            default=repr,
        )


def record(logging: Any, log: Log) -> None:
    """Let an operator or a trigger write to a log of the test's."""
    logging._log = logging._cached_logger = log


def context(run: Run, *, try_number: int = 1, map_index: int = -1) -> dict[str, Any]:
    """The part of Airflow's context that a task of ours uses."""
    ti = SimpleNamespace(
        dag_id="nightly",
        task_id="load",
        run_id="scheduled__2025-03-27T02:00:00+00:00",
        try_number=try_number,
        map_index=map_index,
        max_tries=0,
        xcom_push=lambda key, value: run.xcoms.__setitem__(key, value),
    )
    if not hasattr(SENSORS, "_orig_start_date"):
        ti.get_first_reschedule_date = lambda _: run.pokes[0]
    if HAS_NOTES:
        notes = SimpleNamespace(get=run.notes.get, set=run.notes.__setitem__, delete=run.notes.pop)
        return {"ti": ti, "task_state_store": notes}
    return {"ti": ti}


def rebuilt(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as the triggerer makes it, from what was stored."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    made: BaseTrigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
    return made


async def first_event(trigger: BaseTrigger) -> Any:
    """The payload of the event that ends a trigger, as it reaches the task."""
    async for event in trigger.run():
        return json.loads(json.dumps(event.payload))
    raise AssertionError("the trigger ended without an event")


def drive(make: Callable[[], BaseOperator], **ti: int) -> Run:
    """Run a task to its end.

    :param make: makes the operator; called again for the resume, which is another process in a real Airflow.
    :param ti: fields of the task instance.
    """
    run = Run()
    try:
        try:
            run.result = _execute(make, run, ti)
        except TaskDeferred as deferred:
            run.deferred = deferred
            trigger = rebuilt(deferred.trigger)
            record(trigger, run.log)
            run.trigger_arguments = trigger.serialize()[1]
            run.event = asyncio.run(first_event(trigger))
            operator = make()
            record(operator, run.log)
            run.result = operator.resume_execution(
                deferred.method_name, {**(deferred.kwargs or {}), "event": run.event}, context(run, **ti)
            )
    except Exception as error:
        run.error = error
    return run


def _execute(make: Callable[[], BaseOperator], run: Run, ti: dict[str, int]) -> Any:
    """Execute a task; one that is rescheduled is another process each time, with an empty memory."""
    with pytest.MonkeyPatch.context() as patch:
        _tell_when_it_was_poked_first(run, patch)
        while True:
            operator = make()
            record(operator, run.log)
            run.pokes.append(datetime.now(UTC))
            try:
                return operator.execute(context(run, **ti))
            except Exception as end:
                if type(end).__name__ != "AirflowRescheduleException":
                    raise
                run.xcoms.clear()
                pause = end.reschedule_date - datetime.now(UTC)  # type: ignore[attr-defined]
                SENSORS.time.sleep(pause.total_seconds())


def _tell_when_it_was_poked_first(run: Run, patch: pytest.MonkeyPatch) -> None:
    """Stand in for the database that Airflow keeps the times of a rescheduled task in."""
    if hasattr(SENSORS, "_orig_start_date"):
        patch.setattr(SENSORS, "_orig_start_date", lambda **_: run.pokes[0])
