from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import ClientConfig
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixRateLimitError,
    PlanasonixTransportError,
)
from planasonix_provider.api.models import Job
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.shared_client import AsyncSend, RequestPriority, SharedClient, for_each, run_requests
from tests.support.api_errors import api_error
from tests.support.virtual_planasonix import Answer, Planasonix, refused_once

REFUSED = PlanasonixTransportError("refused", sent=False)


def run_with_client(there: Planasonix, act: Callable[[SharedClient], Awaitable[Any]]) -> Any:
    """Run an action with a shared client, in virtual time."""

    async def main() -> Any:
        async with SharedClient(there.connect) as channel:
            return await act(channel)

    return TravelledClock().run(main())


async def ask(channel: SharedClient, job_id: str = "job_1") -> Job | PlanasonixError:
    try:
        return await channel.send(routes.get_job(job_id), retry=False)
    except PlanasonixError as error:
        return error


async def ask_every_second(channel: SharedClient, seconds: int) -> None:
    for _ in range(seconds):
        await ask(channel)
        await asyncio.sleep(1)


def answer_by_key(**answers: Answer) -> Callable[[str, str], Answer]:
    """Return an answer that depends on the API key."""
    return lambda key, path: answers[key]


RUNNING = Job(id="job_1", status="running")


class TestConcurrency:
    def test_is_four_polls_at_a_time_with_one_client(self) -> None:
        there = Planasonix(seconds=1.0)

        async def act(channel: SharedClient) -> float:
            await asyncio.gather(*(ask(channel, f"job_{number}") for number in range(50)))
            return asyncio.get_running_loop().time()

        assert run_with_client(there, act) == pytest.approx(13)
        assert there.most_in_flight == 4
        assert there.connects == 1

    def test_has_a_slot_for_requests_that_end_a_wait(self) -> None:
        there = Planasonix(slow={f"/api/v1/jobs/slow_{number}": 1_000.0 for number in range(10)})

        async def act(channel: SharedClient) -> float:
            stuck = [asyncio.ensure_future(ask(channel, f"slow_{number}")) for number in range(10)]
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            await asyncio.gather(
                *(
                    channel.send(routes.cancel_job(f"job_{number}"), priority=RequestPriority.FIRST)
                    for number in range(5)
                )
            )
            seconds = asyncio.get_running_loop().time() - began
            for one in stuck:
                one.cancel()
            return seconds

        assert run_with_client(there, act) < 1
        assert there.most_in_flight == 5

    def test_lets_other_requests_run_during_the_pause_of_a_retry(self) -> None:
        there = Planasonix()
        there.answer = lambda key, path: api_error(503) if "bad" in path else RUNNING

        async def act(channel: SharedClient) -> float:
            bad = [asyncio.ensure_future(channel.send(routes.get_job(f"bad_{number}"))) for number in range(5)]
            await asyncio.sleep(0.015)
            await ask(channel)
            passed = asyncio.get_running_loop().time()
            await asyncio.gather(*bad, return_exceptions=True)
            return passed

        assert run_with_client(there, act) < 0.1

    def test_slot_of_a_cancelled_request_is_free_again(self) -> None:
        there = Planasonix(seconds=1_000)

        async def act(channel: SharedClient) -> Any:
            stuck = [asyncio.ensure_future(ask(channel, "stuck")) for _ in range(5)]
            await asyncio.sleep(1)
            for one in stuck:
                one.cancel()
            there.seconds = 0.01
            return await ask(channel)

        assert isinstance(run_with_client(there, act), Job)


class TestTheConnection:
    def test_is_read_once_for_all_and_at_the_first_request(self) -> None:
        there = Planasonix()

        async def act(channel: SharedClient) -> None:
            assert there.connects == 0
            await asyncio.gather(*(ask(channel) for _ in range(50)))

        run_with_client(there, act)
        assert there.connects == 1
        assert there.open_clients == 0

    def test_is_read_again_once_for_all_requests_with_a_refused_key(self) -> None:
        there = Planasonix(answer=answer_by_key(plnx_old=api_error(401), plnx_new=RUNNING))

        async def act(channel: SharedClient) -> list[Any]:
            asking = [asyncio.ensure_future(ask(channel)) for _ in range(50)]
            await asyncio.sleep(0.005)
            there.key = "plnx_new"
            return await asyncio.gather(*asking)

        assert run_with_client(there, act) == [RUNNING] * 50
        assert there.connects == 2
        assert there.open_clients == 0

    def test_that_did_not_change_causes_no_second_request(self) -> None:
        there = Planasonix(answer=lambda key, path: api_error(401))
        assert isinstance(run_with_client(there, ask), PlanasonixAuthenticationError)
        assert there.asked.total() == 1, "the same key would be refused again"
        assert there.open_clients == 0

    def test_is_read_again_at_each_refusal_of_the_key(self) -> None:
        there = Planasonix(answer=lambda key, path: api_error(401))
        run_with_client(there, lambda channel: ask_every_second(channel, 10))
        assert there.connects == 11

    @pytest.mark.parametrize("refusal", [api_error(404), api_error(403), REFUSED])
    def test_that_changed_is_read_again_after_a_minute(self, refusal: PlanasonixError) -> None:
        there = Planasonix(answer=answer_by_key(plnx_old=refusal, plnx_new=RUNNING))

        async def act(channel: SharedClient) -> list[Any]:
            first = await ask(channel)
            there.key = "plnx_new"
            await asyncio.sleep(50)
            second = await ask(channel)
            await asyncio.sleep(20)
            return [first, second, await ask(channel)]

        assert run_with_client(there, act) == [refusal, refusal, RUNNING]

    @pytest.mark.heavy
    def test_is_read_once_a_minute_in_an_outage(self) -> None:
        there = Planasonix(answer=lambda key, path: REFUSED)
        run_with_client(there, lambda channel: ask_every_second(channel, 600))
        assert there.connects == pytest.approx(10, abs=1)

    @pytest.mark.parametrize("error", [api_error(503), api_error(429)])
    def test_is_not_read_again_after_errors_that_do_not_depend_on_it(self, error: PlanasonixError) -> None:
        there = Planasonix(answer=lambda key, path: error)
        run_with_client(there, lambda channel: ask_every_second(channel, 200))
        assert there.connects == 1

    def test_that_was_replaced_stays_open_for_a_request_in_flight(self) -> None:
        there = Planasonix()
        refused = api_error(401)
        there.answer = lambda key, path: refused if key == "plnx_old" and "slow" not in path else RUNNING

        async def act(channel: SharedClient) -> int:
            there.seconds = 100
            slow = asyncio.ensure_future(ask(channel, "slow"))
            await asyncio.sleep(1)
            there.seconds, there.key = 0.01, "plnx_new"
            await ask(channel)
            still_open = there.open_clients
            assert await slow == RUNNING
            return still_open

        assert run_with_client(there, act) == 2
        assert there.open_clients == 0

    def test_that_cannot_be_read_raises_an_error_and_is_read_by_the_next_request(self) -> None:
        there = Planasonix()
        faults = [PlanasonixConfigurationError("There is no Airflow connection 'x'.")]

        async def connect() -> Any:
            if faults:
                raise faults.pop()
            return await there.connect()

        async def main() -> list[Any]:
            async with SharedClient(connect) as channel:
                return [await ask(channel), await ask(channel)]

        broken, whole = TravelledClock().run(main())
        assert isinstance(broken, PlanasonixConfigurationError)
        assert isinstance(whole, Job)

    def test_is_read_again_after_a_close(self) -> None:
        there = Planasonix()

        async def act(channel: SharedClient) -> None:
            await ask(channel)
            await channel.close()
            assert there.open_clients == 0
            await ask(channel)

        run_with_client(there, act)
        assert there.connects == 2
        assert there.open_clients == 0


class TestRetryAfter:
    def test_pauses_all_requests(self) -> None:
        there = Planasonix(answer=refused_once(retry_after=120))

        async def act(channel: SharedClient) -> list[Any]:
            answers = await asyncio.gather(*(ask(channel) for _ in range(30)))
            await asyncio.sleep(119)
            early = await ask(channel)
            await asyncio.sleep(1)
            return [*answers, early, await ask(channel)]

        *answers, early, late = run_with_client(there, act)
        # Four requests were sent at once, and one after the pause; the others failed without being sent.
        assert there.asked.total() == 4 + 1
        refused = [answer for answer in answers if isinstance(answer, PlanasonixRateLimitError)]
        assert len(refused) == 27
        assert isinstance(early, PlanasonixRateLimitError)
        assert isinstance(late, Job)

    def test_pauses_requests_after_the_connection_was_read_again(self) -> None:
        busy = api_error(429, retry_after=60)
        there = Planasonix(answer=answer_by_key(plnx_old=api_error(401), plnx_new=busy))

        async def act(channel: SharedClient) -> None:
            asking = asyncio.ensure_future(ask(channel))
            await asyncio.sleep(0.005)
            there.key = "plnx_new"
            await asking
            await ask(channel)

        run_with_client(there, act)
        assert there.asked.total() == 2

    def test_does_not_delay_an_urgent_cancel(self) -> None:
        there = Planasonix(answer=refused_once(retry_after=900))

        async def act(channel: SharedClient) -> float:
            await ask(channel)
            await channel.send(routes.cancel_job("job_1"), priority=RequestPriority.URGENT)
            assert isinstance(await ask(channel), PlanasonixRateLimitError)
            return asyncio.get_running_loop().time()

        assert run_with_client(there, act) < 1
        assert there.asked.total() == 2

    def test_delays_a_request_with_retries(self) -> None:
        there = Planasonix(answer=refused_once(retry_after=30))

        async def act(channel: SharedClient) -> float:
            await ask(channel)
            await channel.send(routes.cancel_job("job_1"))
            return asyncio.get_running_loop().time()

        assert run_with_client(there, act) == pytest.approx(30, abs=1)
        assert there.asked["/api/v1/jobs/job_1/cancel"] == 1


class TestRateLimit:
    @staticmethod
    def seconds(act: Callable[[SharedClient], Awaitable[Any]]) -> float:
        """Return the seconds that an action takes while the key has no requests left for the next 40 s."""
        there = Planasonix()

        async def main(channel: SharedClient) -> float:
            await ask(channel)
            there.paces["plnx_old"].update(
                200,
                {
                    "x-ratelimit-limit": "100",
                    "x-ratelimit-remaining": "0",
                    "x-ratelimit-reset": str(int(time.time()) + 40),
                },
            )
            began = asyncio.get_running_loop().time()
            await act(channel)
            return asyncio.get_running_loop().time() - began

        seconds: float = run_with_client(there, main)
        return seconds

    def test_delays_a_poll(self) -> None:
        assert self.seconds(ask) > 30

    def test_does_not_delay_a_cancel(self) -> None:
        assert self.seconds(lambda channel: channel.send(routes.cancel_job("job_1"))) < 1

    def test_does_not_delay_a_read_that_ends_a_wait_although_polls_wait(self) -> None:
        async def act(channel: SharedClient) -> None:
            polls = [asyncio.ensure_future(ask(channel)) for _ in range(20)]
            await asyncio.sleep(0.1)
            await channel.send(routes.get_backfill("bf_1"), priority=RequestPriority.FIRST)
            for poll in polls:
                poll.cancel()

        assert self.seconds(act) < 1


class TestRetries:
    def test_use_the_same_client(self) -> None:
        answers: list[Answer] = [PlanasonixTransportError("reset"), Job(id="job_1", status="cancelling")]
        there = Planasonix(answer=lambda key, path: answers.pop(0))
        job = run_with_client(there, lambda channel: channel.send(routes.cancel_job("job_1")))
        assert job.status == "cancelling"
        assert there.asked["/api/v1/jobs/job_1/cancel"] == 2
        assert there.connects == 1

    def test_are_not_sent_for_a_request_that_is_not_idempotent(self) -> None:
        there = Planasonix(answer=lambda key, path: PlanasonixTransportError("reset"))
        with pytest.raises(PlanasonixTransportError):
            run_with_client(there, lambda channel: channel.send(routes.trigger_sync("conn_1")))
        assert there.asked.total() == 1

    def test_pause_with_the_given_sleep(self) -> None:
        naps: list[float] = []

        async def sleep(seconds: float) -> None:
            naps.append(seconds)

        there = Planasonix(answer=lambda key, path: REFUSED)

        async def main() -> None:
            async with SharedClient(there.connect, sleep) as channel:
                await channel.send(routes.get_job("job_1"))

        with pytest.raises(PlanasonixTransportError, match="Tried 8 times"):
            TravelledClock().run(main())
        assert len(naps) == 7


#: No server listens there.
NOWHERE = ClientConfig(api_key=SecretStr("plnx_test"), base_url="http://127.0.0.1:9")


class TestRunRequests:
    def test_returns_the_result_of_the_action(self) -> None:
        async def action(send: AsyncSend) -> str:
            return "done"

        assert run_requests(lambda: NOWHERE, action) == "done"

    def test_reads_the_configuration_at_the_first_request(self) -> None:
        def missing() -> ClientConfig:
            raise PlanasonixConfigurationError("There is no Airflow connection 'x'.")

        with pytest.raises(PlanasonixConfigurationError):
            run_requests(missing, lambda send: send(routes.get_job("job_1")))

    def test_closes_the_client_if_the_action_fails(self) -> None:
        clients: list[SharedClient] = []

        async def action(send: Any) -> None:
            clients.append(send.func.__self__)
            assert isinstance(await ask(clients[0]), PlanasonixError)
            assert clients[0]._clients
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_requests(lambda: NOWHERE, action)
        assert clients[0]._clients == []

    def test_waits_with_the_given_sleep(self) -> None:
        async def sleep(seconds: float) -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            run_requests(lambda: NOWHERE, lambda send: send(routes.get_job("job_1")), sleep)


class Workshop:
    """An action that takes the given seconds, and records its calls; negative seconds raise an error."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.done: list[float] = []
        self.at_once = self.most_at_once = 0

    async def make(self, seconds: float) -> str:
        self.begun.append(seconds)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(abs(seconds))
        finally:
            self.at_once -= 1
        if seconds < 0:
            raise PlanasonixError(f"{seconds} is no time")
        self.done.append(seconds)
        return f"took {seconds}"


class TestForEach:
    def test_keeps_the_order_of_the_items(self) -> None:
        workshop = Workshop()
        assert TravelledClock().run(for_each([5, 1, 3], workshop.make)) == ["took 5", "took 1", "took 3"]
        assert workshop.done == [1, 3, 5]

    def test_runs_five_at_a_time(self) -> None:
        workshop = Workshop()

        async def main() -> float:
            await for_each([1] * 40, workshop.make)
            return asyncio.get_running_loop().time()

        assert TravelledClock().run(main()) == 8
        assert workshop.most_at_once == 5

    def test_starts_the_next_item_before_the_slowest_has_finished(self) -> None:
        async def main() -> float:
            await for_each([10, *[1] * 40], Workshop().make)
            return asyncio.get_running_loop().time()

        assert TravelledClock().run(main()) == 10

    def test_of_no_items_returns_an_empty_list(self) -> None:
        assert TravelledClock().run(for_each([], Workshop().make)) == []

    def test_accepts_a_generator(self) -> None:
        assert TravelledClock().run(for_each((number for number in (2, 1)), Workshop().make)) == ["took 2", "took 1"]

    def test_keeps_results_that_are_none(self) -> None:
        async def nothing(_: int) -> None:
            return None

        assert TravelledClock().run(for_each([1, 2], nothing)) == [None, None]

    def test_cancels_all_others_at_the_first_error(self) -> None:
        workshop = Workshop()

        async def main() -> float:
            with pytest.raises(PlanasonixError, match="-2 is no time"):
                await for_each([30, -2, 40, 40, 40, *[1] * 20], workshop.make)
            passed = asyncio.get_running_loop().time()
            await asyncio.sleep(100)
            return passed

        assert TravelledClock().run(main()) == 2
        assert workshop.begun == [30, -2, 40, 40, 40]
        assert workshop.done == []
        assert workshop.at_once == 0

    def test_leaves_no_tasks_when_it_is_cancelled(self) -> None:
        workshop = Workshop()

        async def main() -> int:
            task = asyncio.ensure_future(for_each([10] * 20, workshop.make))
            await asyncio.sleep(15)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0)
            return len(asyncio.all_tasks())

        assert TravelledClock().run(main()) == 1
        assert len(workshop.done) == 5
