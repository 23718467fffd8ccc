"""Maps errors of Planasonix to those that tell Airflow whether to retry the task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.retry import is_permanent


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Fail the task without a retry if a retry cannot help, or might duplicate work."""
    try:
        yield
    except PlanasonixError as error:
        if is_permanent(error) or isinstance(error, PlanasonixLostTrackError):
            raise AirflowFailException(error.message) from error
        raise
