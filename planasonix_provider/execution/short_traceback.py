"""Ends the log of a failed task with its message. DAG files import this module, so importing it must stay light."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.waiting.interruptible_sleep import TaskKilledError

#: Errors whose message says what happened and what to do.
_FOR_USERS = (PlanasonixError, TaskKilledError, AirflowFailException, AirflowSensorTimeout, AirflowSkipException)

P = ParamSpec("P")
R = TypeVar("R")


def with_short_traceback(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Wrap a method that Airflow calls: its errors for users lose their frames and causes, which are logged at DEBUG.

    Airflow logs the traceback of the exception that ends a task. Other errors keep their frames.
    """

    @wraps(method)
    def wrapper(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except _FOR_USERS as error:
            self.log.debug("The traceback of the error that ends the task:", exc_info=True)
            raise error.with_traceback(None) from None

    return wrapper
