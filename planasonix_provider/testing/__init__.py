"""Tests of your own DAGs, without an account and without waiting: the pytest fixture ``planasonix``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planasonix_provider.testing.planasonix import Planasonix
    from planasonix_provider.testing.started_work import StartedWork
    from planasonix_provider.testing.task_run import TaskRun

__all__ = ["Planasonix", "StartedWork", "TaskRun"]

_HOMES = {"Planasonix": "planasonix", "Start": "starts", "TaskRun": "tasks"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: pytest loads this package in each of its runs, and Airflow is not ready."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
