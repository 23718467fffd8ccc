"""What webhooks tell of: events, and the watch that notices when a job or a backfill makes one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice

from pydantic_core import to_json

from planasonix_provider.api.states import BACKFILL_OVER
from planasonix_provider.simulator.backfills import PlannedBackfill
from planasonix_provider.simulator.jobs import PlannedJob
from planasonix_provider.simulator.shelf import Shelf
from planasonix_provider.simulator.sources import Ids


@dataclass(frozen=True)
class Event:
    """Something that happened to a job or a backfill.

    :param id: its id, the same however often it is delivered.
    :param type: what happened, as ``job.succeeded``.
    :param at: when it happened.
    :param subject_id: the id of the job or the backfill.
    """

    id: str
    type: str
    at: datetime
    subject_id: str

    @cached_property
    def body(self) -> bytes:
        """The event as it goes over the wire."""
        kind, _, status = self.type.rpartition(".")
        subject = "backfill_id" if kind == "backfill" else "job_id"
        return to_json(
            {
                "id": self.id,
                "type": self.type,
                "timestamp": self.at,
                subject: self.subject_id,
                "data": {"status": status},
            }
        )


class Watch:
    """Notices what happens to jobs and backfills, which follow from plan and clock and tell nobody.

    :param jobs: all jobs.
    :param backfills: all backfills.
    :param ids: makes the events' ids.
    """

    def __init__(self, jobs: Shelf[PlannedJob], backfills: Shelf[PlannedBackfill], ids: Ids) -> None:
        self._jobs = jobs
        self._backfills = backfills
        self._ids = ids
        self._jobs_seen = self._backfills_seen = 0
        self._active_jobs: list[str] = []
        self._active_backfills: list[PlannedBackfill] = []

    def begin(self, now: datetime) -> None:
        """Take what happened so far as known.

        :param now: until which moment.
        """
        self._jobs_seen, self._backfills_seen = len(self._jobs), len(self._backfills)
        self._active_jobs = [job.id for job in self._jobs.newest_first() if now < job.ends_at]
        self._active_backfills = [
            backfill for backfill in self._backfills.newest_first() if backfill.status_at(now) not in BACKFILL_OVER
        ]

    def look(self, now: datetime) -> list[Event]:
        """Notice what happened since the last look.

        :param now: until which moment; all jobs that are due by then are made.
        :return: the events, in the order in which they happened.
        """
        events = [*self._new_jobs(), *self._ended_jobs(now), *self._completed_backfills(now)]
        return sorted(events, key=lambda event: event.at)

    def _new_jobs(self) -> Iterator[Event]:
        new = list(islice(self._jobs.newest_first(), len(self._jobs) - self._jobs_seen))
        self._jobs_seen += len(new)
        for job in reversed(new):
            self._active_jobs.append(job.id)
            yield self._event("job.queued", job.created_at, job.id)

    def _ended_jobs(self, now: datetime) -> Iterator[Event]:
        jobs = [self._jobs.get(job_id) for job_id in self._active_jobs]
        self._active_jobs = [job.id for job in jobs if now < job.ends_at]
        for job in jobs:
            if now >= job.ends_at:
                yield self._event(f"job.{job.status_at(now)}", job.ends_at, job.id)

    def _completed_backfills(self, now: datetime) -> Iterator[Event]:
        new = islice(self._backfills.newest_first(), len(self._backfills) - self._backfills_seen)
        self._active_backfills.extend(new)
        self._backfills_seen = len(self._backfills)
        still_active = []
        for backfill in self._active_backfills:
            status = backfill.status_at(now)
            if status not in BACKFILL_OVER:
                still_active.append(backfill)
            elif status == "completed":
                ended_at = max(job.ends_at for job in backfill.jobs)
                yield self._event("backfill.completed", ended_at, backfill.id)
        self._active_backfills = still_active

    def _event(self, event_type: str, at: datetime, subject_id: str) -> Event:
        return Event(self._ids("evt"), event_type, at, subject_id)
