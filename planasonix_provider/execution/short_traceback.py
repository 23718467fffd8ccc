"""Shortens the traceback that Airflow logs for a failed task. DAG files import this module, so its imports are late."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

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
        except Exception as error:
            if not _is_for_users(error):
                raise
            self.log.debug("The traceback of the error that ends the task:", exc_info=True)
            raise error.with_traceback(None) from None

    return wrapper


def _is_for_users(error: Exception) -> bool:
    """Return whether the message of an error says what happened and what to do."""
    from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

    from planasonix_provider.api.errors import PlanasonixError
    from planasonix_provider.waiting.interruptible_sleep import TaskKilledError

    kinds = (PlanasonixError, TaskKilledError, AirflowFailException, AirflowSensorTimeout, AirflowSkipException)
    return isinstance(error, kinds)
