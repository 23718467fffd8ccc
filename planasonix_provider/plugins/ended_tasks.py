"""Cancels the jobs of deferred tasks that a person ends by hand, unless their triggerer does so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, Queue

from planasonix_provider import clock
from planasonix_provider.clock import monotonic, utcnow
from planasonix_provider.monitoring.attempt_records import StoredRecord, last_triggerer_heartbeat, read_records
from planasonix_provider.monitoring.orphan_cancellation import cancel_found
from planasonix_provider.monitoring.orphan_listing import without_awaited
from planasonix_provider.monitoring.orphan_search import examine
from planasonix_provider.plugins.notices import EndedTasks
from planasonix_provider.waiting.attempt import TaskKey

log = logging.getLogger(__name__)

#: The seconds between two looks at Airflow's database while there are ended tasks.
CHECK_INTERVAL_SECONDS = 1.0
#: A triggerer needs some seconds to cancel the job of a killed task. It heartbeats every five seconds, so after these
#: seconds without a heartbeat, no triggerer runs.
DEAD_TRIGGERER_SECONDS = 6.0
#: For so long the triggerer, or a worker, may cancel the job itself.
CANCEL_BY_OWNER_SECONDS = 20.0
#: How long to repeat a failed cancel, and to look whether the work is over, to delete its record.
WATCH_SECONDS = 600.0
#: The seconds until the next look; later more, in proportion to the time since the end of the task.
MIN_LOOK_INTERVAL_SECONDS, LOOK_INTERVAL_FRACTION = 5.0, 0.2
#: A task that ended this long before the mark had ended already. The clocks of Airflow's machines may differ, too.
MARK_SLACK_SECONDS = 30.0


@dataclass
class _Watched:
    """A task that has ended and has left a record. Times are by the monotonic clock."""

    #: The idempotency key of the start: a task that runs again starts other work.
    work_key: str
    since: float
    #: The last heartbeat of all triggerers when the task ended.
    heartbeat: datetime | None
    is_cancelled: bool = False
    next_look: float = 0.0

    def is_due(self, stored: StoredRecord, heartbeat: datetime | None) -> bool:
        """Return whether no other process will cancel the job."""
        is_deferred = stored.task is not None and stored.task.is_deferred
        is_alone = is_deferred and heartbeat == self.heartbeat
        return monotonic() - self.since >= (DEAD_TRIGGERER_SECONDS if is_alone else CANCEL_BY_OWNER_SECONDS)

    def schedule(self) -> None:
        """Set the time of the next look."""
        now = monotonic()
        self.next_look = now + max(MIN_LOOK_INTERVAL_SECONDS, LOOK_INTERVAL_FRACTION * (now - self.since))


@dataclass
class EndedTaskWatcher:
    """Watches tasks until their work is cancelled and their records are deleted, or until the time is up."""

    pending: Queue[EndedTasks]
    _ended: dict[EndedTasks, float]
    _watched: dict[TaskKey, _Watched] = field(default_factory=dict)
    _actions: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Watch all tasks that have ended until there are none left."""
        while self._ended or self._actions:
            try:
                if self._ended:
                    await self._check()
            except Exception as error:
                log.warning("The Planasonix jobs of ended tasks cannot be read yet, still trying: %r", error)
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            self._take()

    def _take(self) -> None:
        now = monotonic()
        while True:
            try:
                ended = self.pending.get_nowait()
            except Empty:
                break
            self.pending.task_done()
            self._ended[ended] = now
        # Ended tasks without a record of this provider are forgotten at the first check.
        for ended in [one for one, since in self._ended.items() if now - since > WATCH_SECONDS]:
            del self._ended[ended]

    async def _check(self) -> None:
        runs = {(one.dag_id, one.run_id) for one in self._ended}
        listing = await asyncio.to_thread(read_records, runs)
        heartbeat = await asyncio.to_thread(last_triggerer_heartbeat)
        stored = {
            one.record.task_key: one
            for one in listing.records
            if one.record.may_be_orphaned and self._is_ended(one) and not self._had_ended(one)
        }
        self._forget_all_but(stored)
        due, finishing = [], []
        for one in stored.values():
            watched = self._watch(one, heartbeat)
            # Until the transaction is committed, or because the task was cleared meanwhile.
            if not one.is_task_over or monotonic() < watched.next_look:
                continue
            if watched.is_cancelled:
                finishing.append(one)
            elif watched.is_due(one, heartbeat):
                watched.is_cancelled = True
                due.append(one)
            else:
                continue
            watched.schedule()
        self._act(due, is_cancel=True)
        self._act(finishing, is_cancel=False)

    def _watch(self, stored: StoredRecord, heartbeat: datetime | None) -> _Watched:
        """Return what is known of an ended task; nothing yet if it has run and was ended again."""
        key, since = stored.record.task_key, self._since(stored.record.task_key)
        watched = self._watched.get(key)
        if watched is None or watched.work_key != stored.record.key or watched.since < since:
            watched = self._watched[key] = _Watched(stored.record.key, since, heartbeat)
        return watched

    def _names(self, key: TaskKey) -> Iterable[EndedTasks]:
        return (EndedTasks(*key), EndedTasks(key.dag_id, key.run_id))

    def _is_ended(self, stored: StoredRecord) -> bool:
        return any(name in self._ended for name in self._names(stored.record.task_key))

    def _had_ended(self, stored: StoredRecord) -> bool:
        """Return whether the task had failed before a person marked it or its DAG run. Then its job was to go on."""
        task = stored.task
        if task is None or task.ended_at is None or task.has_retry_left:
            return False
        age = (utcnow() - task.ended_at).total_seconds()
        return age > monotonic() - self._since(stored.record.task_key) + MARK_SLACK_SECONDS

    def _since(self, key: TaskKey) -> float:
        return max(self._ended[name] for name in self._names(key) if name in self._ended)

    def _forget_all_but(self, keys: Collection[TaskKey]) -> None:
        names = {name for key in keys for name in self._names(key)}
        self._ended = {ended: since for ended, since in self._ended.items() if ended in names}
        self._watched = {key: watched for key, watched in self._watched.items() if key in keys}

    def _act(self, records: Sequence[StoredRecord], *, is_cancel: bool) -> None:
        if records:
            action = asyncio.create_task(self._cancel(records) if is_cancel else self._clean_up(records))
            self._actions.add(action)
            action.add_done_callback(self._actions.discard)

    async def _cancel(self, records: Sequence[StoredRecord]) -> None:
        try:
            # The task of another DAG run may wait for the same job.
            others = await asyncio.to_thread(read_records)
            listing = await examine(without_awaited(records, others.records))
            results = await cancel_found(listing.orphans)
        except Exception:
            log.exception("The Planasonix jobs of ended tasks could not be cancelled yet. %s", _COMMAND)
            self._try_again(records)
            return
        for problem in listing.problems:
            log.warning("%s %s", problem, _COMMAND)
        for result in results:
            log.warning("The task was ended by hand. %s", result.message)
        failed = [result.orphan.stored for result in results if result.outcome == "failed"]
        self._try_again(records if listing.problems else failed)

    def _try_again(self, records: Sequence[StoredRecord]) -> None:
        for stored in records:
            if watched := self._watched.get(stored.record.task_key):
                watched.is_cancelled = False

    async def _clean_up(self, records: Sequence[StoredRecord]) -> None:
        try:
            await examine(records)
        except Exception as error:
            log.info("The records of ended tasks could not be deleted: %r", error)


_COMMAND = "To cancel them: `python -m planasonix_provider orphans --cancel`"


def watch(pending: Queue[EndedTasks]) -> None:
    """Watch ended tasks for as long as this process lives."""
    while True:
        watch_next(pending)


def watch_next(pending: Queue[EndedTasks]) -> None:
    """Wait for the next ended task, and watch it and those that follow until none is left."""
    first = pending.get()
    clock.run(EndedTaskWatcher(pending, {first: monotonic()}).run())
    # The queue has unfinished tasks as long as a watcher runs.
    pending.task_done()
