"""What a DAG has started in Planasonix, and how it is told to whoever looks for something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from planasonix_provider import validators
from planasonix_provider.simulator.model.retention import Work
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.workspace import Workspace
from planasonix_provider.start_parameters import KINDS, START_PARAMETERS, StartKind, parameters_of
from planasonix_provider.waiting.attempt import ATTEMPT_KEY

#: The metadata that the provider adds to a task's own.
_OURS = ("dag_id", "task_id", "run_id", "try_number", "map_index", ATTEMPT_KEY)


@dataclass(frozen=True)
class StartedWork:
    """A sync or a backfill that was started.

    :param kind: ``sync`` or ``backfill``.
    :param id: the job's id, or the backfill's.
    :param connection_id: Planasonix's connection.
    :param parameters: what it was started with, as it reached Planasonix; what was not sent is not there.
    :param status: the state that it is in now.
    :param is_cancelled: whether it was asked to cancel, of a backfill any of its jobs.
    """

    kind: StartKind
    id: str
    connection_id: str
    parameters: Mapping[str, Any]
    status: str
    is_cancelled: bool

    def is_of(self, wanted: Mapping[str, Any]) -> bool:
        """Say whether it was started with certain parameters.

        :param wanted: the parameters, in their final form; of ``metadata``, those fields that count.
        :return: whether it was.
        """
        return all(
            wanted[name].items() <= self.parameters.get(name, {}).items()
            if name == "metadata" and wanted[name] is not None
            else self.parameters.get(name) == wanted[name]
            for name in wanted
        )

    def __str__(self) -> str:
        metadata = dict(self.parameters.get("metadata") or {})
        task = ".".join(str(metadata[name]) for name in ("dag_id", "task_id") if name in metadata)
        own = {name: value for name, value in metadata.items() if name not in _OURS}
        given = {**self.parameters, "metadata": own or None}
        return (
            f"a {self.kind} of {self.connection_id}{_in_brackets(given)}"
            f"{f' by {task}' if task else ''}, which is {self.status}"
            f"{', and was asked to cancel' if self.is_cancelled else ''}"
        )


def starts_of(world: Workspace) -> list[StartedWork]:
    """Tell what was started.

    :param world: where.
    :return: the starts, in their order.
    """
    return [_start(work, world) for work in world.started()]


def _start(work: Work, world: Workspace) -> StartedWork:
    is_backfill = isinstance(work, SimulatedBackfill)
    now = world.backfill(work.id) if isinstance(work, SimulatedBackfill) else world.job(work.id)
    cancelled_at = work.cancelled_at if isinstance(work, SimulatedBackfill) else work.cancel_requested_at
    return StartedWork(
        kind="backfill" if is_backfill else "sync",
        id=work.id,
        connection_id=work.connection_id,
        parameters=work.body.model_dump(exclude_none=True),
        status=now.status,
        is_cancelled=cancelled_at is not None,
    )


def in_final_form(kind: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Check what is looked for, and bring it in the form that it has in Planasonix.

    :param kind: ``sync`` or ``backfill``; ``None`` is either.
    :param wanted: the parameters, as in a DAG; ``None`` is one that was not sent.
    :return: the parameters.
    :raises ValueError: if there is no such kind or parameter, or a value makes no sense.
    """
    if kind is not None and kind not in KINDS:
        raise validators.invalid_parameter("kind", kind, f"{', '.join(KINDS)}, or None for either")
    known = {parameter.name: parameter for parameter in (parameters_of(kind) if kind else START_PARAMETERS)}
    if unknown := sorted(set(wanted) - set(known)):
        raise ValueError(f"{unknown[0]} is no parameter of a {kind or 'start'}; there are {', '.join(known)}.")
    return {name: validators.optional(known[name].check)(name, value) for name, value in wanted.items()}


def described(connection_id: str | None, kind: str | None, wanted: Mapping[str, Any]) -> str:
    """Put in words what is looked for.

    :param connection_id: the connection; ``None`` is any.
    :param kind: ``sync`` or ``backfill``; ``None`` is either.
    :param wanted: the parameters.
    :return: the words.
    """
    what = f"a {kind}" if kind else "a sync or backfill"
    return f"{what} of {connection_id or 'any connection'}{_in_brackets(wanted, with_nones=True)}"


def listed(starts: Sequence[StartedWork]) -> str:
    """Put starts in words, one a line.

    :param starts: the starts.
    :return: the words.
    """
    return "\n".join(f"  - {start}" for start in starts) if starts else "  nothing"


def _in_brackets(given: Mapping[str, Any], *, with_nones: bool = False) -> str:
    texts = [f"{name}={_shown(value)}" for name, value in given.items() if with_nones or value is not None]
    return f" ({', '.join(texts)})" if texts else ""


def _shown(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
