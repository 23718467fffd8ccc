from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError, PlanasonixRateLimitError
from planasonix_provider.api.models import Job, Metrics
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.poller import POLLERS, Poller, PollSubscription
from tests.support.virtual_planasonix import Planasonix, polls, refused_once


@pytest.mark.heavy
def test_each_wait_is_polled_in_its_own_interval() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.TaskGroup() as group:
            group.create_task(polls(poller, "fast", interval=10, number=360))
            group.create_task(polls(poller, "slow", interval=60, number=60))

    TravelledClock().run(main())
    assert there.asked == {"/api/v1/jobs/fast": 360, "/api/v1/jobs/slow": 60}
    assert there.times[-1] == pytest.approx(3590, abs=60)


def test_a_wait_ends_its_sleep_for_a_new_state_and_then_gets_the_newest_response() -> None:
    jobs = {
        0: Job(id="job_1", status="running"),
        30: Job(id="job_1", status="running", metrics=Metrics(rows_loaded=7)),
        70: Job(id="job_1", status="succeeded"),
    }
    there = Planasonix(answer=lambda key, path: jobs[max(t for t in jobs if t <= asyncio.get_running_loop().time())])

    async def main() -> list[tuple[float, Any]]:
        async with Poller(there.connect).wait(routes.get_job("job_1"), 10) as wait:
            received = []
            for _ in range(4):
                answer = await wait.next(25)
                received.append((asyncio.get_running_loop().time(), answer))
            return received

    received = TravelledClock().run(main())
    assert [round(at) for at, _ in received] == [0, 25, 50, 70]
    assert [answer.metrics for _, answer in received[:3]] == [None, None, Metrics(rows_loaded=7)]
    assert received[-1][1].status == "succeeded"


def test_waits_for_the_same_job_share_its_answers() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(polls(poller, "job_1", interval=10, number=3))

    TravelledClock().run(main())
    assert there.asked == {"/api/v1/jobs/job_1": 3}


def test_waits_for_the_same_job_share_its_answers_with_different_intervals() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.timeout(601):
            await asyncio.gather(*(polls(poller, "job_1", interval=interval, number=999) for interval in (10, 15, 20)))

    with pytest.raises(TimeoutError):
        TravelledClock().run(main())
    assert there.asked.total() == pytest.approx(61, abs=1)


def test_a_slow_poll_delays_no_other() -> None:
    there = Planasonix()

    async def main() -> float:
        there.seconds = 1_000
        poller = Poller(there.connect)
        slow = asyncio.create_task(polls(poller, "slow", interval=10, number=1))
        await asyncio.sleep(1)
        there.seconds = 0.01
        await polls(poller, "fast", interval=10, number=5)
        now = asyncio.get_running_loop().time()
        slow.cancel()
        return now

    assert TravelledClock().run(main()) < 60


def test_a_429_pauses_the_whole_poller_for_its_retry_after() -> None:
    there = Planasonix(answer=refused_once(retry_after=120))

    async def main() -> list[list[Any]]:
        poller = Poller(there.connect)
        waits = [polls(poller, f"job_{number}", interval=10, number=2) for number in range(30)]
        return await asyncio.gather(*waits)

    answers = TravelledClock().run(main())
    # Requests that were in flight with the 429 still get their responses; no other request is sent.
    assert [time for time in there.times if 1 < time < 120] == []
    assert all(isinstance(second, Job) for _, second in answers)
    assert any(isinstance(first, PlanasonixRateLimitError) for first, _ in answers)


def test_it_closes_its_client_without_waits_and_starts_again() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        for _ in range(2):
            await polls(poller, "job_1", interval=10, number=1)
            await asyncio.sleep(1)
            assert there.open_clients == 0
            assert len(asyncio.all_tasks()) == 1

    TravelledClock().run(main())
    assert there.connects == 2


@pytest.mark.slow("handles thousands of waits")
def test_a_cancelled_wait_is_not_kept_in_memory() -> None:
    there = Planasonix()

    async def main() -> weakref.ref[PollSubscription[Job]]:
        poller = Poller(there.connect)
        staying = asyncio.create_task(polls(poller, "stays", interval=10, number=100))

        async def leave() -> weakref.ref[PollSubscription[Job]]:
            async with poller.wait(routes.get_job("leaves"), 10) as wait:
                await wait.next(1)
                return weakref.ref(wait)

        gone = await leave()
        await asyncio.sleep(500)
        staying.cancel()
        return gone

    gone = TravelledClock().run(main())
    gc.collect()
    assert gone() is None
    assert there.asked["/api/v1/jobs/leaves"] == 1


@pytest.mark.slow("handles thousands of waits")
def test_ten_thousand_waits_that_end_are_not_kept_in_memory() -> None:
    there = Planasonix()

    async def main() -> Poller:
        poller = Poller(there.connect)
        for start in range(0, 10_000, 500):
            await asyncio.gather(*(polls(poller, f"job_{start + n}", interval=10, number=1) for n in range(500)))
        await asyncio.sleep(1)
        return poller

    poller = TravelledClock().run(main())
    # One more request showed that there are no lists.
    assert there.asked.total() == 10_000 + 1
    assert poller._bulk_poll._known == {}
    assert (poller._waits, poller._polls, poller.client._clients, poller._task) == (set(), set(), [], None)


def test_a_bug_in_a_poll_reaches_the_waits_and_blocks_none() -> None:
    there = Planasonix(answer=lambda key, path: ZeroDivisionError("by zero"))
    (answer,) = TravelledClock().run(polls(Poller(there.connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixError)
    assert "ZeroDivisionError" in str(answer)


def test_a_bug_in_the_poller_itself_reaches_the_waits_and_blocks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(poller: Poller) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Poller, "_start_polls", broken)
    (answer,) = TravelledClock().run(polls(Poller(Planasonix().connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixError)
    assert "ZeroDivisionError" in str(answer)


def test_an_airflow_connection_that_cannot_be_read_reaches_the_waits() -> None:
    async def connect() -> Any:
        raise PlanasonixConfigurationError("There is no Airflow connection 'x'.")

    (answer,) = TravelledClock().run(polls(Poller(connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixConfigurationError)


def test_it_does_not_run_in_the_context_of_the_wait_that_came_first() -> None:
    variable = contextvars.ContextVar("log of the task", default="nobody's")
    seen: list[str] = []
    there = Planasonix()
    there.answer = lambda key, path: seen.append(variable.get()) or Job(id="j", status="running")

    async def main() -> None:
        variable.set("the first trigger's")
        await polls(Poller(there.connect), "job_1", interval=10, number=2)

    TravelledClock().run(main())
    assert seen == ["nobody's", "nobody's"]


def test_without_waits_it_is_deleted_with_its_event_loop() -> None:
    there = Planasonix()

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await polls(POLLERS.get("a", lambda: Poller(there.connect)), "job_1", interval=10, number=2)
        return weakref.ref(asyncio.get_running_loop())

    loop = TravelledClock().run(main())
    gc.collect()
    assert loop() is None
