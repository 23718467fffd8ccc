from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import Account
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixRateLimitError,
    PlanasonixTransportError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.waiting.poller import Poller, Wait, poller_for
from tests import virtual_time

Answer = Job | Exception


@dataclass
class Planasonix:
    """Stands where the network would, which knows no virtual time: answers after ``seconds``, and counts."""

    answer: Callable[[str, str], Answer] = lambda key, path: Job(id=path.rsplit("/", 1)[1], status="running")
    key: str = "plnx_old"
    seconds: float = 0.01
    asked: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    connects: int = 0
    open_clients: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    async def connect(self) -> Any:
        self.connects += 1
        self.open_clients += 1
        return Client(self, Account(api_key=SecretStr(self.key)))


@dataclass
class Client:
    planasonix: Planasonix
    account: Account

    async def send(self, request: routes.Request[Any], policy: Any = None) -> Any:
        there = self.planasonix
        there.asked[request.url_path] += 1
        there.times.append(asyncio.get_running_loop().time())
        there.in_flight += 1
        there.most_in_flight = max(there.most_in_flight, there.in_flight)
        try:
            await asyncio.sleep(there.seconds)
        finally:
            there.in_flight -= 1
        answer = there.answer(self.account.api_key.get_secret_value(), request.url_path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.planasonix.open_clients -= 1


def refused_once(retry_after: float) -> Callable[[str, str], Answer]:
    """Answer the first look with a 429."""
    refusals = [PlanasonixRateLimitError("429", status=429, retry_after=retry_after)]
    return lambda key, path: refusals.pop() if refusals else Job(id="j", status="running")


async def looks(poller: Poller, job_id: str, *, interval: float, number: int) -> list[Any]:
    async with poller.wait(routes.get_job(job_id), interval) as wait:
        return [await wait.next(10_000) for _ in range(number)]


def test_each_wait_is_looked_at_in_its_own_interval() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.TaskGroup() as group:
            group.create_task(looks(poller, "fast", interval=10, number=360))
            group.create_task(looks(poller, "slow", interval=60, number=60))

    virtual_time.run(main())
    assert there.asked == {"/api/v1/jobs/fast": 360, "/api/v1/jobs/slow": 60}
    assert there.times[-1] == pytest.approx(3590, abs=60)


def test_waits_for_the_same_job_share_its_answers() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(looks(poller, "job_1", interval=10, number=3))

    virtual_time.run(main())
    assert there.asked == {"/api/v1/jobs/job_1": 3}


def test_five_requests_are_in_flight_and_one_client_is_open() -> None:
    there = Planasonix(seconds=1.0)

    async def main() -> None:
        poller = Poller(there.connect)
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(looks(poller, f"job_{number}", interval=60, number=2))

    virtual_time.run(main())
    assert there.most_in_flight == 5
    assert there.connects == 1
    assert sum(there.asked.values()) == 100


def test_a_slow_look_holds_up_no_other() -> None:
    there = Planasonix()

    async def main() -> float:
        there.seconds = 1_000
        poller = Poller(there.connect)
        slow = asyncio.create_task(looks(poller, "slow", interval=10, number=1))
        await asyncio.sleep(1)
        there.seconds = 0.01
        await looks(poller, "fast", interval=10, number=5)
        now = asyncio.get_running_loop().time()
        slow.cancel()
        return now

    assert virtual_time.run(main()) < 60


def test_a_rotated_key_is_read_again_once_for_all_and_fails_none() -> None:
    there = Planasonix(
        answer=lambda key, path: (
            Job(id="j", status="running") if key == "plnx_new" else PlanasonixAuthenticationError("401", status=401)
        )
    )

    async def main() -> list[Any]:
        poller = Poller(there.connect)
        waits = [asyncio.create_task(looks(poller, f"job_{number}", interval=10, number=1)) for number in range(50)]
        await asyncio.sleep(0.005)
        there.key = "plnx_new"
        return [answer for answers in await asyncio.gather(*waits) for answer in answers]

    answers = virtual_time.run(main())
    assert {type(answer) for answer in answers} == {Job}
    assert there.connects == 2
    assert there.open_clients == 0


def test_a_key_that_stays_refused_is_told_to_the_waits() -> None:
    there = Planasonix(answer=lambda key, path: PlanasonixAuthenticationError("401", status=401))
    (answer,) = virtual_time.run(looks(Poller(there.connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixAuthenticationError)
    assert there.asked.total() == 1, "the same key once more would be refused once more"


def test_a_connection_that_was_moved_to_another_host_is_read_again_when_a_job_is_not_found() -> None:
    def answer(key: str, path: str) -> Answer:
        there = {"plnx_old": "old_job", "plnx_new": "new_job"}[key]
        return Job(id=there, status="running") if path.endswith(there) else PlanasonixNotFoundError("404", status=404)

    there = Planasonix(answer=answer)

    async def main() -> list[Any]:
        poller = Poller(there.connect)
        waiting_on = asyncio.create_task(looks(poller, "old_job", interval=10, number=12))
        await asyncio.sleep(100)
        there.key = "plnx_new"
        found = await looks(poller, "new_job", interval=10, number=1)
        waiting_on.cancel()
        return found

    assert isinstance(virtual_time.run(main())[0], Job)
    assert there.connects == 2


def test_an_outage_is_a_reason_to_read_the_connection_once_a_minute() -> None:
    there = Planasonix(answer=lambda key, path: PlanasonixTransportError("refused", sent=False))
    virtual_time.run(looks(Poller(there.connect), "job_1", interval=1, number=600))
    assert there.connects == pytest.approx(10, abs=1)


def test_a_cancel_goes_over_the_same_client_and_is_tried_again() -> None:
    there = Planasonix()
    answers: list[Answer] = [PlanasonixTransportError("reset"), Job(id="job_1", status="cancelling")]
    there.answer = lambda key, path: answers.pop(0) if path.endswith("cancel") else Job(id="job_1", status="running")

    async def main() -> Job:
        poller = Poller(there.connect)
        async with poller.wait(routes.get_job("job_1"), 10):
            return await poller.channel.send(routes.cancel_job("job_1"))

    assert virtual_time.run(main()).status == "cancelling"
    assert there.asked["/api/v1/jobs/job_1/cancel"] == 2
    assert there.connects == 1


def test_a_429_silences_the_whole_poller_for_as_long_as_it_asks() -> None:
    there = Planasonix(answer=refused_once(retry_after=120))

    async def main() -> list[list[Any]]:
        poller = Poller(there.connect)
        waits = [looks(poller, f"job_{number}", interval=10, number=2) for number in range(30)]
        return await asyncio.gather(*waits)

    answers = virtual_time.run(main())
    # Those that were in flight with it get their answers; nobody else asks before its time.
    assert [time for time in there.times if 1 < time < 120] == []
    assert all(isinstance(second, Job) for _, second in answers)
    assert any(isinstance(first, PlanasonixRateLimitError) for first, _ in answers)


def test_a_retry_after_of_a_year_does_not_silence_it_for_a_year() -> None:
    there = Planasonix(answer=refused_once(retry_after=31_536_000))
    virtual_time.run(looks(Poller(there.connect), "job_1", interval=10, number=2))
    assert there.times[-1] < 3600


def test_it_ends_and_closes_its_client_when_nobody_waits_and_starts_again() -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect)
        for _ in range(2):
            await looks(poller, "job_1", interval=10, number=1)
            await asyncio.sleep(1)
            assert there.open_clients == 0
            assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())
    assert there.connects == 2


def test_a_wait_that_is_cancelled_leaves_no_trace() -> None:
    there = Planasonix()

    async def main() -> weakref.ref[Wait[Job]]:
        poller = Poller(there.connect)
        staying = asyncio.create_task(looks(poller, "stays", interval=10, number=100))

        async def leave() -> weakref.ref[Wait[Job]]:
            async with poller.wait(routes.get_job("leaves"), 10) as wait:
                await wait.next(1)
                return weakref.ref(wait)

        gone = await leave()
        await asyncio.sleep(500)
        staying.cancel()
        return gone

    gone = virtual_time.run(main())
    gc.collect()
    assert gone() is None
    assert there.asked["/api/v1/jobs/leaves"] == 1


def test_ten_thousand_waits_that_come_and_go_leave_nothing_behind() -> None:
    there = Planasonix()

    async def main() -> Poller:
        poller = Poller(there.connect)
        for start in range(0, 10_000, 500):
            await asyncio.gather(*(looks(poller, f"job_{start + n}", interval=10, number=1) for n in range(500)))
        await asyncio.sleep(1)
        return poller

    poller = virtual_time.run(main())
    assert there.asked.total() == 10_000
    assert (poller._waits, poller._looks, poller.channel._clients, poller._task) == (set(), set(), [], None)


def test_a_bug_in_a_look_reaches_the_waits_and_hangs_none() -> None:
    there = Planasonix(answer=lambda key, path: ZeroDivisionError("by zero"))
    (answer,) = virtual_time.run(looks(Poller(there.connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixError)
    assert "ZeroDivisionError" in str(answer)


def test_a_bug_in_the_poller_itself_reaches_the_waits_and_hangs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(poller: Poller) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Poller, "_start_looks", broken)
    (answer,) = virtual_time.run(looks(Poller(Planasonix().connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixError)
    assert "ZeroDivisionError" in str(answer)


def test_an_airflow_connection_that_cannot_be_read_reaches_the_waits() -> None:
    async def connect() -> Any:
        raise PlanasonixConfigurationError("There is no Airflow connection 'x'.")

    (answer,) = virtual_time.run(looks(Poller(connect), "job_1", interval=10, number=1))
    assert isinstance(answer, PlanasonixConfigurationError)


def test_it_does_not_run_in_the_context_of_the_wait_that_came_first() -> None:
    variable = contextvars.ContextVar("log of the task", default="nobody's")
    seen: list[str] = []
    there = Planasonix()
    there.answer = lambda key, path: seen.append(variable.get()) or Job(id="j", status="running")

    async def main() -> None:
        variable.set("the first trigger's")
        await looks(Poller(there.connect), "job_1", interval=10, number=2)

    virtual_time.run(main())
    assert seen == ["nobody's", "nobody's"]


def test_one_serves_a_connection_in_each_event_loop() -> None:
    there = Planasonix()

    async def pollers() -> tuple[Poller, Poller, Poller]:
        return poller_for("a", there.connect), poller_for("a", there.connect), poller_for("b", there.connect)

    first, again, other = asyncio.run(pollers())
    elsewhere, *_ = asyncio.run(pollers())
    assert first is again
    assert len({id(first), id(other), id(elsewhere)}) == 3


def test_goes_when_nobody_waits_and_takes_its_event_loop_with_it() -> None:
    there = Planasonix()

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await looks(poller_for("a", there.connect), "job_1", interval=10, number=2)
        return weakref.ref(asyncio.get_running_loop())

    loop = virtual_time.run(main())
    gc.collect()
    assert loop() is None
