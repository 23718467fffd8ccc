"""The pytest fixture ``planasonix``: tests of your own DAGs, without an account and without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planasonix_provider.testing.planasonix import Planasonix
    from planasonix_provider.testing.started_work import StartedWork
    from planasonix_provider.testing.task_run import TaskRun

__all__ = ["Planasonix", "StartedWork", "TaskRun"]

_MODULES = {"Planasonix": "planasonix", "StartedWork": "started_work", "TaskRun": "task_run"}


def __getattr__(name: str) -> Any:
    """Import a class at its first use: pytest loads this package in every run, before Airflow is set up."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
