"""Which ends of jobs and backfills a watcher wants to be told of, and what it is told. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from planasonix_provider.api.json_bodies import make_storable
from planasonix_provider.api.models import Backfill
from planasonix_provider.waiting.attempt import ATTEMPT_KEY
from planasonix_provider.waiting.targets import Work

#: The type that backfills have, and the jobs that they are made of.
BACKFILL = "backfill"
#: How many characters the metadata of an event may have as JSON: an event is a row in Airflow's database.
MAX_METADATA = 16_000


@dataclass(frozen=True)
class EventFilter:
    """What a watcher wants.

    :param events: the ends, as ``job.succeeded``.
    :param connection_id: only those of this connection of Planasonix's; ``None`` is any.
    :param pipeline_id: only those of this pipeline; ``None`` is any.
    :param types: only those of these types; ``None`` is any, but for the jobs that backfills are made of.
    :param metadata: only those whose metadata has all of this.
    :param ignore_own: whether none that an operator of this package has started, or none that one has started in the
        DAGs of these ids.
    """

    events: frozenset[str]
    connection_id: str | None = None
    pipeline_id: str | None = None
    types: frozenset[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ignore_own: bool | frozenset[str] = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which lists have what is wanted: ``job``, ``backfill``."""
        named = {event.partition(".")[0] for event in self.events}
        has_backfills = BACKFILL in named and self.pipeline_id is None and self._is_type(BACKFILL, only_if_named=False)
        has_jobs = "job" in named or not has_backfills
        return ("job",) * has_jobs + (BACKFILL,) * has_backfills

    @property
    def needs_metadata(self) -> bool:
        """Whether the metadata decides."""
        return bool(self.metadata or self.ignore_own)

    def could_match(self, work: Work) -> bool:
        """Say whether something may be wanted once it has ended, by what a list shows of it.

        :param work: a job or backfill.
        :return: whether nothing speaks against it; of what is not shown, nothing does.
        """
        return (
            self.connection_id in (None, work.connection_id or self.connection_id)
            and self.pipeline_id in (None, _pipeline_of(work) or self.pipeline_id)
            and (_type_of(work) is None or self._is_type(_type_of(work), only_if_named=not isinstance(work, Backfill)))
        )

    def has_event(self, work: Work) -> bool:
        """Say whether the way in which something has ended is wanted.

        :param work: what has ended.
        :return: whether it is.
        """
        return event_of(work) in self.events

    def matches(self, work: Work) -> bool:
        """Say whether the end of something is wanted.

        :param work: what has ended, with all that is known of it.
        :return: whether it is.
        """
        known = work.metadata or {}
        return (
            self.could_match(work)
            and self.has_event(work)
            and self.connection_id in (None, work.connection_id)
            and self.pipeline_id in (None, _pipeline_of(work))
            and (self.types is None or _type_of(work) in self.types)
            and all(name in known and known[name] == value for name, value in self.metadata.items())
            and not self._is_own(known)
        )

    def _is_own(self, metadata: Mapping[str, Any]) -> bool:
        if not self.ignore_own or ATTEMPT_KEY not in metadata:
            return False
        return self.ignore_own is True or metadata.get("dag_id") in self.ignore_own

    def _is_type(self, kind: str | None, *, only_if_named: bool) -> bool:
        """The jobs of a backfill are no news beside the backfill, unless they are asked for."""
        return kind in self.types if self.types is not None else not (only_if_named and kind == BACKFILL)


def event_of(work: Work) -> str:
    """Name the event that the end of something is.

    :param work: what has ended.
    :return: as ``job.succeeded``.
    """
    return f"{BACKFILL if isinstance(work, Backfill) else 'job'}.{work.status}"


def started_by_an_asset(work: Work) -> str | None:
    """Name the DAG whose operator has started something in a run that an asset had started.

    :param work: a job or backfill, with all that is known of it.
    :return: the DAG's id, or ``None`` where it was not so.
    """
    known = work.metadata or {}
    is_so = ATTEMPT_KEY in known and str(known.get("run_id")).startswith("asset_triggered")
    return str(known.get("dag_id")) if is_so else None


def event_payload(work: Work, job_url: Callable[[str], str]) -> dict[str, Any]:
    """Say what has ended, and how.

    :param work: a job or backfill, with all that is known of it.
    :param job_url: gives the address of a job's page.
    :return: the payload of the event, in JSON types; see "What an event says" in the docs.
    """
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
        # Of when it has ended, the API says only when it changed last.
        rows = None if work.rows_processed is None else {"rows_processed": work.rows_processed}
        return shared | {
            "backfill_id": work.id,
            "finished_at": known["updated_at"],
            "metrics": rows,
            "job_url": None,
        }
    return shared | {
        "job_id": work.id,
        "finished_at": known["finished_at"],
        "metrics": known["metrics"],
        "job_url": job_url(work.id),
    }


def _limited(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Keep the first pairs, as many as an event has room for."""
    if not metadata:
        return metadata
    kept, left = {}, MAX_METADATA
    for name, value in make_storable(metadata).items():
        if (size := len(json.dumps({name: value}))) <= left:
            kept[name] = value
            left -= size
    return kept


def _type_of(work: Work) -> str | None:
    return BACKFILL if isinstance(work, Backfill) else work.type


def _pipeline_of(work: Work) -> str | None:
    return None if isinstance(work, Backfill) else work.pipeline_id
