"""A Planasonix in memory: jobs end out of order and are listed late, and requests fail at times."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixServerError,
    PlanasonixUnreadableError,
)
from planasonix_provider.api.models import Backfill, Job, Page
from planasonix_provider.api.request import Request

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
NO_TIME = timedelta()


@dataclass
class Life:
    """A job or a backfill; times are in seconds since the history began.

    :param listing_delay: how long after its creation lists first contain it.
    :param fields: its further fields.
    """

    id: str
    created: float
    ends: float
    listing_delay: float = 0.0
    outcome: str = "succeeded"
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class History:
    """Responds as a client does, in virtual time.

    :param outages: beginnings and ends of outages, during which each request raises ``error``.
    :param newest_first: whether lists are sorted, newest first; otherwise they have no order.
    :param ahead: returns how far the API's clock is ahead at a time.
    :param has_dates: whether responses have the header ``Date``.
    :param dates_ahead: returns how far these headers are ahead of the API's clock at a time.
    :param deleted: ids of deleted jobs and backfills.
    :param unreadable: ids whose rows in lists have no state.
    :param is_unreadable_alone: whether the same is true of their own responses.
    :param on_request: called before each request is handled; may raise its error.
    :param change: returns another version of a response; its second argument is whether all fields are shown.
    """

    jobs: list[Life] = field(default_factory=list)
    backfills: list[Life] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    newest_first: bool = True
    page_size: int = 100
    ahead: Callable[[float], timedelta] = lambda time: NO_TIME
    has_dates: bool = True
    dates_ahead: Callable[[float], timedelta] = lambda time: NO_TIME
    error: Callable[[], PlanasonixError] = lambda: PlanasonixServerError("no", status=503)
    deleted: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    is_unreadable_alone: bool = False
    on_request: Callable[[Request[Any]], None] = lambda request: None
    change: Callable[[Any, bool], Any] = lambda work, is_whole: work
    #: The number of requests, by path without prefix, and state.
    requests: Counter[str] = field(default_factory=Counter)
    retry_after_remaining: float = 0.0
    conn_id: str = "planasonix_default"

    @property
    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the time of the machine that sends requests."""
        return BEGAN + timedelta(seconds=self.time)

    @property
    def skew(self) -> timedelta | None:
        # In whole seconds, like the header Date.
        date = (self.now() + self.ahead(self.time) + self.dates_ahead(self.time)).replace(microsecond=0)
        return date - self.now() if self.has_dates else None

    async def send(self, request: Request[Any], *, retry: bool = True) -> Any:
        self.requests[f"{request.path} {request.query.get('status') or ''}".strip()] += 1
        await asyncio.sleep(0.02)
        self.on_request(request)
        if any(begin <= self.time < end for begin, end in self.outages):
            raise self.error()
        lives, model = (self.backfills, Backfill) if "backfill" in request.path else (self.jobs, Job)
        if not request.ids:
            return self._page(lives, model, dict(request.query))
        (work_id,) = request.ids.values()
        found = [life for life in lives if life.id == work_id and life.id not in self.deleted]
        if not found:
            raise PlanasonixNotFoundError(f"no {work_id}", status=404)
        if self.is_unreadable_alone and work_id in self.unreadable:
            raise PlanasonixUnreadableError(f"{work_id} has no state")
        return self._work(found[0], model, is_whole=True)

    def _page(self, lives: list[Life], model: Any, query: dict[str, Any]) -> Page[Any]:
        works = [
            self._work(life, model)
            for life in lives
            if life.created + life.listing_delay <= self.time and life.id not in self.deleted
        ]
        since = datetime.fromisoformat(query["since"]) if query.get("since") else None
        found = [
            work
            for work in works
            if query.get("status") in (None, work.status)
            and query.get("connection_id") in (None, work.connection_id)
            and (since is None or work.created_at >= since)
        ]
        order = (lambda work: work.created_at) if self.newest_first else (lambda work: crc32(work.id.encode()))
        found.sort(key=order, reverse=True)
        begin = int(query.get("cursor") or 0)
        end = begin + min(self.page_size, query["limit"])
        meta = {"page": {"cursor": str(end) if end < len(found) else None}}
        rows = [{"id": work.id} if work.id in self.unreadable else work for work in found[begin:end]]
        return Page[model].model_validate({"data": rows, "meta": meta})

    def _work(self, life: Life, model: Any, *, is_whole: bool = False) -> Any:
        is_over = life.ends <= self.time
        # Work keeps the date that it was created with.
        created = (BEGAN + self.ahead(life.created) + timedelta(seconds=life.created)).replace(microsecond=0)
        fields = dict(life.fields)
        if is_whole and is_over and model is Job:
            fields["finished_at"] = created + timedelta(seconds=life.ends - life.created)
        status = life.outcome if is_over else "running"
        return self.change(model(id=life.id, status=status, created_at=created, **fields), is_whole)
