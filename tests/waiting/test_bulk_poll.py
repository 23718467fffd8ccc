from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixError, PlanasonixTransportError, PlanasonixUnreadableError
from planasonix_provider.api.models import Job, JobPage, Metrics, Page, PageInfo, PageMeta
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.bulk_poll import MAX_BACKOFF_SECONDS, RECHECK_AFTER_SECONDS
from planasonix_provider.waiting.poller import Poller
from tests.support.api_errors import api_error
from tests.support.virtual_planasonix import Planasonix, all_answers

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
JOBS = "/api/v1/jobs"


def page(jobs: list[Job], cursor: str | None = None) -> Page[Job]:
    return Page[Job](data=jobs, meta=PageMeta(page=PageInfo(cursor=cursor)))


@dataclass
class Shelf:
    """Jobs, and lists of them with the newest first. ``listed`` changes or hides a job in the lists."""

    jobs: dict[str, Job] = field(default_factory=dict)
    listed: Callable[[Job], Job | None] = lambda job: job

    def add(self, ids: Iterable[str], status: str = "running") -> list[str]:
        ids = list(ids)
        for job_id in ids:
            created = BEGAN + timedelta(seconds=len(self.jobs))
            self.jobs[job_id] = Job(id=job_id, status=status, created_at=created)
        return ids

    def become(self, ids: Iterable[str], status: str) -> None:
        for job_id in ids:
            self.jobs[job_id] = self.jobs[job_id].model_copy(update={"status": status})

    def get(self, key: str, path: str) -> Job | Exception:
        return self.jobs[path.rsplit("/", 1)[1]]

    def list(self, query: dict[str, Any]) -> Page[Job]:
        since = query.get("since")
        shown = [
            entry
            for job in reversed(self.jobs.values())
            if (entry := self.listed(job)) and entry.status == query["status"]
            if since is None or entry.created_at >= datetime.fromisoformat(since)
        ]
        begin, limit = int(query.get("cursor", 0)), query["limit"]
        end = begin + limit
        return page(shown[begin:end], str(end) if end < len(shown) else None)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def there(shelf: Shelf) -> Planasonix:
    return Planasonix(answer=shelf.get, lists=shelf.list, seconds=0.001)


Answers = dict[str, list[Any]]


def wait_for_jobs(there: Planasonix, ids: Iterable[str], act: Callable[[], Any], *, interval: float = 5) -> Answers:
    """Wait for jobs until ``act`` returns; return the answers of each wait."""
    answers: Answers = {job_id: [] for job_id in ids}

    async def main() -> None:
        async with open_waits(Poller(there.connect), answers, interval=interval, answers=answers):
            await act()

    TravelledClock().run(main())
    return answers


@asynccontextmanager
async def open_waits(
    poller: Poller, ids: Iterable[str], *, pause: float = 0, interval: float = 5, answers: Answers | None = None
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Wait for jobs within the block; the waits begin one by one, with a pause between them."""

    async def hold(job_id: str) -> None:
        async with poller.wait(routes.get_job(job_id), interval) as wait:
            if answers is None:
                while True:
                    await wait.next(10_000)
            queue = all_answers(wait)
            while True:
                answers[job_id].append(await queue.get())

    waits = []
    for job_id in ids:
        waits.append(asyncio.create_task(hold(job_id)))
        if pause:
            await asyncio.sleep(pause)
    yield waits
    for wait in waits:
        wait.cancel()


def always_raise(error: PlanasonixError) -> Callable[..., Any]:
    """Return a function that raises an error, for ``answer`` or ``lists``."""

    def answer(*_: object) -> Any:
        raise error

    return answer


def ticks(number: int, interval: float = 5) -> Callable[[], Any]:
    return lambda: asyncio.sleep((number - 0.5) * interval)


def count_single_polls(there: Planasonix) -> int:
    """Return the number of polls of single jobs."""
    return there.asked.total() - there.asked[JOBS]


class TestUnreadableRows:
    ROWS: ClassVar[list[Any]] = [
        {"id": "job_odd"},
        {"status": "running"},
        {"id": 7, "status": "running"},
        {"id": "job_odd", "status": None},
        "job_odd",
        None,
    ]

    @pytest.mark.heavy
    @pytest.mark.parametrize("row", ROWS)
    def test_cause_no_single_polls_of_the_other_jobs(self, there: Planasonix, shelf: Shelf, row: Any) -> None:
        """Without this, each of 200 jobs was polled alone, which took 90 times as many requests."""

        def with_a_row(query: dict[str, Any]) -> Page[Job]:
            found = shelf.list(query)
            return JobPage.model_validate({"data": [row, *found.data], "meta": found.meta})

        there.lists = with_a_row
        ids = shelf.add(f"job_{n}" for n in range(200))
        received = wait_for_jobs(there, ids, ticks(4))
        assert there.asked[JOBS] <= 20
        assert count_single_polls(there) <= 10
        assert all(received.values())

    def test_are_polled_one_by_one(self, there: Planasonix, shelf: Shelf) -> None:
        def without_a_state(query: dict[str, Any]) -> Page[Job]:
            found = shelf.list(query)
            rows = [{"id": job.id} if job.id == "job_7" else job for job in found.data]
            return JobPage.model_validate({"data": rows, "meta": found.meta})

        there.lists = without_a_state
        ids = shelf.add(f"job_{n}" for n in range(200))
        assert "job_7" in ids
        received = wait_for_jobs(there, ids, ticks(6))
        assert len(received["job_7"]) >= 4
        assert all(isinstance(answer, Job) for answer in received["job_7"])
        assert count_single_polls(there) <= 15


class TestBulkPoll:
    def test_takes_one_page_per_hundred_running_jobs(self, there: Planasonix, shelf: Shelf) -> None:
        received = wait_for_jobs(there, shelf.add(f"job_{n}" for n in range(500)), ticks(4))
        assert there.asked == {JOBS: 4 * 5}
        assert all(len(answers) == 4 for answers in received.values())

    def test_requests_the_second_list_for_jobs_that_the_first_does_not_contain(
        self, there: Planasonix, shelf: Shelf
    ) -> None:
        ids = shelf.add(f"job_{n}" for n in range(150)) + shelf.add([f"queued_{n}" for n in range(50)], "queued")
        wait_for_jobs(there, ids, ticks(3))
        assert there.asked == {JOBS: 3 * 3}

    def test_takes_one_page_per_hundred_jobs_that_end(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))

        async def end() -> None:
            await asyncio.sleep(2)
            there.asked.clear()
            shelf.become(ids, "succeeded")
            await asyncio.sleep(4)

        received = wait_for_jobs(there, ids, end)
        # An empty page of running jobs, one of queued jobs, and five of succeeded jobs.
        assert there.asked == {JOBS: 2 + 5}
        assert {answers[-1].status for answers in received.values()} == {"succeeded"}

    def test_is_not_used_for_a_few_jobs(self, there: Planasonix, shelf: Shelf) -> None:
        wait_for_jobs(there, shelf.add(f"job_{n}" for n in range(4)), ticks(3))
        assert there.asked[JOBS] == 0
        assert count_single_polls(there) == 12

    def test_is_shared_by_waits_with_different_intervals(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(100))

        async def main() -> list[int]:
            poller = Poller(there.connect)

            async def count(job_id: str, interval: float) -> int:
                async with poller.wait(routes.get_job(job_id), interval) as wait:
                    answers, seen = all_answers(wait), 0
                    with suppress(TimeoutError):
                        async with asyncio.timeout(59):
                            while await answers.get():
                                seen += 1
                    return seen

            return await asyncio.gather(*(count(job_id, 5 + 7 * (n % 2)) for n, job_id in enumerate(ids)))

        seen = TravelledClock().run(main())
        # Each wait gets an answer at least as often as it wants, with the requests of the fastest wait.
        assert min(seen[0::2]) >= 11
        assert min(seen[1::2]) >= 4
        assert there.asked.total() <= 18

    @pytest.mark.parametrize(("pause", "most"), [(0, 3), (0.004, 3), (0.11, 20)])
    def test_is_used_by_waits_that_begin_one_by_one(
        self, there: Planasonix, shelf: Shelf, pause: float, most: int
    ) -> None:
        ids = shelf.add(f"job_{n}" for n in range(100))

        async def main() -> int:
            async with open_waits(Poller(there.connect), ids, pause=pause):
                await asyncio.sleep(4)
                begun = there.asked.total()
                await asyncio.sleep(10)
                there.asked.clear()
                await asyncio.sleep(50)
            return begun

        assert TravelledClock().run(main()) <= most
        assert there.asked.total() <= 12

    @pytest.mark.heavy
    def test_is_used_after_a_restart_that_begins_with_the_oldest_jobs(self, there: Planasonix, shelf: Shelf) -> None:
        # Lists begin with the newest job.
        ids = shelf.add(f"job_{n}" for n in range(1_000))

        async def main() -> None:
            async with open_waits(Poller(there.connect), ids, pause=0.003):
                await asyncio.sleep(12)

        TravelledClock().run(main())
        assert count_single_polls(there) <= 20
        assert there.asked[JOBS] <= 100

    @pytest.mark.heavy
    def test_is_kept_for_many_jobs_although_it_does_not_help_a_few(self, there: Planasonix, shelf: Shelf) -> None:
        few = shelf.add(f"old_{n}" for n in range(5))
        shelf.add(f"theirs_{n}" for n in range(5_000))
        many = shelf.add(f"job_{n}" for n in range(300))

        async def main() -> None:
            poller = Poller(there.connect)
            async with open_waits(poller, many):
                await asyncio.sleep(12)
                async with open_waits(poller, few):
                    await asyncio.sleep(2)
                    there.asked.clear()
                    await asyncio.sleep(20)

        TravelledClock().run(main())
        assert 4 * 3 <= there.asked[JOBS] <= 4 * 3 + 2 * 5
        assert count_single_polls(there) <= 4 * 5 + 5

    @pytest.mark.slow("simulates hours of many waits")
    def test_is_tried_rarely_if_the_lists_contain_thousands_of_jobs_of_others(
        self, there: Planasonix, shelf: Shelf
    ) -> None:
        ours = shelf.add(f"ours_{n}" for n in range(20))
        shelf.add(f"theirs_{n}" for n in range(50_000))
        wait_for_jobs(there, ours, ticks(720))
        assert there.asked.total() <= 20 * 720 * 1.007
        assert there.asked[JOBS] <= 5 * (6 + 12)

    def test_lists_only_jobs_since_the_oldest_one(self, there: Planasonix, shelf: Shelf) -> None:
        shelf.add(f"before_{n}" for n in range(1_000))
        ours = shelf.add(f"ours_{n}" for n in range(50))
        bounds = []
        lists, there.lists = there.lists, lambda query: bounds.append(query.get("since")) or lists(query)
        wait_for_jobs(there, ours, ticks(3))
        assert bounds == [None, "2025-03-27T14:38:50Z", "2025-03-27T14:38:50Z"]


class TestWrongLists:
    def test_that_hide_one_job_lead_to_polls_of_that_job(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(20))
        shelf.listed = lambda job: None if job.id == "job_7" else job
        received = wait_for_jobs(there, ids, ticks(10))
        assert count_single_polls(there) == 10
        assert len(received["job_7"]) == 10

    def test_that_show_finished_jobs_as_running_are_noticed_in_time(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(20))
        shelf.listed = lambda job: job.model_copy(update={"status": "running"})
        shelf.become(ids, "succeeded")
        received = wait_for_jobs(there, ids, lambda: asyncio.sleep(RECHECK_AFTER_SECONDS + 10))
        assert all(any(answer.status == "succeeded" for answer in answers) for answers in received.values())

    def test_that_ignore_the_filter_do_no_harm(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(20))
        shelf.become(ids[:3], "failed")
        there.lists = lambda query: page(list(shelf.jobs.values()))
        received = wait_for_jobs(there, ids, ticks(3))
        assert {job_id: answers[-1].status for job_id, answers in received.items()} == {
            job_id: job.status for job_id, job in shelf.jobs.items()
        }

    def test_that_are_late_cost_one_poll_per_job(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(50))
        shelf.listed = lambda job: None
        received = wait_for_jobs(there, ids, ticks(2))
        assert count_single_polls(there) == 100
        assert all(len(answers) == 2 for answers in received.values())

    def test_with_an_unknown_state_end_no_wait(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add([f"job_{n}" for n in range(20)], "paused")
        received = wait_for_jobs(there, ids, ticks(3))
        assert {answer.status for answers in received.values() for answer in answers} == {"paused"}

    @pytest.mark.heavy
    def test_whose_pages_change_under_the_cursor_block_no_wait(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))
        lists = there.lists

        def moving(query: dict[str, Any]) -> Page[Job]:
            page = lists(query)
            shelf.become(ids[:100], "queued" if shelf.jobs[ids[0]].status == "running" else "running")
            return page

        there.lists = moving
        received = wait_for_jobs(there, ids, ticks(4))
        assert all(len(answers) >= 4 for answers in received.values())

    @pytest.mark.heavy
    def test_whose_cursor_never_ends_block_no_wait(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))
        first = list(shelf.jobs.values())
        pages = iter([first[:100], first[100:200]] * 100)
        there.lists = lambda query: page(next(pages), "again")
        received = wait_for_jobs(there, ids, ticks(2))
        assert all(len(answers) == 2 for answers in received.values())


class TestRefusedLists:
    @pytest.mark.heavy
    @pytest.mark.parametrize(
        ("refusal", "times"), [(api_error(403), 1), (api_error(501), 1), (PlanasonixUnreadableError("nonsense"), 2)]
    )
    def test_are_replaced_by_polls_and_requested_again_later(
        self, there: Planasonix, shelf: Shelf, refusal: PlanasonixError, times: int
    ) -> None:
        ids = shelf.add(f"job_{n}" for n in range(20))
        lists, refused = there.lists, []

        def refuse(query: dict[str, Any]) -> Page[Job]:
            refused.append(asyncio.get_running_loop().time())
            if len(refused) <= times:
                raise refusal
            return lists(query)

        there.lists = refuse
        received = wait_for_jobs(there, ids, lambda: asyncio.sleep(MAX_BACKOFF_SECONDS + 60))
        assert refused[times] - refused[times - 1] > 14
        assert not any(isinstance(answer, PlanasonixError) for answers in received.values() for answer in answers)
        assert there.asked[JOBS] > 5

    @pytest.mark.heavy
    def test_end_no_wait_if_only_the_lists_are_down(self, there: Planasonix, shelf: Shelf) -> None:
        there.lists = always_raise(api_error(503))
        received = wait_for_jobs(there, shelf.add(f"job_{n}" for n in range(20)), ticks(100))
        assert all(len(answers) >= 99 for answers in received.values())
        assert not any(isinstance(answer, PlanasonixError) for answers in received.values() for answer in answers)


class TestAnOutage:
    @pytest.mark.heavy
    def test_is_detected_by_a_few_polls_for_all_waits(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))
        down = api_error(503)
        there.answer, there.lists = lambda key, path: down, always_raise(down)
        received = wait_for_jobs(there, ids, ticks(3))
        assert there.asked.total() <= 3 * 10
        assert all(answers == [down] * 3 for answers in received.values())

    @pytest.mark.slow("simulates hours of many waits")
    def test_of_half_of_the_jobs_does_not_stop_the_polls_of_the_others(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(100))
        there.lists = None
        there.answer = lambda key, path: api_error(500) if int(path[-1]) < 5 else shelf.get(key, path)
        received = wait_for_jobs(there, ids, ticks(40))
        healthy = [answers for job_id, answers in received.items() if int(job_id[-1]) >= 5]
        # The first five polls may all be polls of failing jobs.
        assert min(sum(isinstance(answer, Job) for answer in answers) for answers in healthy) >= 20

    def test_is_not_assumed_if_the_first_polls_hang(self, there: Planasonix, shelf: Shelf) -> None:
        hanging = shelf.add(f"job_{n}" for n in range(3))
        others = shelf.add(f"other_{n}" for n in range(10))
        there.lists = None
        there.slow = {f"{JOBS}/{job_id}": 1_000.0 for job_id in hanging}
        received = wait_for_jobs(there, [*hanging, *others], lambda: asyncio.sleep(30))
        assert min(len(received[job_id]) for job_id in others) > 3
        assert not any(received[job_id] for job_id in hanging)


class TestSlowResponses:
    @pytest.mark.heavy
    def test_do_not_extend_the_interval_of_a_wait(self, there: Planasonix, shelf: Shelf) -> None:
        there.seconds = 0.2
        times: list[list[float]] = []

        async def main() -> None:
            poller = Poller(there.connect)

            async def note(job_id: str) -> None:
                async with poller.wait(routes.get_job(job_id), 5) as one:
                    answers, seen = all_answers(one), []
                    times.append(seen)
                    while True:
                        await answers.get()
                        seen.append(asyncio.get_running_loop().time())

            waits = [asyncio.ensure_future(note(job_id)) for job_id in shelf.add(f"job_{n}" for n in range(500))]
            await asyncio.sleep(60)
            for one in waits:
                one.cancel()

        TravelledClock().run(main())
        assert max(after - before for seen in times for before, after in pairwise(seen)) < 6

    @pytest.mark.heavy
    def test_of_lists_time_out_as_early_as_those_of_a_job(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(100))
        there.slow = {JOBS: 125.0}
        received = wait_for_jobs(there, ids, lambda: asyncio.sleep(120))
        # The lists time out twice after five seconds. Then they are left out for longer and longer.
        assert min(len(answers) for answers in received.values()) >= (120 - 15) / 5 - 4
        assert there.asked[JOBS] <= 5


class TestTransientErrors:
    @pytest.mark.heavy
    @pytest.mark.parametrize(
        "error",
        [api_error(502), PlanasonixTransportError("reset", sent=True), api_error(401), api_error(429, retry_after=1)],
    )
    def test_of_one_page_cause_no_single_polls(self, there: Planasonix, shelf: Shelf, error: PlanasonixError) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))
        lists, asked = there.lists, []

        def break_once(query: dict[str, Any]) -> Page[Job]:
            asked.append(query)
            if len(asked) == 8:
                raise error
            return lists(query)

        there.lists = break_once
        received = wait_for_jobs(there, ids, ticks(4))
        assert count_single_polls(there) == 0
        assert min(len(answers) for answers in received.values()) >= 4

    @pytest.mark.heavy
    def test_of_the_rate_limit_never_cause_single_polls(self, there: Planasonix, shelf: Shelf) -> None:
        ids = shelf.add(f"job_{n}" for n in range(500))
        there.lists = always_raise(api_error(429, retry_after=1))
        wait_for_jobs(there, ids, lambda: asyncio.sleep(60))
        assert count_single_polls(there) == 0


@pytest.mark.heavy
def test_a_refused_key_is_detected_by_a_few_polls_for_all_waits(there: Planasonix, shelf: Shelf) -> None:
    ids = shelf.add(f"job_{n}" for n in range(500))
    refused = api_error(401)
    lists = there.lists

    def by_key(query: dict[str, Any]) -> Page[Job]:
        # ``lists`` does not get the key of the request.
        if there.key == "plnx_old" and asyncio.get_running_loop().time() > 30:
            raise refused
        return lists(query)

    async def rotate() -> None:
        await asyncio.sleep(30)
        there.answer = lambda key, path: refused if key == "plnx_old" else shelf.get(key, path)
        await asyncio.sleep(10)
        there.key = "plnx_new"
        await asyncio.sleep(60)

    there.lists = by_key
    wait_for_jobs(there, ids, rotate)
    assert count_single_polls(there) < 50
    assert there.connects < 15


class TestMetrics:
    @pytest.mark.parametrize("null", [True, False])
    def test_that_lists_leave_out_are_missing_until_a_single_poll(
        self, there: Planasonix, shelf: Shelf, null: bool
    ) -> None:
        ids = shelf.add(f"job_{n}" for n in range(20))
        for job_id in ids:
            shelf.jobs[job_id] = shelf.jobs[job_id].model_copy(update={"metrics": Metrics(rows_loaded=7)})
        empty: dict[str, Any] = {"metrics": None} if null else {}
        shelf.listed = lambda job: Job(id=job.id, status=job.status, created_at=job.created_at, **empty)
        received = wait_for_jobs(there, ids, lambda: asyncio.sleep(RECHECK_AFTER_SECONDS + 10))
        for answers in received.values():
            assert [answer.metrics for answer in answers].count(Metrics(rows_loaded=7)) == 1


class TestAWaitThatEnds:
    def test_during_a_bulk_poll_is_not_kept_in_memory(self, there: Planasonix, shelf: Shelf) -> None:
        there.seconds = 0.1

        async def main() -> int:
            poller = Poller(there.connect)
            async with open_waits(poller, shelf.add(["job"])):
                for start in range(0, 500, 50):
                    async with open_waits(poller, shelf.add(f"job_{n}" for n in range(start, start + 50))):
                        await asyncio.sleep(0.55)
                await asyncio.sleep(20)
                return len(poller._bulk_poll._known)

        assert TravelledClock().run(main()) <= 1

    def test_is_not_polled_again(self, there: Planasonix, shelf: Shelf) -> None:
        there.lists, there.seconds = None, 0.1

        async def main() -> None:
            async with open_waits(Poller(there.connect), shelf.add(f"job_{n}" for n in range(500))) as waits:
                await asyncio.sleep(0.7)
                there.asked.clear()
                for one in waits[1:]:
                    one.cancel()
                await asyncio.sleep(4)

        TravelledClock().run(main())
        assert there.asked.total() <= 6


@pytest.mark.slow("simulates hours of many waits")
def test_a_thousand_waits_take_few_requests_for_two_hours(there: Planasonix, shelf: Shelf) -> None:
    wait_for_jobs(there, shelf.add(f"job_{n}" for n in range(1_000)), lambda: asyncio.sleep(7_200), interval=60)
    assert there.asked[JOBS] <= 10 * 130
    # At most about one single poll per second, for any number of waits.
    assert count_single_polls(there) <= 7_200 * 1.2


@pytest.mark.slow("simulates hours of many waits")
def test_a_hundred_waits_take_few_requests_and_little_memory_for_a_day(there: Planasonix, shelf: Shelf) -> None:
    sizes = []

    async def main() -> None:
        async with open_waits(Poller(there.connect), ids, interval=60):
            for hours in (1, 23):
                await asyncio.sleep(hours * 3_600)
                there.times.clear()
                gc.collect()
                sizes.append(sys.getallocatedblocks())

    ids = shelf.add(f"job_{n}" for n in range(100))
    TravelledClock().run(main())
    # A page a minute, and a poll of each job every four to eight minutes.
    assert there.asked[JOBS] <= 1_500
    assert count_single_polls(there) <= 100 * 86_400 / (RECHECK_AFTER_SECONDS / 2)
    first_hour, day = sizes
    assert day - first_hour < 5 * 100
