"""A Planasonix without a network, because a network does not follow virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, ClientConfig
from planasonix_provider.api.errors import PlanasonixRateLimitError
from planasonix_provider.api.models import Job, Page
from planasonix_provider.api.rate_limiter import RateLimiter
from planasonix_provider.waiting.poller import Poller, PollSubscription
from tests.support.api_errors import api_error

Answer = Job | Exception


@dataclass
class Planasonix:
    """Responds after ``seconds``, and counts requests."""

    answer: Callable[[str, str], Answer] = lambda key, path: Job(id=path.rsplit("/", 1)[1], status="running")
    key: str = "plnx_old"
    seconds: float = 0.01
    asked: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    connects: int = 0
    open_clients: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    slow: dict[str, float] = field(default_factory=dict)
    lists: Callable[[dict[str, Any]], Page[Job]] | None = None
    paces: dict[str, RateLimiter] = field(default_factory=dict)

    async def connect(self) -> Any:
        self.connects += 1
        self.open_clients += 1
        return Client(self, self.paces.setdefault(self.key, RateLimiter(lambda: asyncio.get_running_loop().time())))


class Client(AsyncClient):
    """A client that sends its requests to a :class:`Planasonix`."""

    def __init__(self, planasonix: Planasonix, pace: RateLimiter) -> None:
        super().__init__(ClientConfig(api_key=SecretStr(planasonix.key)))
        self.planasonix = planasonix
        self.rate_limiter = pace

    async def _send_once(self, request: routes.Request[Any]) -> Any:
        there = self.planasonix
        there.asked[request.url_path] += 1
        there.times.append(asyncio.get_running_loop().time())
        there.in_flight += 1
        there.most_in_flight = max(there.most_in_flight, there.in_flight)
        try:
            await asyncio.sleep(there.slow.get(request.url_path, there.seconds))
        finally:
            there.in_flight -= 1
        if request.path == "/jobs":
            if there.lists is None:
                raise api_error(400)
            return there.lists({name: value for name, value in request.query.items() if value is not None})
        answer = there.answer(self.config.api_key.get_secret_value(), request.url_path)
        if isinstance(answer, PlanasonixRateLimitError):
            self.rate_limiter.update(429, {"retry-after": str(answer.retry_after)})
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        await super().close()
        self.planasonix.open_clients -= 1


def all_answers(wait: PollSubscription[Any]) -> asyncio.Queue[Any]:
    """Return a queue of all responses. A subscription itself receives only changed states."""
    answers: asyncio.Queue[Any] = asyncio.Queue()
    wait.answer = answers.put_nowait  # type: ignore[method-assign]
    return answers


def refused_once(retry_after: float) -> Callable[[str, str], Answer]:
    """Return an ``answer`` whose first response is a 429."""
    refusals = [api_error(429, retry_after=retry_after)]
    return lambda key, path: refusals.pop() if refusals else Job(id="j", status="running")


async def polls(poller: Poller, job_id: str, *, interval: float, number: int) -> list[Any]:
    """Return the next responses to a subscription."""
    async with poller.wait(routes.get_job(job_id), interval) as wait:
        answers = all_answers(wait)
        return [await answers.get() for _ in range(number)]
