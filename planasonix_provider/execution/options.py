"""The values that an execution gets from its operator, and what of Airflow's own task it uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar

from planasonix_provider.triggers.deferral import DeferrableTask

Options = TypeVar("Options", "StartOptions", "SensorOptions")


@dataclass(frozen=True)
class StartOptions:
    """The parameters of a start operator, rendered and validated."""

    kind: Literal["job", "backfill"]
    connection_id: str
    planasonix_conn_id: str
    #: In seconds.
    poll_interval: float
    wait_for_completion: bool
    deferrable: bool
    on_conflict: str
    on_cancelled: str
    cancel_on_kill: bool
    ignore_empty_tables: bool
    #: The parameters that decide which data is loaded: a retry with other values logs a warning.
    load_parameters: Mapping[str, Any]
    #: Start and end of a backfill.
    window: tuple[datetime, datetime] | None
    #: The partitions for which asset events are sent; empty for events without a partition key.
    partition_keys: tuple[str, ...]


@dataclass(frozen=True)
class SensorOptions:
    """The parameters of a sensor, rendered and validated."""

    planasonix_conn_id: str
    #: The states with which the task succeeds.
    allowed_states: Collection[str]
    deferrable: bool
    #: Whether Airflow ends the process between two pokes.
    reschedule: bool
    #: In seconds.
    poke_interval: float
    #: In seconds.
    timeout: float
    exponential_backoff: Any
    soft_fail: bool
    silent_fail: bool
    never_fail: bool
    retries: int | None


def read_options(options: type[Options], task: object, **others: Any) -> Options:
    """Return options with the task's attributes of the same names; ``others`` are all other options."""
    names = (field.name for field in fields(options) if field.name not in others)
    return options(**{name: getattr(task, name) for name in names}, **others)


class AirflowTask(DeferrableTask, Protocol):
    """The attributes and methods of Airflow's operators that an execution uses."""

    #: Airflow reads them after ``execute`` to send asset events.
    outlets: list[Any]
    execution_timeout: timedelta | None

    @property
    def log(self) -> Any:
        """The task's log."""

    @property
    def timeout(self) -> Any:
        """Seconds, or ``None``; a ``timedelta`` or a template before validation."""
