"""The commands that show, list and cancel jobs and backfills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

from pydantic import BaseModel

from planasonix_provider import validators
from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixNotFoundError
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.cli import argument_types
from planasonix_provider.cli.argument_types import check_argument
from planasonix_provider.cli.exit_codes import EXIT_ERROR
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext, ShellHook
from planasonix_provider.cli.waiting import cancel_and_wait, wait_for_result, wait_times
from planasonix_provider.cli.web import open_page
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, Work, WorkTarget

#: The prefixes of ids in the API reference. Ids are opaque, so they serve only for a hint.
JOB_PREFIX, BACKFILL_PREFIX = ("job_", "bf_")

_JOB_COLUMNS = ("id", "status", "type", "connection_id", "created_at")
_BACKFILL_COLUMNS = ("id", "status", "progress_percent", "connection_id", "start_at", "end_at", "created_at")


def to_json(model: BaseModel) -> dict[str, Any]:
    """Return a model in JSON types, with fields that this version does not know."""
    return model.model_dump(mode="json", exclude_unset=True)


@contextmanager
def hint_at_other_kind(context: CommandContext, given: str, other: str, *command: str) -> Iterator[None]:
    """Add a hint to a 404 if the id has the prefix of the ``other`` kind, with the command for that kind."""
    try:
        yield
    except PlanasonixNotFoundError as error:
        if given.startswith(other):
            kind = "job" if other == JOB_PREFIX else "backfill"
            error.set_message(f"{error.message} {given} looks like the id of a {kind}: {context.hint(*command, given)}")
        raise


def list_result(context: CommandContext, models: Iterator[BaseModel], *columns: str) -> CommandResult:
    """Return at most ``--limit`` objects as a list."""
    limit = context.options.limit
    rows = [to_json(model) for model in islice(models, limit)]
    if len(rows) == limit:
        context.terminal.print(f"Listed the newest {limit}: a higher --limit may list more.")
    return CommandResult(rows, columns)


def jobs(context: CommandContext) -> CommandResult:
    """List jobs."""
    options = context.options
    found = context.hook.list_jobs(
        connection_id=options.connection_id,
        pipeline_id=options.pipeline_id,
        type=options.type,
        status=options.status,
        since=argument_types.parse_time("--since", options.since),
        until=argument_types.parse_time("--until", options.until),
        limit=argument_types.limit("--limit", options.limit),
    )
    return list_result(context, found, *_JOB_COLUMNS)


def job(context: CommandContext) -> CommandResult:
    """Show a job, or wait for it."""
    job_id = context.options.job_id
    with hint_at_other_kind(context, job_id, BACKFILL_PREFIX, "backfill-status"):
        return _show(context, context.hook.get_job, job_id)


def _show(context: CommandContext, get: Callable[[str], Work], given: str) -> CommandResult:
    wait_times(context)
    found = get(given)
    if context.options.web:
        open_page(context, found)
    return wait_for_result(context, found) if context.is_waiting else CommandResult(to_json(found))


def watch(context: CommandContext) -> CommandResult:
    """Wait for a job or a backfill."""
    given = check_argument(validators.identifier, "id", context.options.id)
    return _show(context, partial(_job_or_backfill, context.hook), given)


def _job_or_backfill(hook: ShellHook, given: str) -> Work:
    routes: list[Callable[[str], Work]] = [hook.get_job, hook.get_backfill]
    if given.startswith(BACKFILL_PREFIX):
        routes.reverse()
    try:
        return routes[0](given)
    except PlanasonixNotFoundError as error:
        with suppress(PlanasonixNotFoundError):
            return routes[1](given)
        error.set_message(f"There is no job and no backfill with the id {given}. {error.message}")
        raise


def results(context: CommandContext) -> CommandResult:
    """Show what a job loaded."""
    job_id = context.options.job_id
    wait = context.hint("job", job_id, "--wait")
    try:
        with hint_at_other_kind(context, job_id, BACKFILL_PREFIX, "backfill-status"):
            found = context.hook.get_job_results(job_id)
    except PlanasonixConflictError as conflict:
        conflict.set_message(f"Job {job_id} has no results yet: {conflict.message} To wait until it is over: {wait}")
        raise
    if found.status not in JOB_OVER:
        context.terminal.warn(
            f"Job {job_id} is {found.status}, and these are its results so far. To wait until it is over: {wait}"
        )
    return CommandResult(to_json(found))


def cancel(context: CommandContext) -> CommandResult:
    """Cancel a job, or the jobs of a backfill."""
    target: WorkTarget
    if context.options.backfill:
        target = BackfillTarget(check_argument(validators.identifier, "backfill_id", context.options.id))
        hint = hint_at_other_kind(context, target.id, JOB_PREFIX, "cancel")
    else:
        target = JobTarget(check_argument(validators.identifier, "job_id", context.options.id))
        hint = hint_at_other_kind(context, target.id, BACKFILL_PREFIX, "cancel", "--backfill")
    return cancel_and_wait(context, target, hint)


def backfills(context: CommandContext) -> CommandResult:
    """List backfills."""
    options = context.options
    found = context.hook.list_backfills(
        connection_id=options.connection_id,
        status=options.status,
        limit=argument_types.limit("--limit", options.limit),
    )
    return list_result(context, found, *_BACKFILL_COLUMNS)


def backfill(context: CommandContext) -> CommandResult:
    """Show a backfill, or wait for it."""
    backfill_id = context.options.backfill_id
    with hint_at_other_kind(context, backfill_id, JOB_PREFIX, "job"):
        return _show(context, context.hook.get_backfill, backfill_id)


def ping(context: CommandContext) -> CommandResult:
    """Test the Airflow connection."""
    works, words = context.hook.test_connection()
    if not works:
        return CommandResult(code=EXIT_ERROR, error=words)
    return CommandResult({"conn_id": context.options.conn_id, "works": True, "message": words})


def openapi(context: CommandContext) -> CommandResult:
    """Print the OpenAPI document."""
    return CommandResult(context.hook.get_openapi())
