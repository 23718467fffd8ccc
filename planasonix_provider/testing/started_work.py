"""The syncs and backfills that a test has started, and their description in assertion messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from planasonix_provider import validators
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.workload import Work
from planasonix_provider.simulator.workspace import Workspace
from planasonix_provider.start_parameters import KINDS, START_PARAMETERS, StartKind, parameters_of
from planasonix_provider.waiting.attempt import ATTEMPT_KEY

#: The metadata keys that the provider adds to those of the task.
_OWN_METADATA = ("dag_id", "task_id", "run_id", "try_number", "map_index", ATTEMPT_KEY)


@dataclass(frozen=True)
class StartedWork:
    """A sync or a backfill that was started.

    :param kind: ``sync`` or ``backfill``.
    :param id: the job's id, or the backfill's.
    :param connection_id: Planasonix's connection.
    :param parameters: the parameters that reached Planasonix; parameters that were not sent are missing.
    :param status: the current state.
    :param is_cancelled: whether a cancel was requested; for a backfill, of any of its jobs.
    """

    kind: StartKind
    id: str
    connection_id: str
    parameters: Mapping[str, Any]
    status: str
    is_cancelled: bool

    def has_parameters(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether it was started with these normalized parameters; ``metadata`` may have more fields."""
        return all(
            wanted[name].items() <= self.parameters.get(name, {}).items()
            if name == "metadata" and wanted[name] is not None
            else self.parameters.get(name) == wanted[name]
            for name in wanted
        )

    def __str__(self) -> str:
        metadata = dict(self.parameters.get("metadata") or {})
        task = ".".join(str(metadata[name]) for name in ("dag_id", "task_id") if name in metadata)
        own = {name: value for name, value in metadata.items() if name not in _OWN_METADATA}
        given = {**self.parameters, "metadata": own or None}
        return (
            f"a {self.kind} of {self.connection_id}{_format_parameters(given)}"
            f"{f' by {task}' if task else ''}, which is {self.status}"
            f"{', and was asked to cancel' if self.is_cancelled else ''}"
        )


def started_work(workspace: Workspace) -> list[StartedWork]:
    """Return everything that was started, in order."""
    return [_from_workspace(work, workspace) for work in workspace.started_work()]


def _from_workspace(work: Work, workspace: Workspace) -> StartedWork:
    is_backfill = isinstance(work, SimulatedBackfill)
    now = workspace.backfill(work.id) if isinstance(work, SimulatedBackfill) else workspace.job(work.id)
    cancelled_at = work.cancelled_at if isinstance(work, SimulatedBackfill) else work.cancel_requested_at
    return StartedWork(
        kind="backfill" if is_backfill else "sync",
        id=work.id,
        connection_id=work.connection_id,
        parameters=work.body.model_dump(exclude_none=True),
        status=now.status,
        is_cancelled=cancelled_at is not None,
    )


def normalize(kind: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the parameters of a search and convert them to the form that Planasonix receives.

    A ``None`` matches a start without that parameter.
    """
    if kind is not None and kind not in KINDS:
        raise validators.invalid_parameter("kind", kind, f"{', '.join(KINDS)}, or None for either")
    known = {parameter.name: parameter for parameter in (parameters_of(kind) if kind else START_PARAMETERS)}
    if unknown := sorted(set(wanted) - set(known)):
        raise ValueError(f"{unknown[0]} is no parameter of a {kind or 'start'}; there are {', '.join(known)}.")
    return {name: validators.optional(known[name].check)(name, value) for name, value in wanted.items()}


def describe(connection_id: str | None, kind: str | None, wanted: Mapping[str, Any]) -> str:
    """Describe a search, as ``a sync of conn_1 (priority='high')``."""
    what = f"a {kind}" if kind else "a sync or backfill"
    return f"{what} of {connection_id or 'any connection'}{_format_parameters(wanted, with_nones=True)}"


def describe_all(starts: Sequence[StartedWork]) -> str:
    """Describe starts, one per line."""
    return "\n".join(f"  - {start}" for start in starts) if starts else "  nothing"


def _format_parameters(given: Mapping[str, Any], *, with_nones: bool = False) -> str:
    texts = [f"{name}={_format_value(value)}" for name, value in given.items() if with_nones or value is not None]
    return f" ({', '.join(texts)})" if texts else ""


def _format_value(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
