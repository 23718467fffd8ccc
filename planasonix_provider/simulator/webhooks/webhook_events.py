"""What webhooks tell of: the events that come of what happens to jobs and backfills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob


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


@dataclass(frozen=True)
class StateChanges:
    """What happened to jobs and backfills since somebody looked last.

    :param started: the jobs that were started.
    :param ended: the jobs that ended.
    :param backfills: the backfills that are over.
    """

    started: Sequence[SimulatedJob]
    ended: Sequence[SimulatedJob]
    backfills: Sequence[SimulatedBackfill]

    def events(self, ids: Ids) -> list[Event]:
        """Tell it as events.

        :param ids: makes their ids.
        :return: the events, in the order in which they happened.
        """
        # Of backfills, the API tells only that one is completed.
        told = (one for one in self._all() if one[0] not in ("backfill.failed", "backfill.cancelled"))
        events = [Event(ids("evt"), *happened) for happened in told]
        return sorted(events, key=lambda event: event.at)

    def told(self, backfill_of: Callable[[SimulatedJob], str | None]) -> list[dict[str, Any]]:
        """Tell all of it in plain words.

        :param backfill_of: tells which backfill has made a job.
        :return: what happened, each with ``what``, ``at`` and ``id``; the end of a job that a backfill has made, and
            its start, with its ``backfill_id``.
        """
        makers = {job.id: maker for job in (*self.started, *self.ended) if (maker := backfill_of(job))}
        return [
            {"what": what, "at": at.isoformat(), "id": id_, **({"backfill_id": makers[id_]} if id_ in makers else {})}
            for what, at, id_ in self._all()
        ]

    def _all(self) -> Iterator[tuple[str, datetime, str]]:
        for job in self.started:
            yield "job.queued", job.created_at, job.id
        for job in self.ended:
            yield f"job.{job.status_at(job.ends_at)}", job.ends_at, job.id
        for backfill in self.backfills:
            yield f"backfill.{backfill.status_at(backfill.ends_at)}", backfill.ends_at, backfill.id
