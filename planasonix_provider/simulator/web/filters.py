"""What the lists of pages can be narrowed to."""

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
    """What is wanted of the jobs.

    :param text: only jobs with this text in their ids, their error or their metadata, whatever its case.
    """

    text: str | None = None

    def matches(self, job: SimulatedJob, now: datetime) -> bool:
        """Tell whether a job belongs to the list.

        :param job: the job.
        :param now: at which moment.
        :return: whether it passes all filters.
        """
        if not super().matches(job, now):
            return False
        if self.text is None:
            return True
        error = (job.error.code, job.error.message) if job.status_at(now) == "failed" else ()
        ids = (job.id, job.connection_id, job.body.pipeline_id or "")
        return _is_in(self.text, (*ids, *error), job.body.metadata)


class BackfillFilter(BackfillQuery):
    """What is wanted of the backfills.

    :param text: only backfills with this text in their ids, their tables or their metadata, whatever its case.
    """

    text: str | None = None

    def matches(self, backfill: SimulatedBackfill, now: datetime) -> bool:
        """Tell whether a backfill belongs to the list.

        :param backfill: the backfill.
        :param now: at which moment.
        :return: whether it passes all filters.
        """
        if not super().matches(backfill, now):
            return False
        ids = (backfill.id, backfill.connection_id, *(backfill.body.tables or ()))
        return self.text is None or _is_in(self.text, ids, backfill.body.metadata)


def read_filter(kind: type[Q], query: Mapping[str, str]) -> Q:
    """Read what is wanted; a field of a form that was left empty narrows nothing.

    :param kind: what can be wanted.
    :param query: the query of a page's address.
    :return: the filter.
    :raises Refused: as ``invalid_request``.
    """
    try:
        return kind.model_validate({name: value.strip() for name, value in query.items() if value.strip()})
    except ValidationError as error:
        raise invalid_value(error) from None


def next_page_query(wanted: PageQuery, end: int | None) -> str | None:
    """Make the query of the page that follows.

    :param wanted: what is wanted.
    :param end: where the page before it ended; ``None`` if no more follow.
    :return: the query, or ``None`` on the last page.
    """
    if end is None:
        return None
    filters = wanted.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"cursor"})
    return urlencode({**filters, "cursor": wanted.cursor_after(end)})


def _is_in(text: str, names: tuple[str, ...], metadata: Mapping[str, Any] | None) -> bool:
    sought = text.casefold()
    return any(sought in name.casefold() for name in names) or bool(
        # In a fifth of the time that json takes: a text that nothing has is looked for in all that is kept.
        metadata and sought in to_json(metadata, fallback=str).decode().casefold()
    )
