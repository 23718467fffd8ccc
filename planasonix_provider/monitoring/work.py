"""Jobs and backfills: pages of them, and their rows in JSON types."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixValidationError
from planasonix_provider.api.models import Backfill, Job, Page, WorkError
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.api.states import ACTIVE_STATES, BACKFILL_STATES, JOB_STATES
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.monitoring.json_types import json_time
from planasonix_provider.monitoring.tasks import TaskRow
from planasonix_provider.validators import invalid_parameter
from planasonix_provider.waiting.report import first_job_of
from planasonix_provider.waiting.shared_client import AsyncSend
from planasonix_provider.waiting.targets import Work

Kind = Literal["job", "backfill"]

#: All states, and those in which work has not ended, as values of the filter.
ALL, ACTIVE = "all", "active"
#: How many pages of the API are read for one page.
MAX_PAGES = 5
_CANCELLING = "cancelling"


class WindowRow(TypedDict):
    """A window of time in JSON types."""

    start_at: str | None
    end_at: str | None


class WorkRow(TypedDict):
    """A job or a backfill in JSON types."""

    kind: Kind
    id: str
    connection_id: str | None
    type: str | None
    status: str
    is_over: bool
    progress_percent: float | None
    rows_loaded: int | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    duration_seconds: float | None
    window: WindowRow | None
    tables: list[str] | None
    error: str | None
    url: str | None
    task: TaskRow | None
    can_cancel: bool
    job_ids: list[str] | None


@dataclass(frozen=True)
class WorkQuery:
    """A list of jobs or backfills.

    :param state: a state, :data:`ACTIVE` or :data:`ALL`.
    :param since: only what was created since then. The API has no such filter for backfills.
    :param limit: how many there are on a page, at most :data:`PAGE_SIZE`.
    """

    kind: Kind
    state: str = ACTIVE
    since: datetime | None = None
    connection_id: str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        states = {ACTIVE, ALL} | (JOB_STATES if self.kind == "job" else BACKFILL_STATES)
        if self.state not in states:
            raise invalid_parameter("state", self.state, ", ".join(sorted(states)))
        if not 1 <= self.limit <= PAGE_SIZE:
            raise invalid_parameter("limit", self.limit, f"1 to {PAGE_SIZE}")

    @property
    def states(self) -> tuple[str | None, ...]:
        """The states of the lists that are read, in the order of the result: the API filters by one state."""
        if self.state == ALL:
            return (None,)
        if self.state != ACTIVE:
            return (self.state,)
        return ("running", _CANCELLING, "queued") if self.kind == "job" else ("running", "queued")


class _WorkCursor(BaseModel):
    """The place at which a page ends: a number of rows of a page of the API."""

    model_config = ConfigDict(strict=True, extra="forbid")

    state: int = Field(default=0, ge=0)
    cursor: str | None = None
    offset: int = Field(default=0, ge=0)
    # A relative time is another one for each page, and the API may refuse a cursor that belongs to other filters.
    since: AwareDatetime | None = None

    @classmethod
    def parse(cls, text: str, query: WorkQuery) -> _WorkCursor:
        try:
            cursor = cls.model_validate_json(base64.urlsafe_b64decode(text.encode()), strict=False)
        except (ValueError, ValidationError):
            raise invalid_parameter("cursor", text, "the next_cursor of a page") from None
        if cursor.state >= len(query.states):
            raise invalid_parameter("cursor", text, "the next_cursor of a page with the same filters")
        return cursor

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json(exclude_defaults=True).encode()).decode()


@dataclass(frozen=True)
class WorkPage:
    """A page of jobs or backfills; without a ``next_cursor`` it is the last one."""

    items: list[Work]
    next_cursor: str | None = None


async def list_work(send: AsyncSend, query: WorkQuery, cursor: str | None = None) -> WorkPage:
    """Return a page of jobs or backfills.

    Active work is running, then cancelling, then queued: each state is a list of its own. Work that changes its state
    between two pages may be on both.

    :raises ValueError: if the cursor is invalid.
    :raises PlanasonixError: if a request failed.
    """
    place = _WorkCursor.parse(cursor, query) if cursor else _WorkCursor(since=query.since)
    query = replace(query, since=place.since)
    lists = _Lists(send, query)
    if cursor is None:
        await lists.read_first_pages()
    items: dict[str, Work] = {}
    for _ in range(MAX_PAGES):
        page = await lists.read(place.state, place.cursor)
        for work in page.data[place.offset :]:
            if len(items) == query.limit:
                return WorkPage(list(items.values()), str(place))
            place = place.model_copy(update={"offset": place.offset + 1})
            if query.since is None or work.created_at is None or work.created_at >= query.since:
                items.setdefault(work.id, work)
        if page.cursor is not None:
            place = _WorkCursor(state=place.state, cursor=page.cursor, since=place.since)
        elif place.state + 1 < len(query.states):
            place = _WorkCursor(state=place.state + 1, since=place.since)
        else:
            return WorkPage(list(items.values()))
    return WorkPage(list(items.values()), str(place))


class _Lists:
    def __init__(self, send: AsyncSend, query: WorkQuery) -> None:
        self._send = send
        self._query = query
        self._first_pages: dict[int, Page[Any]] = {}

    async def read_first_pages(self) -> None:
        """Read the first page of each state.

        The requests are sent in the order of a job's life, so that none is missed that moves on meanwhile.
        """
        order = [index for index, _ in sorted(enumerate(self._query.states), key=lambda item: _age(item[1]))]
        pages = await asyncio.gather(*(self.read(index, None) for index in order))
        self._first_pages = dict(zip(order, pages, strict=True))

    async def read(self, index: int, cursor: str | None) -> Page[Any]:
        """Read a page of a state."""
        if cursor is None and index in self._first_pages:
            return self._first_pages[index]
        query, status = self._query, self._query.states[index]
        request: Any = (
            routes.list_jobs(
                connection_id=query.connection_id,
                status=status,
                # Active work is not filtered by the API, so that its lists are those that others read.
                since=None if query.state == ACTIVE else query.since,
                limit=PAGE_SIZE,
            )
            if query.kind == "job"
            else routes.list_backfills(connection_id=query.connection_id, status=status, limit=PAGE_SIZE)
        )
        try:
            page: Page[Any] = await self._send(request if cursor is None else request.next_page(cursor))
        except PlanasonixValidationError:
            # The reference does not name this state among the filters.
            if status != _CANCELLING or query.state != ACTIVE:
                raise
            return _NO_JOBS
        return page


def _age(state: str | None) -> int:
    return (*ACTIVE_STATES, _CANCELLING, None).index(state) if state in (*ACTIVE_STATES, _CANCELLING) else 0


_NO_JOBS: Page[Any] = Page.model_validate({"data": [], "meta": {"page": {}}})


def work_row(work: Work, settings: ConnectionSettings) -> WorkRow:
    """Return the row of a job or a backfill, without its task."""
    return _backfill_row(work, settings) if isinstance(work, Backfill) else _job_row(work, settings)


def _job_row(job: Job, settings: ConnectionSettings) -> WorkRow:
    duration = job.duration_seconds
    if duration is None and job.started_at and job.finished_at:
        duration = (job.finished_at - job.started_at).total_seconds()
    return {
        "kind": "job",
        "id": job.id,
        "connection_id": job.connection_id,
        "type": job.type,
        "status": job.status,
        "is_over": job.is_over,
        "progress_percent": None,
        "rows_loaded": job.metrics.rows_loaded if job.metrics else None,
        "created_at": json_time(job.created_at),
        "started_at": json_time(job.started_at),
        "finished_at": json_time(job.finished_at),
        "duration_seconds": duration,
        "window": None,
        "tables": None,
        "error": _error_text(job.error),
        "url": settings.job_url(job.id),
        "task": None,
        "can_cancel": False,
        "job_ids": None,
    }


def _backfill_row(backfill: Backfill, settings: ConnectionSettings) -> WorkRow:
    ended_at = backfill.updated_at if backfill.is_over else None
    duration = (ended_at - backfill.created_at).total_seconds() if ended_at and backfill.created_at else None
    job_id = first_job_of(backfill)
    return {
        "kind": "backfill",
        "id": backfill.id,
        "connection_id": backfill.connection_id,
        "type": None,
        "status": backfill.status,
        "is_over": backfill.is_over,
        "progress_percent": backfill.progress_percent,
        "rows_loaded": backfill.rows_processed,
        "created_at": json_time(backfill.created_at),
        "started_at": None,
        "finished_at": json_time(ended_at),
        "duration_seconds": duration,
        "window": {"start_at": json_time(backfill.start_at), "end_at": json_time(backfill.end_at)},
        "tables": backfill.tables,
        "error": _error_text(backfill.error),
        # Backfills have no page of their own.
        "url": settings.job_url(job_id) if job_id else None,
        "task": None,
        "can_cancel": False,
        "job_ids": backfill.job_ids,
    }


def _error_text(error: WorkError | None) -> str | None:
    return (": ".join(filter(None, (error.code, error.message))) or None) if error else None
