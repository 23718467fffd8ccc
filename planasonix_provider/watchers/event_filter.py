"""Which finished jobs and backfills a watcher reports, and the payloads of its events. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from planasonix_provider.api.json_bodies import make_storable
from planasonix_provider.api.models import Backfill
from planasonix_provider.waiting.attempt import ATTEMPT_KEY
from planasonix_provider.waiting.targets import Work

#: The type of backfills, and of the jobs that a backfill creates.
BACKFILL = "backfill"
#: How many characters the metadata of an event may have as JSON: an event is a row in Airflow's database.
MAX_METADATA = 16_000


@dataclass(frozen=True)
class EventFilter:
    """Decides which work a watcher reports; ``None`` matches everything.

    :param events: event types, as ``job.succeeded``.
    :param types: types of work; ``None`` matches all except the jobs that backfills create.
    :param ignore_own: whether to reject work that operators of this package have started, or the ids of the DAGs whose
        work to reject.
    """

    events: frozenset[str]
    connection_id: str | None = None
    pipeline_id: str | None = None
    types: frozenset[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ignore_own: bool | frozenset[str] = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return which lists can contain matching work: ``job``, ``backfill``."""
        named = {event.partition(".")[0] for event in self.events}
        has_backfills = BACKFILL in named and self.pipeline_id is None and self._is_type(BACKFILL, only_if_named=False)
        has_jobs = "job" in named or not has_backfills
        return ("job",) * has_jobs + (BACKFILL,) * has_backfills

    @property
    def needs_metadata(self) -> bool:
        """Return whether a match depends on metadata."""
        return bool(self.metadata or self.ignore_own)

    def could_match(self, work: Work) -> bool:
        """Return whether work may match when it has ended; fields that a list leaves out do not count."""
        return (
            self.connection_id in (None, work.connection_id or self.connection_id)
            and self.pipeline_id in (None, _pipeline_of(work) or self.pipeline_id)
            and (_type_of(work) is None or self._is_type(_type_of(work), only_if_named=not isinstance(work, Backfill)))
        )

    def has_event(self, work: Work) -> bool:
        """Return whether finished work has one of the event types."""
        return event_of(work) in self.events

    def matches(self, work: Work) -> bool:
        """Return whether finished work, with all its fields, matches."""
        metadata = work.metadata or {}
        return (
            self.could_match(work)
            and self.has_event(work)
            and self.connection_id in (None, work.connection_id)
            and self.pipeline_id in (None, _pipeline_of(work))
            and (self.types is None or _type_of(work) in self.types)
            and all(name in metadata and metadata[name] == value for name, value in self.metadata.items())
            and not self._is_own(metadata)
        )

    def _is_own(self, metadata: Mapping[str, Any]) -> bool:
        if not self.ignore_own or ATTEMPT_KEY not in metadata:
            return False
        return self.ignore_own is True or metadata.get("dag_id") in self.ignore_own

    def _is_type(self, kind: str | None, *, only_if_named: bool) -> bool:
        # The jobs of a backfill match only if types names them, because the backfill itself is reported.
        return kind in self.types if self.types is not None else not (only_if_named and kind == BACKFILL)


def event_of(work: Work) -> str:
    """Return the event type of finished work, as ``job.succeeded``."""
    return f"{BACKFILL if isinstance(work, Backfill) else 'job'}.{work.status}"


def started_by_an_asset(work: Work) -> str | None:
    """Return the id of the DAG whose operator has started the work, if an asset had started the DAG run."""
    metadata = work.metadata or {}
    is_triggered = ATTEMPT_KEY in metadata and str(metadata.get("run_id")).startswith("asset_triggered")
    return str(metadata.get("dag_id")) if is_triggered else None


def event_payload(work: Work, job_url: Callable[[str], str]) -> dict[str, Any]:
    """Return the payload of an event in JSON types; docs/event-driven-dags.md lists the fields."""
    known = work.known_fields("metadata", "job_ids", "tables")
    shared = {
        "event": event_of(work),
        "type": _type_of(work),
        "connection_id": work.connection_id,
        "pipeline_id": _pipeline_of(work),
        "status": work.status,
        "created_at": known["created_at"],
        "error": known["error"],
        "metadata": _limited(work.metadata),
    }
    if isinstance(work, Backfill):
        # The API does not report when a backfill ended, only when it changed last.
        rows = None if work.rows_processed is None else {"rows_processed": work.rows_processed}
        return shared | {
            "backfill_id": work.id,
            "finished_at": known["updated_at"],
            "window": {"start_at": known["start_at"], "end_at": known["end_at"]},
            "metrics": rows,
            "job_url": None,
        }
    return shared | {
        "job_id": work.id,
        "finished_at": known["finished_at"],
        "window": {"start_at": known["started_at"], "end_at": known["finished_at"]},
        "metrics": known["metrics"],
        "job_url": job_url(work.id),
    }


def _limited(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the first pairs that fit into ``MAX_METADATA`` characters."""
    if not metadata:
        return metadata
    limited, left = {}, MAX_METADATA
    for name, value in make_storable(metadata).items():
        if (size := len(json.dumps({name: value}))) <= left:
            limited[name] = value
            left -= size
    return limited


def _type_of(work: Work) -> str | None:
    return BACKFILL if isinstance(work, Backfill) else work.type


def _pipeline_of(work: Work) -> str | None:
    return None if isinstance(work, Backfill) else work.pipeline_id
