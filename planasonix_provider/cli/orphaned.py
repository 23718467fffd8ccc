"""The command for orphans: work that runs on although its task is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planasonix_provider import validators
from planasonix_provider.cli.argument_types import check_argument
from planasonix_provider.cli.exit_codes import EXIT_ERROR, EXIT_OK, EXIT_UNKNOWN
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.orphan_cancellation import CancelResult, cancel_orphans
from planasonix_provider.monitoring.orphan_listing import list_orphans
from planasonix_provider.monitoring.orphans import Orphan, OrphanListing
from planasonix_provider.validators import format_utc
from planasonix_provider.waiting.formatting import pluralize

_COLUMNS = ("id", "kind", "status", "dag_id", "run_id", "task_id", "map_index", "task_state", "age_seconds", "conn_id")


def orphans(context: CommandContext) -> CommandResult:
    """List orphans or, with ``--cancel``, cancel them."""
    options = context.options
    age = check_argument(validators.age, "--older-than", options.older_than or "0m")
    listing = list_orphans(options.conn_id, older_than=age)
    for problem in listing.problems:
        context.terminal.warn(problem)
    if not options.cancel:
        rows = [orphan_row(orphan) for orphan in listing.orphans]
        return CommandResult(rows, _COLUMNS, EXIT_ERROR if listing.problems else EXIT_OK)
    return _cancel(context, listing)


def _cancel(context: CommandContext, listing: OrphanListing) -> CommandResult:
    results = cancel_orphans(listing.orphans)
    rows = []
    for result in results:
        is_done = result.outcome in ("cancelled", "kept", "ended")
        (context.terminal.print if is_done else context.terminal.warn)(result.message)
        rows.append(orphan_row(result.orphan) | {"outcome": result.outcome, "error": result.error})
    return CommandResult(rows, (*_COLUMNS, "outcome"), _code(results, listing.problems), _summary(results))


def _code(results: Sequence[CancelResult], problems: Sequence[str]) -> int:
    outcomes = {result.outcome for result in results}
    if problems or "failed" in outcomes:
        return EXIT_ERROR
    return EXIT_UNKNOWN if "unknown" in outcomes else EXIT_OK


def _summary(results: Sequence[CancelResult]) -> str | None:
    failed = sum(result.outcome == "failed" for result in results)
    return f"{pluralize(failed, 'orphan')} could not be cancelled." if failed else None


def orphan_row(orphan: Orphan) -> dict[str, Any]:
    """Return an orphan in JSON types."""
    ended_at = orphan.task_ended_at
    return {
        "id": orphan.id,
        "kind": orphan.kind,
        "status": orphan.status,
        "conn_id": orphan.conn_id,
        "connection_id": orphan.connection_id,
        **orphan.stored.record.task_key._asdict(),
        "task_state": orphan.task_state,
        "task_ended_at": ended_at and format_utc(ended_at),
        "started_at": format_utc(orphan.started_at),
        "age_seconds": round((utcnow() - orphan.started_at).total_seconds()),
    }
