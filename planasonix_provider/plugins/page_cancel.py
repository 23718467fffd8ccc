"""Cancels jobs and backfills for a person who waits for the answer."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, TypedDict

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.monitoring.tasks import TaskRow
from planasonix_provider.waiting.cancellation import CANCEL_TIMEOUT_SECONDS, cancel
from planasonix_provider.waiting.formatting import capitalize, pluralize
from planasonix_provider.waiting.targets import BackfillTarget, Work, target_of

log = logging.getLogger(__name__)

#: The event of Airflow's audit log.
CANCEL_EVENT = "planasonix_cancel"
#: How many seconds a person waits. A backfill is cancelled in the background then.
MAX_WAIT_SECONDS = 4.0


class CancelResultRow(TypedDict):
    """The result of a cancel."""

    status: str
    message: str


class PageCanceller:
    """Cancels work. Backfills are cancelled until they are over, because they create more jobs. For one event loop."""

    def __init__(self) -> None:
        self._backfills: dict[tuple[str, str], asyncio.Task[Work]] = {}

    async def cancel(self, conn_id: str, reader: ApiReader, work: Work) -> CancelResultRow:
        """Cancel work that is not over.

        :raises PlanasonixError: if a request failed.
        """
        target = target_of(work)
        name = capitalize(target.name)
        if not isinstance(target, BackfillTarget):
            # One try: a person sees the error, and tries again.
            after = await cancel(reader.send_first, target, max_seconds=0)
        elif (after_or_none := await self._cancel_backfill((conn_id, work.id), reader, target, work)) is None:
            job_ids = getattr(work, "job_ids", None) or []
            return {
                "status": work.status,
                "message": f"{name} is being cancelled: {pluralize(len(job_ids), 'job')} so far, and the jobs that it "
                "creates meanwhile.",
            }
        else:
            after = after_or_none
        verb = "is over: it is" if after.is_over else "was asked to cancel: it is"
        return {"status": after.status, "message": f"{name} {verb} {after.status}."}

    async def _cancel_backfill(
        self, key: tuple[str, str], reader: ApiReader, target: BackfillTarget, work: Any
    ) -> Work | None:
        """Return the backfill after its cancel; ``None`` if the cancel goes on in the background."""
        if (task := self._backfills.get(key)) is None:
            task = self._backfills[key] = asyncio.create_task(
                cancel(reader.send_first, target, work.job_ids or (), max_seconds=CANCEL_TIMEOUT_SECONDS)
            )
            task.add_done_callback(lambda done: self._forget(key, done))
        done, _ = await asyncio.wait([task], timeout=MAX_WAIT_SECONDS)
        return task.result() if done else None

    def _forget(self, key: tuple[str, str], task: asyncio.Task[Work]) -> None:
        del self._backfills[key]
        if not task.cancelled() and (error := task.exception()):
            # The text of another exception may contain secrets.
            reason = error.message if isinstance(error, PlanasonixError) else f"({type(error).__name__})"
            log.warning("Backfill %s, cancelled on the Planasonix page, may run on. %s", key[1], reason)


def log_cancel(user: str, conn_id: str, work: Work, task: TaskRow | None) -> None:
    """Write an entry into Airflow's audit log. It blocks."""
    from airflow.models.log import Log

    target = target_of(work)
    entry = Log(event=CANCEL_EVENT, owner=user, extra=json.dumps({"conn_id": conn_id, target.id_name: work.id}))
    if task:
        for name in ("dag_id", "run_id", "task_id", "map_index"):
            setattr(entry, name, task[name])
    with database_session() as session:
        session.add(entry)
