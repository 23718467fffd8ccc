"""Runs one task in this process as Airflow does: execute, defer, run the trigger, resume; or execute repeatedly.

The arguments of triggers and the events are converted to JSON and back, as between Airflow's processes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseSensorOperator, TaskDeferred, XComArg

from planasonix_provider import clock

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

#: Airflow's module of sensors.
SENSORS: Any = sys.modules[BaseSensorOperator.__module__]
_XCOM_ARGS: Any = sys.modules[XComArg.__module__]
#: The XCom key of a task's return value.
RETURN_KEY = "return_value"
RUN_ID = "scheduled__2025-03-27T02:00:00+00:00"


def outlet_events() -> Any:
    """Return Airflow's own, empty accessors for the asset events of a task."""
    try:
        from airflow.sdk.execution_time.context import OutletEventAccessors
    except ImportError:
        # Airflow 2.11
        from airflow.utils.context import OutletEventAccessors
    return OutletEventAccessors()


def macros() -> Any:
    """Return Airflow's own ``macros`` for templates."""
    try:
        return import_module("airflow.sdk.execution_time.macros")
    except ImportError:
        # Airflow 2.11
        return import_module("airflow.macros")


@dataclass
class TaskRun:
    """The outcome of a task.

    :param result: the return value.
    :param xcoms: the other XComs, by key.
    :param notes: the values in Airflow's task state store, for the next try.
    :param deferred: the last deferral, or ``None``.
    :param deferrals: the number of deferrals.
    :param event: the payload of the last event of a trigger.
    :param executions: the time of each execution; a rescheduled sensor has several.
    :param outlets: the outlets for which Airflow sends an event.
    :param outlet_events: the contents of these events.
    """

    result: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    deferred: TaskDeferred | None = None
    deferrals: int = 0
    event: Any = None
    executions: list[datetime] = field(default_factory=list)
    outlets: list[Any] = field(default_factory=list)
    outlet_events: Any = field(default_factory=outlet_events)


class GivenXComs:
    """The XComs that a test gives to a task.

    :param given: by task id, what the task returns, its ``TaskRun``, or a list of these for a mapped task.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def pull(
        self, task_ids: Any = None, key: str = RETURN_KEY, *, map_indexes: Any = None, default: Any = None, **_: Any
    ) -> Any:
        """Return what Airflow's ``ti.xcom_pull`` returns for the same arguments, or raise ``LookupError``."""
        if not isinstance(task_ids, str):
            return [self.pull(task_id, key, map_indexes=map_indexes, default=default) for task_id in task_ids or ()]
        if task_ids not in self._given:
            raise LookupError(
                f"The test gives no XCom of task {task_ids!r}. Pass xcoms={{{task_ids!r}: …}} to planasonix.run, with "
                "its return value, its TaskRun, or a list of these for a mapped task."
            )
        value = self._given[task_ids]
        if not (isinstance(value, list) and value and all(isinstance(run, TaskRun) for run in value)):
            return _xcom_of(value, key, default)
        values = [_xcom_of(run, key, default) for run in value]
        if isinstance(map_indexes, int):
            return values[map_indexes]
        return [values[index] for index in map_indexes] if isinstance(map_indexes, Sequence) else values

    @contextmanager
    def resolve_xcom_args(self) -> Iterator[None]:
        """Resolve ``task.output`` to these XComs. Airflow would ask its supervisor or its database."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                _XCOM_ARGS.PlainXComArg,
                "resolve",
                lambda arg, *_, **__: self.pull(arg.operator.task_id, arg.key),
            )
            yield


def _xcom_of(run: Any, key: str, default: Any) -> Any:
    if not isinstance(run, TaskRun):
        return run if key == RETURN_KEY else default
    return run.result if key == RETURN_KEY else run.xcoms.get(key, default)


def is_mapped(task: Any) -> bool:
    """Return whether a task was made by ``expand`` or ``expand_kwargs``."""
    return hasattr(task, "_get_specified_expand_input")


def mapped_arguments(task: Any, xcoms: GivenXComs) -> list[dict[str, Any]]:
    """Return the arguments of each instance of a mapped task, in the order of their indexes."""
    with xcoms.resolve_xcom_args():

        def resolved(value: Any) -> Any:
            return value.resolve({}) if isinstance(value, XComArg) else value

        values = resolved(task._get_specified_expand_input().value)
        if not isinstance(values, Mapping):
            return [{name: resolved(value) for name, value in dict(arguments).items()} for arguments in values]
        lists = [resolved(value) for value in values.values()]
        items = [list(value.items() if isinstance(value, Mapping) else value) for value in lists]
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*items)]


def run_task(
    task: Any,
    *,
    try_number: int = 1,
    map_index: int = -1,
    xcoms: Mapping[str, Any] | None = None,
    **context: Any,
) -> TaskRun:
    """Render the templates of a task and run it to its end; see :meth:`.Planasonix.run`."""
    run, given = TaskRun(), GivenXComs(xcoms or {})
    if is_mapped(task):
        arguments = mapped_arguments(task, given)
        if not 0 <= map_index < len(arguments):
            raise ValueError(
                f"map_index: got {map_index}, and task {task.task_id!r} is mapped to {len(arguments)} instances. Pass "
                f"a map_index from 0 to {len(arguments) - 1}, or run all of them with planasonix.run_mapped(task)."
            )
        task = task.unmap(arguments[map_index])
    elif map_index != -1:
        raise ValueError(f"map_index: got {map_index}, and task {task.task_id!r} is not mapped.")

    now = datetime.now(UTC)
    dag_run = SimpleNamespace(run_id=RUN_ID, start_date=now, run_after=now, logical_date=None, conf={})

    def ours() -> dict[str, Any]:
        names = {
            "dag_id": task.dag_id,
            "task_id": task.task_id,
            "max_tries": task.retries,
            "map_index": map_index,
            "xcoms": given,
        }
        params = {
            **(task.dag.params.dump() if task.has_dag() else {}),
            **task.params.dump(),
            **context.get("params", {}),
        }
        own = new_context(run, **names, try_number=try_number)
        return own | {"dag_run": dag_run, "macros": macros()} | context | {"task": task, "params": params}

    def make() -> Any:
        rendered = copy.copy(task)
        with given.resolve_xcom_args():
            rendered.render_template_fields(ours())
        return rendered

    run_with_resumes(make, run, ours)
    return run


def run_with_resumes(
    make: Callable[[], Any],
    run: TaskRun,
    context: Callable[[], dict[str, Any]],
    watch: Callable[[Any], object] = lambda worker: None,
) -> None:
    """Run a task to its end, and record the outcome in ``run``.

    ``make`` is called again for each resume, which is another process in a real Airflow. ``watch`` receives each
    operator and each trigger before its use.
    """

    def new_operator() -> Any:
        operator = make()
        watch(operator)
        return operator

    def execute() -> Any:
        run.executions.append(datetime.now(UTC))
        operator = new_operator()
        result = operator.execute(context())
        run.outlets = operator.outlets
        return result

    def resume(deferred: TaskDeferred) -> Any:
        run.deferred = deferred
        run.deferrals += 1
        trigger = deserialize_trigger(deferred.trigger)
        trigger.task_instance = context()["ti"]
        watch(trigger)
        run.event = asyncio.run(first_event(trigger))
        # A new process starts with empty accessors.
        run.outlet_events = outlet_events()
        operator = new_operator()
        arguments = {**(deferred.kwargs or {}), "event": run.event}
        result = operator.resume_execution(deferred.method_name, arguments, context())
        run.outlets = operator.outlets
        return result

    go_on: Callable[[], Any] = partial(_repeat_reschedules, execute, run)
    while True:
        try:
            run.result = go_on()
        except TaskDeferred as deferred:
            go_on = partial(resume, deferred)
        else:
            return


def _repeat_reschedules(execute: Callable[[], Any], run: TaskRun) -> Any:
    """Execute a task; each reschedule is a new process without the state of the one before."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(SENSORS, "_orig_start_date"):
            # Airflow 2 reads it from its database.
            patch.setattr(SENSORS, "_orig_start_date", lambda **_: _first_reschedule(run))
        while True:
            try:
                return execute()
            except Exception as end:
                again = getattr(end, "reschedule_date", None)
                if again is None:
                    raise
                run.xcoms.clear()
                clock.sleep(max(0.0, (again - datetime.now(UTC)).total_seconds()))


def new_context(
    run: TaskRun,
    *,
    dag_id: str,
    task_id: str,
    try_number: int = 1,
    map_index: int = -1,
    max_tries: int = 0,
    xcoms: GivenXComs | None = None,
) -> dict[str, Any]:
    """Return the part of Airflow's context that this provider's tasks use; ``run`` records what the task writes."""
    ti = SimpleNamespace(
        dag_id=dag_id,
        task_id=task_id,
        run_id=RUN_ID,
        try_number=try_number,
        map_index=map_index,
        max_tries=max_tries,
        xcom_push=lambda key, value: run.xcoms.__setitem__(key, value),
        xcom_pull=(xcoms or GivenXComs({})).pull,
    )
    if not hasattr(SENSORS, "_orig_start_date"):
        ti.get_first_reschedule_date = lambda _: _first_reschedule(run)
    # Airflow before 3.3 has no such store; a task would use an Airflow Variable.
    notes = SimpleNamespace(get=run.notes.get, set=run.notes.__setitem__, delete=run.notes.pop)
    return {"ti": ti, "task_state_store": notes, "outlet_events": run.outlet_events}


def _first_reschedule(run: TaskRun) -> datetime | None:
    """Return Airflow's answer: ``None`` at the first poke of a rescheduled sensor."""
    return run.executions[0] if len(run.executions) > 1 else None


def deserialize_trigger(trigger: BaseTrigger) -> BaseTrigger:
    """Return the trigger that a triggerer makes from the stored arguments of this one."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    made: BaseTrigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
    return made


async def first_event(trigger: BaseTrigger) -> Any:
    """Run a trigger and return the payload of its event as it reaches the task."""
    async for event in trigger.run():
        return json.loads(json.dumps(event.payload))
    raise AssertionError("the trigger ended without an event")
