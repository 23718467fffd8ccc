"""The filters of list pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import to_json

from planasonix_provider.simulator.api.responses import invalid_value
from planasonix_provider.simulator.model.paging import BackfillQuery, JobQuery, PageQuery
from planasonix_provider.simulator.model.simulated_backfills import SimulatedBackfill
from planasonix_provider.simulator.model.simulated_jobs import SimulatedJob

Q = TypeVar("Q", bound=PageQuery)


class JobFilter(JobQuery):
    """Filters jobs also by a text in their ids, error or metadata, ignoring case."""

    text: str | None = None

    def matches(self, job: SimulatedJob, now: datetime) -> bool:
        if not super().matches(job, now):
            return False
        if self.text is None:
            return True
        error = (job.error.code, job.error.message) if job.status_at(now) == "failed" else ()
        ids = (job.id, job.connection_id, job.body.pipeline_id or "")
        return _contains(self.text, (*ids, *error), job.body.metadata)


class BackfillFilter(BackfillQuery):
    """Filters backfills also by a text in their ids, tables or metadata, ignoring case."""

    text: str | None = None

    def matches(self, backfill: SimulatedBackfill, now: datetime) -> bool:
        if not super().matches(backfill, now):
            return False
        names = (backfill.id, backfill.connection_id, *(backfill.body.tables or ()))
        return self.text is None or _contains(self.text, names, backfill.body.metadata)


def read_filter(kind: type[Q], query: Mapping[str, str]) -> Q:
    """Return the filter in a page's query; empty fields are ignored."""
    try:
        return kind.model_validate({name: value.strip() for name, value in query.items() if value.strip()})
    except ValidationError as error:
        raise invalid_value(error) from None


def next_page_query(page_filter: PageQuery, end: int | None) -> str | None:
    """Return the query of the next page; ``None`` if this page, which ended at ``end``, was the last."""
    if end is None:
        return None
    filters = page_filter.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"cursor"})
    return urlencode({**filters, "cursor": page_filter.cursor_after(end)})


def _contains(text: str, names: tuple[str, ...], metadata: Mapping[str, Any] | None) -> bool:
    text = text.casefold()
    return any(text in name.casefold() for name in names) or bool(
        # to_json is five times as fast as json.dumps, and a text without matches reads all jobs.
        metadata and text in to_json(metadata, fallback=str).decode().casefold()
    )
