"""The blocking and the asynchronous client behind one interface, so that one test runs both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

from pydantic import SecretStr

from planasonix_provider.api.client import AsyncClient, Client, ClientConfig
from planasonix_provider.api.rate_limiter import RateLimiter
from planasonix_provider.api.retry import RetryPolicy

#: Looks like a key, so that tests can search messages for it.
KEY = "plnx_test_7d1f0b6a52"


def make_config(base_url: str, **fields: Any) -> ClientConfig:
    return ClientConfig(**{"api_key": SecretStr(KEY), "base_url": base_url, **fields})


def read(client: Any) -> Any:
    return client.get_job("job_1")


def start(client: Any) -> Any:
    return client.trigger_sync("conn_1")


class Clock:
    """A clock that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class CallStyle:
    """Opens a client, blocking or asynchronous, runs an operation of a test, and closes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock = Clock()
        self.pace = RateLimiter(self.clock, lambda low, high: high)

    def policy(self, **fields: Any) -> RetryPolicy:
        """Return a policy of three tries on this clock, with the longest delays that jitter allows."""
        return RetryPolicy(**{"max_tries": 3, "clock": self.clock, "uniform": lambda low, high: high, **fields})

    def call(self, account: ClientConfig, operation: Callable[[Any], Any], policy: RetryPolicy | None = None) -> Any:
        """Run an operation that returns one object."""
        policy = policy or self.policy()
        if self.name == "awaited":
            return asyncio.run(self._awaited(account, operation, policy))
        with Client(account, policy, sleep=self.clock.sleep) as client:
            client.rate_limiter = self.pace
            return operation(client)

    def take_items(self, account: ClientConfig, count: int | None, listing: Callable[[Any], Any]) -> list[Any]:
        """Return the first items of a list; ``None`` is all."""
        if self.name == "awaited":
            return asyncio.run(self._awaited_items(account, count, listing))
        with Client(account, self.policy(), sleep=self.clock.sleep) as client, closing(listing(client)) as items:
            client.rate_limiter = self.pace
            # A zip would request one more item than it returns.
            return [next(items) for _ in range(count)] if count is not None else list(items)

    async def _sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    async def _awaited(self, account: ClientConfig, operation: Callable[[Any], Any], policy: RetryPolicy) -> Any:
        async with AsyncClient(account, policy, sleep=self._sleep) as client:
            client.rate_limiter = self.pace
            return await operation(client)

    async def _awaited_items(
        self, account: ClientConfig, count: int | None, listing: Callable[[Any], Any]
    ) -> list[Any]:
        client = AsyncClient(account, self.policy(), sleep=self._sleep)
        client.rate_limiter = self.pace
        async with client, aclosing(listing(client)) as items:
            if count is None:
                return [item async for item in items]
            return [await anext(items) for _ in range(count)]
