"""The commands that start syncs and backfills."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixError, PlanasonixLostTrackError
from planasonix_provider.api.models import Backfill
from planasonix_provider.api.retry import has_unknown_effect
from planasonix_provider.cli import argument_types
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.signals import Interrupted
from planasonix_provider.cli.waiting import wait_for_result, wait_times
from planasonix_provider.cli.web import open_page
from planasonix_provider.clock import utcnow
from planasonix_provider.start_parameters import StartKind, parameters_of
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.targets import Work

#: How to parse the options whose text is not what is sent, by the check of their parameter.
_PARSERS: dict[validators.Check, Callable[..., Any]] = {
    validators.metadata: argument_types.metadata,
    validators.tables: argument_types.tables,
}


def sync(context: CommandContext) -> CommandResult:
    """Start a sync."""
    return _start(context, "sync", context.hook.trigger_sync, _parameters(context, "sync"))


def backfill(context: CommandContext) -> CommandResult:
    """Start a backfill."""
    start, end = argument_types.window(context.options.start_at, context.options.end_at)
    parameters = {**_parameters(context, "backfill"), "start_at": start, "end_at": end}
    if end > utcnow():
        context.terminal.warn(f"--end-at is in the future ({end}): the data after now does not exist yet.")
    return _start(context, "backfill", context.hook.trigger_backfill, parameters)


def _parameters(context: CommandContext, kind: StartKind) -> dict[str, Any]:
    """Return the parameters of a start as the hook takes them."""
    parsed = {}
    for parameter in parameters_of(kind):
        given = getattr(context.options, parameter.name)
        parse = _PARSERS.get(parameter.check)
        parsed[parameter.name] = parse(f"--{parameter.name.replace('_', '-')}", given) if parse else given
    return parsed


def _start(
    context: CommandContext, kind: StartKind, post: Callable[..., Work], parameters: Mapping[str, Any]
) -> CommandResult:
    wait_times(context)
    connection_id = context.options.connection_id
    work = _post(context, kind, lambda key: post(connection_id, **parameters, idempotency_key=key))
    if kind == "sync" and context.options.web:
        open_page(context, work)
    if context.is_waiting:
        return wait_for_result(context, work)
    return CommandResult(report(work, context.hook.job_url))


def _post(context: CommandContext, kind: str, post: Callable[[str], Work]) -> Work:
    key = context.options.idempotency_key or str(uuid4())
    try:
        with context.signals.deferred("the response to the start has arrived"):
            work = post(key)
            context.terminal.print(_started_line(context, work))
            return work
    except Interrupted as interrupt:
        if not interrupt.in_flight:
            raise Interrupted(interrupt.number, message="Interrupted before anything was started.") from None
        raise PlanasonixLostTrackError(f"Interrupted. {_unknown_outcome(context, kind, key)}") from None
    except PlanasonixConflictError as conflict:
        with suppress(ValueError):
            # The response may name anything; only a valid id is worth a command.
            in_the_way = validators.identifier("existing_job_id", conflict.existing_job_id)
            conflict.set_message(f"{conflict.message} To wait for it: {context.hint('job', in_the_way, '--wait')}")
        raise
    except PlanasonixError as error:
        if not has_unknown_effect(error):
            raise
        raise PlanasonixLostTrackError(f"{error} {_unknown_outcome(context, kind, key)}") from None


def _started_line(context: CommandContext, work: Work) -> str:
    kind = "backfill" if isinstance(work, Backfill) else "job"
    job_id = first_job_of(work)
    page = f": {context.hook.job_url(job_id)}" if job_id else ""
    return f"Started {kind} {work.id} on connection {context.options.connection_id}{page}"


def _unknown_outcome(context: CommandContext, kind: str, key: str) -> str:
    listing = "jobs" if kind == "sync" else "backfills"
    look = context.hint(listing, "--connection-id", context.options.connection_id)
    return (
        f"It is unknown whether the {kind} was started: check with {look} before you start it again. "
        f"With --idempotency-key {shlex.quote(key)} a server that supports such keys recognises the repeat."
    )
