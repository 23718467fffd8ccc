"""Tells Airflow how a task of an operator ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.retry import is_permanent


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let an error of Planasonix fail the task, and end its retries where no retry can help.

    :raises AirflowFailException: for what was sent and is wrong or may not be sent, and where a retry could do twice
        what may have been done once.
    """
    try:
        yield
    except PlanasonixError as error:
        if is_permanent(error) or isinstance(error, PlanasonixLostTrackError):
            raise AirflowFailException(error.message) from error
        raise
