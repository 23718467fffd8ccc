"""The API as a few dicts in memory: what jobs there are, and what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from planasonix_provider.api.errors import PlanasonixError, PlanasonixNotFoundError
from planasonix_provider.api.models import Backfill, Job, JobResults, Page
from planasonix_provider.api.request import Request
from planasonix_provider.waiting.request_flow import run_flow
from planasonix_provider.waiting.targets import Snapshot, WaitTarget

NOW = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


def look(subject: WaitTarget, there: Memory, *, detailed: bool = False) -> Snapshot:
    """Look once, now."""
    return run_flow(subject.poll(NOW, detailed=detailed), there.send)


@dataclass
class Memory:
    """Answers from memory; awaited, it takes a moment for each answer.

    :param jobs: all jobs, newest first.
    :param backfill: the one backfill.
    :param results: what jobs have loaded; others have loaded nothing.
    :param ignores: the filters that lists do not know.
    :param hides: the fields of a job that lists leave out.
    :param page_size: how many jobs a page of a list holds at the most.
    :param unreadable: the jobs whose rows in lists have no state that can be read.
    :param fails: says for what is asked which error it ends with, if any.
    :param asked: what was asked, as ``get job_1``, ``list running``, ``cancel job_1``, ``results job_1``, ``look``.
    """

    jobs: list[Job] = field(default_factory=list)
    backfill: Backfill | None = None
    results: dict[str, JobResults] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    page_size: int = 100
    unreadable: tuple[str, ...] = ()
    fails: Callable[[str], PlanasonixError | None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def send(self, request: Request[Any]) -> Any:
        return self._answer(request)()

    async def send_aside(self, request: Request[Any]) -> Any:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        answer = self._answer(request)
        try:
            await asyncio.sleep(0.01)
            return answer()
        finally:
            self.in_flight -= 1

    def _answer(self, request: Request[Any]) -> Callable[[], Any]:
        ids = next(iter(request.ids.values()), None)
        what, answer = {
            "/jobs": (f"list {request.query.get('status')}", lambda: self._list(dict(request.query))),
            "/jobs/{job_id}": (f"get {ids}", lambda: self.job(str(ids))),
            "/jobs/{job_id}/cancel": (f"cancel {ids}", lambda: self.cancel(str(ids))),
            "/jobs/{job_id}/results": (f"results {ids}", lambda: self._results(str(ids))),
            "/backfills/{backfill_id}": ("look", self.look),
        }[request.path]
        self.asked.append(what)

        def answer_or_raise() -> Any:
            if error := self.fails(what):
                raise error
            return answer()

        return answer_or_raise

    def job(self, job_id: str) -> Job:
        for job in self.jobs:
            if job.id == job_id:
                return job
        raise PlanasonixNotFoundError(f"no {job_id}", status=404)

    def becomes(self, job_id: str, status: str) -> Job:
        """Let a job get on."""
        position = self.jobs.index(self.job(job_id))
        self.jobs[position] = self.jobs[position].model_copy(update={"status": status})
        return self.jobs[position]

    def cancel(self, job_id: str) -> Job:
        return job if (job := self.job(job_id)).is_over else self.becomes(job_id, "cancelled")

    def look(self) -> Backfill:
        assert self.backfill is not None
        return self.backfill

    def _results(self, job_id: str) -> JobResults:
        return self.results.get(job_id) or JobResults(job_id=job_id, status=self.job(job_id).status)

    def _list(self, query: dict[str, Any]) -> Page[Job]:
        filters: dict[str, Callable[[Job, Any], bool]] = {
            "connection_id": lambda job, wanted: job.connection_id == wanted,
            "type": lambda job, wanted: job.type == wanted,
            "status": lambda job, wanted: job.status == wanted,
            "since": lambda job, wanted: job.created_at >= datetime.fromisoformat(wanted),
            "until": lambda job, wanted: job.created_at <= datetime.fromisoformat(wanted),
        }
        found = self.jobs
        for name, counts in filters.items():
            if query.get(name) is not None and name not in self.ignores:
                found = [job for job in found if counts(job, query[name])]
        begin = int(query.get("cursor") or 0)
        end = begin + min(self.page_size, query["limit"])
        shown = [job.model_dump(exclude=set(self.hides)) for job in found[begin:end]]
        shown = [row | {"status": None} if row["id"] in self.unreadable else row for row in shown]
        return Page[Job].model_validate(
            {"data": shown, "meta": {"page": {"cursor": str(end) if end < len(found) else None}}}
        )


def fails_once(what: str, error: PlanasonixError) -> Callable[[str], PlanasonixError | None]:
    """Let one thing fail the first time that it is asked."""
    errors = [error]
    return lambda asked: errors.pop() if errors and asked == what else None


def fails_always(what: str, error: PlanasonixError) -> Callable[[str], PlanasonixError | None]:
    """Let everything fail whose name begins so."""
    return lambda asked: error if asked.startswith(what) else None
