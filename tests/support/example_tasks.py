"""The classes that users type in a DAG, and an object of each with valid parameters."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from planasonix_provider.operators.planasonix import PlanasonixCancelJobOperator
from planasonix_provider.sensors import planasonix as sensors
from planasonix_provider.sensors.base import PlanasonixSensor

#: A valid value for each parameter without a default.
VALUES: dict[str, Any] = {
    "connection_id": "conn_01jq8k2m3n4p5q6r7s8t9u0v1",
    "job_id": "job_1",
    "backfill_id": "bf_1",
    "since": "2020-01-01T00:00:00Z",
    "start_at": "2025-01-01T00:00:00Z",
    "end_at": "2025-03-01T00:00:00Z",
}
#: Further parameters: this operator needs one of two that are optional.
ALTERNATIVES: dict[type, tuple[str, ...]] = {PlanasonixCancelJobOperator: ("job_id",)}


def public_classes(module: ModuleType) -> list[Any]:
    """Return the public classes that a module defines."""
    return [
        member
        for name, member in vars(module).items()
        if isinstance(member, type) and member.__module__ == module.__name__ and not name.startswith("_")
    ]


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class. Triggers pass a target to their base, so its parameters do not count."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__ if issubclass(kind, BaseOperator) else (kind,):
        if base.__module__.startswith("planasonix_provider.") and "__init__" in vars(base):
            own = inspect.signature(vars(base)["__init__"]).parameters
            parameters = {name: own[name] for name in own if name not in ("self", "kwargs", "options")} | parameters
    return parameters


def make_example(kind: type, **given: Any) -> Any:
    """Return an object with values for all parameters without a default, and the given ones."""
    required = [name for name, one in parameters_of(kind).items() if one.default is one.empty]
    names = [name for name in (*required, *ALTERNATIVES.get(kind, ())) if name not in given]
    if missing := [name for name in names if name not in VALUES]:
        raise AssertionError(f"{__name__}.VALUES has no value for {', '.join(missing)} of {kind.__name__}")
    task = {"task_id": "wait"} if issubclass(kind, BaseOperator) else {}
    return kind(**task, **{name: VALUES[name] for name in names}, **given)


SENSORS: list[type[PlanasonixSensor]] = public_classes(sensors)
