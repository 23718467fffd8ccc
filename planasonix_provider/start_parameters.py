"""The parameters that are sent with a start: the one table that operators, routes, shell and tests read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from planasonix_provider import validators

StartKind: TypeAlias = Literal["sync", "backfill"]
KINDS: tuple[StartKind, ...] = ("sync", "backfill")


@dataclass(frozen=True)
class StartParameter:
    """A parameter that is sent with a start. Every operator takes it as a templated parameter of the same name.

    So its check must also accept the text that a template renders to: ``validators.flag``, for example, does not.

    :param name: its name in the API, in operators, and as an option of the shell.
    :param check: validates a value and converts it to what is sent.
    :param help: the help text of the shell's option.
    :param metavar: the placeholder in that help text.
    :param kinds: the kinds of start that have it.
    :param choices: the only allowed values, if there are such.
    :param is_required: whether a start cannot do without it.
    :param is_repeatable: whether the shell's option may be given several times.
    :param is_flag: whether it is a boolean: the shell has ``--name`` and ``--no-name``, and no placeholder.
    """

    name: str
    check: validators.Check
    help: str
    metavar: str | None = None
    kinds: tuple[StartKind, ...] = KINDS
    choices: tuple[str, ...] | None = None
    is_required: bool = False
    is_repeatable: bool = False
    is_flag: bool = False


START_PARAMETERS = (
    StartParameter(
        "pipeline_id",
        validators.identifier,
        "the pipeline to run (default: the pipeline of the connection)",
        "ID",
        kinds=("sync",),
    ),
    StartParameter(
        "start_at",
        validators.utc,
        "the start of the time window, for example 2025-01-01",
        "TIME",
        kinds=("backfill",),
        is_required=True,
    ),
    StartParameter(
        "end_at",
        validators.utc,
        "the end of the time window (exclusive), in the form of --start-at",
        "TIME",
        kinds=("backfill",),
        is_required=True,
    ),
    StartParameter(
        "tables",
        validators.tables,
        "the tables to load, separated by commas; may be repeated (default: all)",
        "TABLE",
        kinds=("backfill",),
        is_repeatable=True,
    ),
    StartParameter(
        "priority", validators.priority, "the priority: low, normal or high", "PRIORITY", choices=validators.PRIORITIES
    ),
    StartParameter(
        "metadata",
        validators.metadata,
        "KEY=VALUE, or a JSON object, for the run history of Planasonix; may be repeated",
        "METADATA",
        is_repeatable=True,
    ),
)


def parameters_of(kind: StartKind) -> tuple[StartParameter, ...]:
    """Return the parameters of a kind of start."""
    return tuple(parameter for parameter in START_PARAMETERS if kind in parameter.kinds)


def checks_of(kind: StartKind) -> dict[str, validators.Check]:
    """Return the checks of the parameters of a kind of start; ``None`` passes if a parameter is optional."""
    return {
        parameter.name: parameter.check if parameter.is_required else validators.optional(parameter.check)
        for parameter in parameters_of(kind)
    }


def common_checks() -> dict[str, validators.Check]:
    """Return the checks of the parameters that all kinds of start have."""
    common = set.intersection(*(set(checks_of(kind)) for kind in KINDS))
    return {name: check for name, check in checks_of(KINDS[0]).items() if name in common}
