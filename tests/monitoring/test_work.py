from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixValidationError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.monitoring.api_reader import ApiReader
from planasonix_provider.monitoring.details import read_backfill, read_job
from planasonix_provider.monitoring.work import WorkQuery, list_work, work_row
from planasonix_provider.simulator import Simulator
from planasonix_provider.testing.travelled_clock import TravelledClock

CONNECTION = "conn_1"


def start(simulator: Simulator, number: int, **plan: Any) -> list[str]:
    """Start jobs, each on a connection of its own."""
    ids = []
    for _ in range(number):
        connection_id = f"conn_{uuid.uuid4().hex}"
        simulator.workspace.add_connection(connection_id)
        if plan:
            simulator.plan(connection_id, **plan)
        with PlanasonixHook() as hook:
            ids.append(hook.trigger_sync(connection_id).id)
    return ids


async def all_pages(reader: ApiReader, query: WorkQuery) -> list[list[str]]:
    pages, cursor = [], None
    for _ in range(20):
        page = await list_work(reader.send, query, cursor)
        pages.append([work.id for work in page.items])
        if not (cursor := page.next_cursor):
            return pages
    raise AssertionError("The list does not end.")


class TestLists:
    async def test_an_empty_list(self, reader: ApiReader) -> None:
        assert await all_pages(reader, WorkQuery("job")) == [[]]
        assert await all_pages(reader, WorkQuery("backfill", "all")) == [[]]

    async def test_every_active_job_is_on_one_page(self, reader: ApiReader, simulator: Simulator) -> None:
        queued = start(simulator, 7, queued_seconds=1_000)
        running = start(simulator, 4, queued_seconds=0, running_seconds=1_000, cancelling_seconds=1_000)
        with PlanasonixHook() as hook:
            hook.cancel_job(running[0])
        simulator.workspace.advance()
        pages = await all_pages(reader, WorkQuery("job", limit=3))
        ids = [job_id for page in pages for job_id in page]
        assert [len(page) for page in pages[:-1]] == [3] * (len(pages) - 1)
        assert sorted(ids) == sorted(set(queued + running))
        assert set(ids[:3]) == set(running[1:]), "running jobs come first"

    async def test_one_state(self, reader: ApiReader, simulator: Simulator) -> None:
        queued = start(simulator, 5, queued_seconds=1_000)
        pages = await all_pages(reader, WorkQuery("job", "queued", limit=2))
        assert [len(page) for page in pages] == [2, 2, 1]
        assert list(chain(*pages)) == queued[::-1]
        assert await all_pages(reader, WorkQuery("job", "succeeded")) == [[]]

    async def test_pages_of_the_api_are_followed(self, reader: ApiReader, simulator: Simulator) -> None:
        started = start(simulator, 130, queued_seconds=1_000)
        pages = await all_pages(reader, WorkQuery("job", "all", limit=60))
        assert [len(page) for page in pages] == [60, 60, 10]
        assert list(chain(*pages)) == started[::-1]

    async def test_only_one_connection(self, reader: ApiReader, simulator: Simulator) -> None:
        job_id, *_ = start(simulator, 3, queued_seconds=1_000)
        page = await list_work(reader.send, WorkQuery("job", connection_id=simulator.job(job_id).connection_id))
        assert [work.id for work in page.items] == [job_id]

    @pytest.mark.parametrize("kind", ["job", "backfill"])
    async def test_only_since_a_time(self, kind: Any, reader: ApiReader, simulator: Simulator) -> None:
        simulator.workspace.add_connection(CONNECTION)
        start(simulator, 1)
        with PlanasonixHook() as hook:
            hook.trigger_backfill(CONNECTION, start_at="2025-01-01", end_at="2025-02-01")
        now = datetime.now(UTC)
        for since, expected in ((now - timedelta(hours=1), True), (now + timedelta(hours=1), False)):
            page = await list_work(reader.send, WorkQuery(kind, "all", since))
            assert bool(page.items) is expected

    async def test_a_time_stays_the_same_on_all_pages(self, reader: ApiReader, simulator: Simulator) -> None:
        start(simulator, 5)
        now = datetime.now(UTC)
        first = await list_work(reader.send, WorkQuery("job", "all", now - timedelta(hours=1), limit=2))
        later = WorkQuery("job", "all", now - timedelta(minutes=1), limit=2)
        assert len((await list_work(reader.send, later, first.next_cursor)).items) == 2

    async def test_an_api_without_a_filter_for_cancelling_jobs(
        self, reader: ApiReader, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started = start(simulator, 1, queued_seconds=1_000)
        send = reader.send

        async def strict(request: Any) -> Any:
            if request.query.get("status") == "cancelling":
                raise PlanasonixValidationError("status: unknown")
            return await send(request)

        assert [work.id for work in (await list_work(strict, WorkQuery("job"))).items] == started
        with pytest.raises(PlanasonixValidationError):
            await list_work(strict, WorkQuery("job", "cancelling"))

    @pytest.mark.parametrize("cursor", ["x", "eyJzdGF0ZSI6OX0=", "eyJvZmZzZXQiOi0xfQ=="])
    async def test_an_invalid_cursor_is_refused(self, reader: ApiReader, cursor: str) -> None:
        with pytest.raises(ValueError, match="cursor: got"):
            await list_work(reader.send, WorkQuery("job"), cursor)

    @pytest.mark.parametrize("fields", [{"state": "completed"}, {"limit": 0}, {"limit": 101}], ids=str)
    def test_an_invalid_query_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="got"):
            WorkQuery("job", **fields)


class TestDetails:
    async def test_a_finished_job_has_tables(
        self, reader: ApiReader, simulator: Simulator, travel: TravelledClock
    ) -> None:
        (job_id,) = start(simulator, 1, tables={"public.orders": 44802})
        assert (await read_job(reader.send, job_id))[1] is None
        travel.sleep(60)
        job, tables = await read_job(reader.send, job_id)
        assert job.status == "succeeded"
        assert tables == [{"name": "public.orders", "rows_loaded": 44802}]

    async def test_a_backfill_has_jobs(self, reader: ApiReader, simulator: Simulator, travel: TravelledClock) -> None:
        simulator.workspace.add_connection(CONNECTION)
        simulator.plan_backfill(CONNECTION, jobs=3)
        start(simulator, 2)
        with PlanasonixHook() as hook:
            backfill_id = hook.trigger_backfill(CONNECTION, start_at="2025-01-01", end_at="2025-02-01").id
        travel.sleep(60)
        backfill, jobs = await read_backfill(reader.send, backfill_id)
        assert backfill.id == backfill_id
        assert {job.id for job in jobs} == set(backfill.job_ids or ())
        assert [job.started_at for job in jobs] == sorted(job.started_at for job in jobs if job.started_at)

    async def test_the_ended_jobs_of_a_backfill_are_read_once_for_their_ends(
        self, reader: ApiReader, simulator: Simulator, travel: TravelledClock
    ) -> None:
        simulator.workspace.add_connection(CONNECTION)
        simulator.plan_backfill(CONNECTION, jobs=30, parallel=25, job_seconds=60)
        with PlanasonixHook() as hook:
            backfill_id = hook.trigger_backfill(CONNECTION, start_at="2025-01-01", end_at="2025-02-01").id
        travel.sleep(90)
        ended: dict[str, Job] = {}
        for known in (20, 25, 25):
            _, jobs = await read_backfill(reader.send, backfill_id, ended)
            assert sum(bool(job.finished_at) for job in jobs) == known
        assert len(jobs) == 30
        assert sum(request.route == "get_job" for request in simulator.requests) == 25


class TestRows:
    def test_a_job(self, simulator: Simulator) -> None:
        job = Job.model_validate(
            {
                "id": "job_1",
                "type": "connection_sync",
                "status": "failed",
                "connection_id": "conn_1",
                "created_at": "2025-03-27T14:22:10Z",
                "started_at": "2025-03-27T14:22:12Z",
                "finished_at": "2025-03-27T14:23:12Z",
                "metrics": {"rows_loaded": 44802},
                "error": {"code": "timeout", "message": "The source was too slow."},
            }
        )
        assert work_row(job, PlanasonixHook().settings) == {
            "kind": "job",
            "id": "job_1",
            "connection_id": "conn_1",
            "type": "connection_sync",
            "status": "failed",
            "is_over": True,
            "progress_percent": None,
            "rows_loaded": 44802,
            "created_at": "2025-03-27T14:22:10Z",
            "started_at": "2025-03-27T14:22:12Z",
            "finished_at": "2025-03-27T14:23:12Z",
            "duration_seconds": 60.0,
            "window": None,
            "tables": None,
            "error": "timeout: The source was too slow.",
            "url": f"{simulator.url}/jobs/job_1",
            "task": None,
            "can_cancel": False,
            "job_ids": None,
        }

    def test_a_backfill(self, simulator: Simulator) -> None:
        backfill = Backfill.model_validate(
            {
                "id": "bf_1",
                "status": "completed",
                "connection_id": "conn_1",
                "start_at": "2025-01-01T00:00:00Z",
                "end_at": "2025-03-01T00:00:00Z",
                "tables": ["public.orders"],
                "progress_percent": 100,
                "rows_processed": 1849200,
                "job_ids": ["job_1", "job_2"],
                "created_at": "2025-03-27T14:25:00Z",
                "updated_at": "2025-03-27T14:28:00Z",
            }
        )
        row = work_row(backfill, PlanasonixHook().settings)
        assert row["window"] == {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
        assert (row["rows_loaded"], row["progress_percent"], row["duration_seconds"]) == (1849200, 100, 180.0)
        assert (row["job_ids"], row["tables"]) == (["job_1", "job_2"], ["public.orders"])
        assert row["url"] == f"{simulator.url}/jobs/job_1"

    def test_rows_of_a_list_have_gaps(self, simulator: Simulator) -> None:
        row = work_row(Job(id="job_1", status="running"), PlanasonixHook().settings)
        assert {row[name] for name in ("rows_loaded", "created_at", "duration_seconds", "error")} == {None}  # type: ignore[literal-required]
