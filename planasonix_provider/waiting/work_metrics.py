"""Counts starts and ends of jobs and backfills. docs/metrics.md says which process counts what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from planasonix_provider import metrics
from planasonix_provider.api.models import Backfill
from planasonix_provider.waiting.targets import Work

_COUNTERS = {
    "succeeded": metrics.JOB_SUCCEEDED,
    "completed": metrics.JOB_SUCCEEDED,
    "failed": metrics.JOB_FAILED,
    "cancelled": metrics.JOB_CANCELLED,
}


@dataclass(frozen=True)
class WorkMetrics:
    """Counts for one task, or for the trigger of one.

    :param conn_id: the id of the Airflow connection.
    :param source: whether the task is an operator that starts work, or a sensor.
    :param connection_id: the connection in Planasonix, for responses that do not name it.
    """

    conn_id: str
    source: Literal["operator", "sensor"]
    connection_id: str | None = None

    def count_start(self, work: Work) -> None:
        """Count work that the task has started, once its id is known."""
        metrics.JOB_STARTED.add(1, self._tags(work))

    def count_reconnect(self, work: Work) -> None:
        """Count a try that continues the work of an earlier try."""
        metrics.JOB_RECONNECTED.add(1, self._tags(work))

    def count_search(self, kind: str) -> None:
        """Count a search for the work of a start whose response was lost."""
        metrics.JOB_SEARCHED.add(1, {"conn_id": self.conn_id, "connection_id": self.connection_id, "kind": kind})

    def count_rows(self, work: Work, rows: int) -> None:
        """Count the rows that the task's work has loaded."""
        metrics.JOB_ROWS_LOADED.add(rows, self._tags(work))

    def count_end(self, work: Work) -> None:
        """Count work whose end the task has seen. An unknown state is not counted."""
        if work.is_over and (counter := _COUNTERS.get(work.status)):
            tags = self._end_tags(work)
            counter.add(1, tags)
            if (seconds := _duration(work)) is not None:
                metrics.JOB_DURATION.record(seconds, tags | {"status": work.status})

    def count_cancel(self, work: Work) -> None:
        """Count work that the task or its trigger has cancelled; ``work`` is the response to the cancel."""
        # A backfill that is not over may go on, and one that has ended otherwise is counted by the task that sees it.
        if work.status == "cancelled" or (work.status == "cancelling" and not isinstance(work, Backfill)):
            metrics.JOB_CANCELLED.add(1, self._end_tags(work))

    def record_delay(self, work: Work, noticed_at: datetime, skew: timedelta | None) -> None:
        """Record how late the task has noticed the end of its work; ``skew`` is how far the API's clock is ahead."""
        if ended_at := end_of(work):
            seconds = (noticed_at + (skew or timedelta()) - ended_at).total_seconds()
            metrics.JOB_EVENT_DELAY.record(seconds, self._end_tags(work))

    def _tags(self, work: Work) -> dict[str, str | None]:
        kind = "backfill" if isinstance(work, Backfill) else "job"
        return {"conn_id": self.conn_id, "connection_id": work.connection_id or self.connection_id, "kind": kind}

    def _end_tags(self, work: Work) -> dict[str, str | None]:
        return self._tags(work) | {"source": self.source}


def end_of(work: Work) -> datetime | None:
    """Return when finished work has ended, if the response says so. Of a backfill it is the last change."""
    return work.updated_at if isinstance(work, Backfill) else work.finished_at


def _duration(work: Work) -> float | None:
    if not isinstance(work, Backfill) and work.duration_seconds is not None:
        return float(work.duration_seconds)
    began, ended = work.created_at if isinstance(work, Backfill) else work.started_at, end_of(work)
    return (ended - began).total_seconds() if began and ended else None
