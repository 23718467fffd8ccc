"""A Planasonix in memory: jobs that end out of order, and are listed late, behind an API that fails at times."""

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


@dataclass
class Life:
    """A job's, or a backfill's; in seconds since the history began.

    :param id: its id.
    :param created: when it was created.
    :param ends: when it ends.
    :param late: how much later than it was created lists show it.
    :param fields: what else it has.
    """

    id: str
    created: float
    ends: float
    listing_delay: float = 0.0
    outcome: str = "succeeded"
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class History:
    """Answers as a channel does, on virtual time.

    :param jobs: all jobs that there ever are.
    :param backfills: all backfills.
    :param outages: from when to when nothing is answered.
    :param newest_first: whether lists are in this order; otherwise in none.
    :param page_size: how many things a page shows.
    :param ahead: by how much its clock is ahead.
    :param has_dates: whether its answers say so.
    :param dates_ahead: by how much more they say.
    :param error: what an outage is.
    :param unreadable: whose rows in lists have no state.
    :param is_unreadable_alone: whether these have none if they are requested by themselves, either.
    """

    jobs: list[Life] = field(default_factory=list)
    backfills: list[Life] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    newest_first: bool = True
    page_size: int = 100
    ahead: timedelta = timedelta()
    has_dates: bool = True
    dates_ahead: timedelta = timedelta()
    error: Callable[[], PlanasonixError] = lambda: PlanasonixServerError("no", status=503)
    gone: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    is_unreadable_alone: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    retry_after_remaining: float = 0.0

    @property
    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """The time of the machine that asks."""
        return BEGAN + timedelta(seconds=self.time)

    @property
    def skew(self) -> timedelta | None:
        # In whole seconds, as the header Date has them.
        there = (self.now() + self.ahead + self.dates_ahead).replace(microsecond=0)
        return there - self.now() if self.has_dates else None

    async def ask(self, request: Request[Any]) -> Any:
        self.asked[f"{request.path} {request.query.get('status') or ''}".strip()] += 1
        await asyncio.sleep(0.02)
        if any(begin <= self.time < end for begin, end in self.outages):
            raise self.error()
        lives, model = (self.backfills, Backfill) if "backfill" in request.path else (self.jobs, Job)
        if request.ids:
            (work_id,) = request.ids.values()
            found = [life for life in lives if life.id == work_id and life.id not in self.gone]
            if not found:
                raise PlanasonixNotFoundError(f"no {work_id}", status=404)
            if self.is_unreadable_alone and work_id in self.unreadable:
                raise PlanasonixUnreadableError(f"{work_id} has no state")
            return self._shown(found[0], model, whole=True)
        return self._page(lives, model, dict(request.query))

    async def send(self, request: Request[Any], *, retry: bool = True) -> Any:
        return await self.ask(request)

    def _page(self, lives: list[Life], model: Any, query: dict[str, Any]) -> Page[Any]:
        lives = [life for life in lives if life.created + life.listing_delay <= self.time and life.id not in self.gone]
        works = [self._shown(life, model) for life in lives]
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

    def _shown(self, life: Life, model: Any, *, whole: bool = False) -> Any:
        is_over = life.ends <= self.time
        created = (BEGAN + self.ahead + timedelta(seconds=life.created)).replace(microsecond=0)
        details: dict[str, Any] = {}
        if whole and model is Job:
            details = {"finished_at": created + timedelta(seconds=life.ends - life.created)} if is_over else {}
        status = life.outcome if is_over else "running"
        return model(id=life.id, status=status, created_at=created, **details, **life.fields)
