"""Cancels orphans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.clock import loop_time
from planasonix_provider.monitoring.attempt_records import delete_records, still_over
from planasonix_provider.monitoring.connection_groups import for_each_connection
from planasonix_provider.monitoring.orphans import Orphan
from planasonix_provider.waiting.cancellation import cancel
from planasonix_provider.waiting.formatting import capitalize
from planasonix_provider.waiting.loop_thread import run_in_loop_thread
from planasonix_provider.waiting.outages import RETRY_INTERVAL_SECONDS, is_outage
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority, SharedClient, for_each
from planasonix_provider.waiting.targets import target_of
from planasonix_provider.waiting.work_metrics import WorkMetrics

#: How many orphans are cancelled between two checks of their tasks' states.
CANCEL_BATCH_SIZE = 25
#: How long the cancels may take for each Airflow connection.
CANCEL_SECONDS = 120.0


@dataclass(frozen=True)
class CancelResult:
    """The result of cancelling an orphan.

    :param orphan: with the state after the cancel.
    :param outcome: ``cancelled``; ``kept``, because its task runs again or its record has changed; ``ended``, because
        the work was over before; ``unknown``, because it is unknown what the start has made; or ``failed``.
    :param error: why it was not cancelled.
    """

    orphan: Orphan
    outcome: Literal["cancelled", "kept", "ended", "unknown", "failed"]
    error: str | None = None

    @property
    def message(self) -> str:
        """The outcome in words, with the command for a person if there is something left to do."""
        orphan = self.orphan
        key = orphan.stored.record.task_key
        mapped = f", map index {key.map_index}" if key.map_index >= 0 else ""
        task = f"task {key.task_id} of DAG {key.dag_id}, run {key.run_id}{mapped}"
        if self.outcome == "unknown":
            return (
                f"It is unknown whether {task} has started a {orphan.kind} on connection {orphan.connection_id}. Check "
                f"whether one runs there, and cancel it: {orphan.manual_command}"
            )
        name = f"{capitalize(orphan.kind)} {orphan.id} of {task}"
        if self.outcome == "kept":
            return f"{name} was not cancelled, because its task runs again, or its record has changed."
        if self.outcome == "ended":
            return f"{name} was not cancelled, because it had ended: it is {orphan.status}."
        if self.outcome == "failed":
            return f"{name} could not be cancelled and may still run: {self.error} To end it: {orphan.manual_command}"
        return f"{name} was asked to cancel: it is {orphan.status}."


def cancel_orphans(orphans: Sequence[Orphan], *, max_seconds: float | None = None) -> list[CancelResult]:
    """Cancel orphans whose tasks are still over. Blocks, and needs Airflow's database.

    :param max_seconds: how long an outage may last, and how long to cancel the jobs that a backfill creates meanwhile.
    """
    return run_in_loop_thread(partial(cancel_found, orphans, max_seconds=max_seconds))


async def cancel_found(orphans: Sequence[Orphan], *, max_seconds: float | None = None) -> list[CancelResult]:
    """Do the same as :func:`cancel_orphans` without blocking."""

    async def cancel_some(client: SharedClient, some: Sequence[Orphan]) -> list[CancelResult]:
        send = partial(client.send, priority=RequestPriority.URGENT, retry=False)
        return await _Canceller(send, loop_time() + (CANCEL_SECONDS if max_seconds is None else max_seconds)).cancel(
            some
        )

    results: list[CancelResult] = []
    for some, result in await for_each_connection(orphans, lambda orphan: orphan.conn_id, cancel_some):
        results += [CancelResult(orphan, "failed", result) for orphan in some] if isinstance(result, str) else result
    return results


class _Canceller:
    """Cancels orphans of one Airflow connection. After ``give_up``, an outage is not tolerated any more."""

    def __init__(self, send: AsyncSend, give_up: float) -> None:
        self._send = send
        self._give_up = give_up
        self._outage: str | None = None

    async def cancel(self, orphans: Sequence[Orphan]) -> list[CancelResult]:
        """Cancel orphans, in batches, whose tasks are still over."""
        results: list[CancelResult] = []
        for start in range(0, len(orphans), CANCEL_BATCH_SIZE):
            batch = orphans[start : start + CANCEL_BATCH_SIZE]
            over = {stored.row_id for stored in await asyncio.to_thread(still_over, [one.stored for one in batch])}
            results += [CancelResult(one, "kept") for one in batch if one.stored.row_id not in over]
            results += await for_each([one for one in batch if one.stored.row_id in over], self._cancel_one)
        return results

    async def _cancel_one(self, orphan: Orphan) -> CancelResult:
        if orphan.work is None:
            return CancelResult(orphan, "unknown", "It is unknown whether it has started anything.")
        if self._outage:
            return CancelResult(orphan, "failed", self._outage)
        job_ids = (orphan.work.job_ids or ()) if isinstance(orphan.work, Backfill) else ()
        left = max(self._give_up - loop_time(), 0)
        try:
            work = await cancel(self._send, target_of(orphan.work), job_ids, max_seconds=left)
        except PlanasonixError as error:
            if is_outage(error) and loop_time() >= self._give_up - RETRY_INTERVAL_SECONDS:
                self._outage = error.message
            return CancelResult(orphan, "failed", error.message)
        # Its task is over, so no task counts its end.
        WorkMetrics(orphan.conn_id, "operator", orphan.connection_id).count_cancel(work)
        cancelled = replace(orphan, work=work)
        if work.is_over:
            await asyncio.to_thread(delete_records, [orphan.stored])
            if isinstance(work, Job) and work.status != "cancelled":
                return CancelResult(cancelled, "ended")
        elif isinstance(work, Backfill):
            return CancelResult(cancelled, "failed", f"Its jobs so far were asked to cancel, but it is {work.status}.")
        return CancelResult(cancelled, "cancelled")
