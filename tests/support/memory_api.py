"""An API that answers from lists of jobs and backfills in memory, without HTTP, and logs its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job, JobResults, Page
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.request_flow import run_flow
from planasonix_provider.waiting.targets import Snapshot, WaitTarget

W = TypeVar("W", Job, Backfill)
NOW = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


def poll_once(subject: WaitTarget, there: MemoryApi, *, detailed: bool = False) -> Snapshot:
    """Poll a target once, at :data:`NOW`."""
    return run_flow(subject.poll(NOW, detailed=detailed), there.send)


@dataclass
class MemoryApi:
    """Answers from memory; :meth:`send_async` takes a moment for each response.

    It has the routes that waits use: a request of another route needs a line in :meth:`_respond`.

    :param jobs: all jobs, newest first.
    :param backfills: all backfills, newest first.
    :param results: the results of jobs; other jobs have loaded nothing.
    :param ignored_filters: the filters that lists do not know.
    :param hidden_fields: the fields that lists leave out.
    :param page_size: the maximum number of rows on a page of a list.
    :param unreadable_ids: the jobs and backfills whose rows in lists have no readable state.
    :param get_error: returns the error of a request, if any, by its text in ``requests``.
    :param requests: ``list running``, ``list backfills``, ``get job_1``, ``get bf_1``, ``cancel job_1``,
        ``results job_1``.
    """

    jobs: list[Job] = field(default_factory=list)
    backfills: list[Backfill] = field(default_factory=list)
    results: dict[str, JobResults] = field(default_factory=dict)
    ignored_filters: tuple[str, ...] = ()
    hidden_fields: tuple[str, ...] = ()
    page_size: int = 100
    unreadable_ids: tuple[str, ...] = ()
    get_error: Callable[[str], PlanasonixError | None] = lambda _: None
    requests: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def send(self, request: Request[Any]) -> Any:
        return self._respond(request)()

    async def send_async(self, request: Request[Any]) -> Any:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        respond = self._respond(request)
        try:
            await asyncio.sleep(0.01)
            return respond()
        finally:
            self.in_flight -= 1

    def _respond(self, request: Request[Any]) -> Callable[[], Any]:
        """Log the request, and return a function that returns its response or raises its error."""
        work_id = next(iter(request.ids.values()), "")
        query = dict(request.query)
        routes: dict[str, tuple[str, Callable[[], Any]]] = {
            "/jobs": (f"list {query.get('status')}", lambda: self._list(Job, self.jobs, query)),
            "/jobs/{job_id}": (f"get {work_id}", lambda: self.get_job(work_id)),
            "/jobs/{job_id}/cancel": (f"cancel {work_id}", lambda: self.cancel_job(work_id)),
            "/jobs/{job_id}/results": (f"results {work_id}", lambda: self._get_results(work_id)),
            "/backfills": ("list backfills", lambda: self._list(Backfill, self.backfills, query)),
            "/backfills/{backfill_id}": (f"get {work_id}", lambda: self.get_backfill(work_id)),
        }
        if request.path not in routes:
            raise NotImplementedError(f"tests/support/memory_api.py does not know {request}, only {', '.join(routes)}")
        text, respond = routes[request.path]
        self.requests.append(text)

        def respond_or_raise() -> Any:
            if error := self.get_error(text):
                raise error
            response = respond()
            if request.excluded_fields and isinstance(response, (Job, Backfill)):
                return response.model_copy(update=dict.fromkeys(request.excluded_fields))
            return response

        return respond_or_raise

    def get_job(self, job_id: str) -> Job:
        return _find(self.jobs, job_id)

    def get_backfill(self, backfill_id: str) -> Backfill:
        return _find(self.backfills, backfill_id)

    def set_status(self, job_id: str, status: str) -> Job:
        position = self.jobs.index(self.get_job(job_id))
        self.jobs[position] = self.jobs[position].model_copy(update={"status": status})
        return self.jobs[position]

    def cancel_job(self, job_id: str) -> Job:
        return job if (job := self.get_job(job_id)).is_over else self.set_status(job_id, "cancelled")

    def _get_results(self, job_id: str) -> JobResults:
        return self.results.get(job_id) or JobResults(job_id=job_id, status=self.get_job(job_id).status)

    def _list(self, model: type[W], works: list[W], query: dict[str, Any]) -> Page[W]:
        filters: dict[str, Callable[[Any, Any], bool]] = {
            "connection_id": lambda work, value: work.connection_id == value,
            "type": lambda work, value: work.type == value,
            "status": lambda work, value: work.status == value,
            "since": lambda work, value: work.created_at >= datetime.fromisoformat(value),
            "until": lambda work, value: work.created_at <= datetime.fromisoformat(value),
        }
        for name, matches in filters.items():
            if (value := query.get(name)) is not None and name not in self.ignored_filters:
                works = [work for work in works if matches(work, value)]
        begin = int(query.get("cursor") or 0)
        end = begin + min(self.page_size, query["limit"])
        rows = [work.model_dump(exclude=set(self.hidden_fields)) for work in works[begin:end]]
        rows = [row | {"status": None} if row["id"] in self.unreadable_ids else row for row in rows]
        page = {"data": rows, "meta": {"page": {"cursor": str(end) if end < len(works) else None}}}
        return Page[model].model_validate(page)  # type: ignore[valid-type]


def _find(works: list[W], work_id: str) -> W:
    for work in works:
        if work.id == work_id:
            return work
    raise PlanasonixNotFoundError(f"no {work_id}", status=404)


def fail_once(text: str, error: PlanasonixError) -> Callable[[str], PlanasonixError | None]:
    """Return a ``get_error`` for the first request with this text."""
    errors = [error]
    return lambda request: errors.pop() if errors and request == text else None


def fail_always(prefix: str, error: PlanasonixError) -> Callable[[str], PlanasonixError | None]:
    """Return a ``get_error`` for all requests whose text begins with the prefix."""
    return lambda request: error if request.startswith(prefix) else None
