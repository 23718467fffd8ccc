"""The commands that look at jobs and backfills, and the one that cancels them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from pydantic import BaseModel

from planasonix_provider.api.errors import PlanasonixConflictError, PlanasonixNotFoundError
from planasonix_provider.api.states import JOB_OVER
from planasonix_provider.cli import argument_types
from planasonix_provider.cli.exit_codes import REFUSED
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.waiting import cancel_and_wait, times, wait_and_account
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget

#: How an id of each kind begins in the reference. Ids are opaque, so this is good for a hint and nothing else.
JOB, BACKFILL = ("job_", "bf_")

_JOB_COLUMNS = ("id", "status", "type", "connection_id", "created_at")
_BACKFILL_COLUMNS = ("id", "status", "progress_percent", "connection_id", "start_at", "end_at", "created_at")


def plain(model: BaseModel) -> dict[str, Any]:
    """Write a model in JSON types.

    :param model: what the API has sent.
    :return: all that it has sent, also what this version does not know.
    """
    return model.model_dump(mode="json", exclude_unset=True)


@contextmanager
def explaining_kind(stage: CommandContext, given: str, wanted: str, *command: str) -> Iterator[None]:
    """Add the right command to a 404 for an id that looks like one of the other kind.

    :param stage: what the command acts with.
    :param given: the id that was typed.
    :param wanted: how an id of the kind begins that the command takes: :data:`JOB` or :data:`BACKFILL`.
    :param command: the command for the other kind.
    """
    try:
        yield
    except PlanasonixNotFoundError as error:
        other, kind = (BACKFILL, "backfill") if wanted == JOB else (JOB, "job")
        if given.startswith(other):
            error.with_message(f"{error.message} {given} looks like the id of a {kind}: {stage.hint(*command, given)}")
        raise


def listed(stage: CommandContext, models: Iterator[BaseModel], *columns: str) -> CommandResult:
    """Answer with a list.

    :param stage: what the command acts with.
    :param models: what the API sends.
    :param columns: what a table of it shows.
    :return: the answer, of as many as ``--limit`` says.
    """
    limit = stage.options.limit
    rows = [plain(model) for model in islice(models, limit)]
    if len(rows) == limit:
        stage.screen.say(f"Listed the newest, {limit} at the most: a higher --limit may list more.")
    return CommandResult(rows, columns)


def jobs(stage: CommandContext) -> CommandResult:
    """List jobs."""
    options = stage.options
    found = stage.hook.list_jobs(
        connection_id=options.connection_id,
        pipeline_id=options.pipeline_id,
        type=options.type,
        status=options.status,
        since=argument_types.moment("--since", options.since),
        until=argument_types.moment("--until", options.until),
        limit=argument_types.how_many("--limit", options.limit),
    )
    return listed(stage, found, *_JOB_COLUMNS)


def job(stage: CommandContext) -> CommandResult:
    """Show a job, or wait for it."""
    times(stage)
    with explaining_kind(stage, stage.options.job_id, JOB, "backfill-status"):
        found = stage.hook.get_job(stage.options.job_id)
    return wait_and_account(stage, found) if stage.options.wait else CommandResult(plain(found))


def results(stage: CommandContext) -> CommandResult:
    """Show what a job loaded."""
    job_id = stage.options.job_id
    wait = stage.hint("job", job_id, "--wait")
    try:
        with explaining_kind(stage, job_id, JOB, "backfill-status"):
            found = stage.hook.get_job_results(job_id)
    except PlanasonixConflictError as conflict:
        conflict.with_message(f"Job {job_id} has no results yet: {conflict.message} To wait until it is over: {wait}")
        raise
    if found.status not in JOB_OVER:
        stage.screen.warn(
            f"Job {job_id} is {found.status}, and these are its results so far. To wait until it is over: {wait}"
        )
    return CommandResult(plain(found))


def cancel(stage: CommandContext) -> CommandResult:
    """Cancel a job, or the jobs of a backfill."""
    if stage.options.backfill:
        backfill_id = argument_types.identifier("backfill_id", stage.options.id)
        return cancel_and_wait(
            stage, BackfillTarget(backfill_id), explaining_kind(stage, backfill_id, BACKFILL, "cancel")
        )
    job_id = argument_types.identifier("job_id", stage.options.id)
    return cancel_and_wait(stage, JobTarget(job_id), explaining_kind(stage, job_id, JOB, "cancel", "--backfill"))


def backfills(stage: CommandContext) -> CommandResult:
    """List backfills."""
    options = stage.options
    found = stage.hook.list_backfills(
        connection_id=options.connection_id,
        status=options.status,
        limit=argument_types.how_many("--limit", options.limit),
    )
    return listed(stage, found, *_BACKFILL_COLUMNS)


def backfill(stage: CommandContext) -> CommandResult:
    """Show a backfill, or wait for it."""
    times(stage)
    with explaining_kind(stage, stage.options.backfill_id, BACKFILL, "job"):
        found = stage.hook.get_backfill(stage.options.backfill_id)
    return wait_and_account(stage, found) if stage.options.wait else CommandResult(plain(found))


def ping(stage: CommandContext) -> CommandResult:
    """Try Airflow's connection."""
    works, words = stage.hook.test_connection()
    if not works:
        return CommandResult(code=REFUSED, complaint=words)
    return CommandResult({"conn_id": stage.options.conn_id, "works": True, "message": words})


def openapi(stage: CommandContext) -> CommandResult:
    """Print the API's own description."""
    return CommandResult(stage.hook.get_openapi())
