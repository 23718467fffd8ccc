"""Orphans: jobs and backfills that run on although the tasks that have started them are over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from planasonix_provider.monitoring.attempt_records import StoredRecord
from planasonix_provider.waiting.cli_hints import cancel_command, list_command
from planasonix_provider.waiting.targets import Work, target_of


@dataclass(frozen=True)
class Orphan:
    """A job or a backfill that runs on, although its task is over.

    :param stored: the record of the start, with the task's state.
    :param work: the job or the backfill; ``None`` if the start had no response, and it is unknown what it has started.
    """

    stored: StoredRecord
    work: Work | None

    @property
    def conn_id(self) -> str:
        """The Airflow connection."""
        return self.stored.record.planasonix_conn_id

    @property
    def dag_id(self) -> str:
        """The DAG of the task."""
        return self.stored.record.task_key.dag_id

    @property
    def connection_id(self) -> str:
        """Planasonix's connection."""
        return (self.work and self.work.connection_id) or self.stored.record.connection_id

    @property
    def kind(self) -> Literal["job", "backfill"]:
        """``job`` or ``backfill``."""
        return self.stored.record.kind

    @property
    def id(self) -> str | None:
        """The id of the job or the backfill, if it is known."""
        return self.work.id if self.work else None

    @property
    def status(self) -> str:
        """Its state in Planasonix, or ``unknown``."""
        return self.work.status if self.work else "unknown"

    @property
    def task_state(self) -> str | None:
        """The state of the task; ``None`` if the DAG run or the task is deleted."""
        return self.stored.task.state if self.stored.task else None

    @property
    def task_ended_at(self) -> datetime | None:
        """When the task ended, as far as Airflow knows."""
        return self.stored.task.ended_at if self.stored.task else None

    @property
    def started_at(self) -> datetime:
        """When the work was started."""
        return (self.work and self.work.created_at) or self.stored.record.last_sent_at

    @property
    def manual_command(self) -> str:
        """The command that cancels it, or that lists what it may be."""
        if self.work:
            return cancel_command(target_of(self.work), self.conn_id)
        return list_command(self.kind, self.connection_id, self.conn_id)


class ListingProblem(NamedTuple):
    """Why there may be more orphans, in a sentence; ``conn_id`` is ``None`` if that concerns no single connection."""

    conn_id: str | None
    text: str


@dataclass(frozen=True)
class OrphanListing:
    """The orphans that were found, and why there may be more."""

    orphans: Sequence[Orphan]
    all_problems: Sequence[ListingProblem] = ()

    @property
    def problems(self) -> list[str]:
        """The texts of the problems."""
        return [problem.text for problem in self.all_problems]
