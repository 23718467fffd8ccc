"""Lists the orphans of all tasks, from their records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from planasonix_provider.clock import utcnow
from planasonix_provider.monitoring.attempt_records import StoredRecord, delete_records, read_records
from planasonix_provider.monitoring.orphan_search import examine
from planasonix_provider.monitoring.orphans import ListingProblem, OrphanListing
from planasonix_provider.waiting.loop_thread import run_in_loop_thread


def list_orphans(
    conn_id: str | None = None, *, older_than: timedelta = timedelta(0), max_seconds: float | None = None
) -> OrphanListing:
    """List the orphans, and delete the records of work that is over. Blocks, and needs Airflow's database.

    :param conn_id: only of this Airflow connection; default: of all.
    :param older_than: only those whose task ended this long ago; default: all.
    :param max_seconds: how long each Airflow connection may take. All are asked at the same time.
    """
    return run_in_loop_thread(partial(find_orphans, conn_id, older_than=older_than, max_seconds=max_seconds))


async def find_orphans(
    conn_id: str | None = None,
    *,
    older_than: timedelta = timedelta(0),
    max_seconds: float | None = None,
) -> OrphanListing:
    """Do the same as :func:`list_orphans` without blocking."""
    listing = await asyncio.to_thread(read_records)
    over = [
        stored
        for stored in listing.records
        if stored.is_task_over and conn_id in (None, stored.record.planasonix_conn_id)
    ]
    # Nothing is ever cancelled because of the others.
    await asyncio.to_thread(delete_records, [stored for stored in over if not stored.record.may_be_orphaned])
    ended_before = utcnow() - older_than
    candidates = [stored for stored in over if stored.record.may_be_orphaned and stored.task_ended_at <= ended_before]
    found = await examine(without_awaited(candidates, listing.records), max_seconds=max_seconds)
    unread = [ListingProblem(None, listing.problem)] if listing.problem else []
    return OrphanListing(found.orphans, [*unread, *found.all_problems])


def without_awaited(candidates: Sequence[StoredRecord], records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the records whose work no other task waits for: ``on_conflict="attach"`` waits for that of others."""
    awaited = {stored.record.work_key for stored in records if stored.record.id and not stored.is_task_over}
    return [stored for stored in candidates if stored.record.work_key not in awaited]
