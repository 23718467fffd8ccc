"""The commands that start work."""

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
from planasonix_provider.cli.waiting import times, wait_and_account
from planasonix_provider.clock import utcnow
from planasonix_provider.start_parameters import StartKind, parameters_of
from planasonix_provider.waiting.report import first_job_of, report
from planasonix_provider.waiting.targets import Work

#: How parameters are read that argparse does not leave as they are sent.
_READERS = {"metadata": argument_types.metadata, "tables": argument_types.tables}


def sync(stage: CommandContext) -> CommandResult:
    """Start a sync."""
    return _start(stage, "sync", stage.hook.trigger_sync, _parameters(stage, "sync"))


def backfill(stage: CommandContext) -> CommandResult:
    """Start a backfill."""
    start, end = argument_types.window(stage.options.start_at, stage.options.end_at)
    parameters = {**_parameters(stage, "backfill"), "start_at": start, "end_at": end}
    if end > utcnow():
        stage.screen.warn(f"--end-at is in the future ({end}): what comes after now cannot be loaded yet.")
    return _start(stage, "backfill", stage.hook.trigger_backfill, parameters)


def _parameters(stage: CommandContext, kind: StartKind) -> dict[str, Any]:
    """Return the parameters of a start as the hook takes them."""
    given = {parameter.name: getattr(stage.options, parameter.name) for parameter in parameters_of(kind)}
    return {name: _READERS[name](f"--{name}", value) if name in _READERS else value for name, value in given.items()}


def _start(
    stage: CommandContext, kind: StartKind, post: Callable[..., Work], parameters: Mapping[str, Any]
) -> CommandResult:
    times(stage)
    connection_id = stage.options.connection_id
    work = _started(stage, kind, lambda key: post(connection_id, **parameters, idempotency_key=key))
    if stage.options.wait:
        return wait_and_account(stage, work)
    return CommandResult(report(work, stage.hook.job_url))


def _started(stage: CommandContext, kind: str, post: Callable[[str], Work]) -> Work:
    key = stage.options.idempotency_key or str(uuid4())
    try:
        with stage.interrupts.deferred("the answer to the start is there"):
            work = post(key)
            stage.screen.say(_words(stage, work))
            return work
    except Interrupted as interrupt:
        if not interrupt.amid:
            raise Interrupted(interrupt.number, says="Interrupted before anything was started.") from None
        raise PlanasonixLostTrackError(f"Interrupted. {_nobody_knows(stage, kind, key)}") from None
    except PlanasonixConflictError as conflict:
        with suppress(ValueError):
            # Whatever an answer names: only what can be an id is worth a command.
            in_the_way = validators.identifier("existing_job_id", conflict.existing_job_id)
            conflict.with_message(f"{conflict.message} To wait for it: {stage.hint('job', in_the_way, '--wait')}")
        raise
    except PlanasonixError as error:
        if not has_unknown_effect(error):
            raise
        raise PlanasonixLostTrackError(f"{error} {_nobody_knows(stage, kind, key)}") from None


def _words(stage: CommandContext, work: Work) -> str:
    kind = "backfill" if isinstance(work, Backfill) else "job"
    job_id = first_job_of(work)
    page = f": {stage.hook.job_url(job_id)}" if job_id else ""
    return f"Started {kind} {work.id} on connection {stage.options.connection_id}{page}"


def _nobody_knows(stage: CommandContext, kind: str, key: str) -> str:
    listing = "jobs" if kind == "sync" else "backfills"
    look = stage.hint(listing, "--connection-id", stage.options.connection_id)
    return (
        f"Nobody knows whether the {kind} was started: look with {look} before you start it again. "
        f"With --idempotency-key {shlex.quote(key)} a server that knows such keys tells a repeat from a second start."
    )
