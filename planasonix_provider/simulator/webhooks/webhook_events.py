"""Webhook events, made of the state changes of jobs and backfills."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pydantic_core import to_json

from planasonix_provider.simulator.model.clock_and_ids import Ids
from planasonix_provider.simulator.model.workload import StateChanges

#: The only event of a backfill that the API sends is ``backfill.completed``.
_NOT_SENT = ("backfill.failed", "backfill.cancelled")


@dataclass(frozen=True)
class Event:
    """An event such as ``job.succeeded``. Its id is the same in every delivery."""

    id: str
    type: str
    at: datetime
    subject_id: str

    @cached_property
    def body(self) -> bytes:
        """The request body of its deliveries."""
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


def events_of(changes: StateChanges, ids: Ids) -> list[Event]:
    """Return the events in the order in which they happened."""
    events = [Event(ids("evt"), *change) for change in changes if change.type not in _NOT_SENT]
    return sorted(events, key=lambda event: event.at)
