"""Orphans in JSON types."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.orphans import Orphan, OrphanListing
from planasonix_provider.monitoring.tasks import TaskRow, task_row
from planasonix_provider.monitoring.work import WorkRow, work_row
from planasonix_provider.waiting.formatting import pluralize


class OrphanRow(TypedDict):
    """An orphan in JSON types. ``age_seconds`` counts from the start of the work."""

    work: WorkRow
    conn_id: str
    task: TaskRow
    task_ended_at: str | None
    age_seconds: float


def orphan_row(orphan: Orphan, settings: ConnectionSettings, now: datetime) -> OrphanRow:
    """Return the row of an orphan whose work is known."""
    if orphan.work is None:
        raise ValueError("It is unknown what this start has made.")
    record = orphan.stored.record
    task = task_row(record.task_key, try_number=record.try_number, state=orphan.task_state)
    return {
        "work": WorkRow(**{**work_row(orphan.work, settings), "task": task}),
        "conn_id": orphan.conn_id,
        "task": task,
        "task_ended_at": json_time(orphan.task_ended_at),
        "age_seconds": max(0.0, (now - orphan.started_at).total_seconds()),
    }


def unknown_starts(listing: OrphanListing) -> str | None:
    """Return how many starts are not in the list because their response was lost; ``None`` if there are none."""
    unknown = sum(orphan.work is None for orphan in listing.orphans)
    if not unknown:
        return None
    return (
        f"It is unknown what {pluralize(unknown, 'start')} of ended tasks made, because the response was lost: "
        "`airflow planasonix orphans` lists them."
    )
