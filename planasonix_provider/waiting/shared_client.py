"""A client that everything in one event loop shares: one API key, and few requests in flight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from tenacity import AsyncRetrying

from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixTransportError,
)
from planasonix_provider.api.headers import RateLimit
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY, RetryPolicy
from planasonix_provider.clock import loop_time
from planasonix_provider.waiting.loop_thread import run_in_loop_thread
from planasonix_provider.waiting.outages import is_by_a_proxy

T = TypeVar("T")
R = TypeVar("R")

#: Errors that another host or workspace would explain let the Airflow connection be read at most this often.
REREAD_INTERVAL_SECONDS = 60.0
#: The same for a refused key, if the connection has had the same key since.
KEY_REREAD_INTERVAL_SECONDS = 1.0
#: The maximum number of requests in flight; httpx's pool gets slow with more callers.
MAX_IN_FLIGHT = 5
_URGENT = replace(NO_RETRY, ignores_retry_after=True)
# Errors that a changed Airflow connection would explain: a rotated key, another host.
_CONNECTION_ERRORS = (
    PlanasonixAuthenticationError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixTransportError,
)


class RequestPriority(Enum):
    """Which requests of a shared client go first."""

    #: Waits while the rate limit runs short, and leaves one place to the others.
    NORMAL = auto()
    #: Does not wait: for a cancel, and for the polls that belong to it.
    FIRST = auto()
    #: Is sent even during a ``Retry-After``: for work without an owner.
    URGENT = auto()


class AsyncSend(Protocol):
    """The ``send`` of a client."""

    async def __call__(self, request: Request[T], /) -> T:
        """Return the parsed response, or raise a ``PlanasonixError``."""
        ...


class SharedClient:
    """Sends the requests of all users of an Airflow connection; use it in an ``async with`` block.

    ``connect`` reads the Airflow connection and returns a client. It is called again when the connection may have
    changed.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[AsyncClient]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._connect = connect
        self._sleep = sleep
        self._clients: list[AsyncClient] = []
        self._connecting = asyncio.Lock()
        self._all_places = asyncio.Semaphore(MAX_IN_FLIGHT)
        # Polls may hang, so one place is always left to requests of a higher priority.
        self._poll_places = asyncio.Semaphore(MAX_IN_FLIGHT - 1)
        self._read_at = self._confirmed_at = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the clients; the next request opens another."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()

    async def send(
        self,
        request: Request[T],
        *,
        priority: RequestPriority = RequestPriority.NORMAL,
        retry: bool = True,
        within: float | None = None,
    ) -> T:
        """Send a request.

        ``retry`` repeats requests that are safe to repeat after a transient error. ``within`` limits the seconds that a
        request of normal priority waits for its response once it has a place; without it, the client's timeouts apply.
        """
        if not retry:
            return await self._send_once(request, priority, within)
        options = RetryPolicy().tenacity_options(request.idempotency, partial(self._on_retry, request))
        retrying = AsyncRetrying(**options, sleep=self._sleep)
        response: T = await retrying(self._send_once, request, priority, within)
        return response

    async def _send_once(self, request: Request[T], priority: RequestPriority, within: float | None) -> T:
        if priority is not RequestPriority.NORMAL:
            return await self._send_or_reconnect(request, _URGENT if priority is RequestPriority.URGENT else NO_RETRY)
        # Before a place is taken: polls that wait for the rate limit must not block requests that do not.
        await (await self._connected()).wait_for_rate_limit(request)
        try:
            async with asyncio.timeout(within), self._poll_places:
                return await self._send_or_reconnect(request, NO_RETRY)
        except TimeoutError:
            raise PlanasonixTransportError(f"{request}: no answer within {within:.0f} s.", sent=True) from None

    async def _send_or_reconnect(self, request: Request[T], policy: RetryPolicy) -> T:
        """Send a request, and repeat it if it fails and the Airflow connection has changed since it was read."""
        async with self._all_places:
            client = await self._connected()
            sent_at = loop_time()
            try:
                return await client.send(request, policy)
            except PlanasonixError as error:
                if not (isinstance(error, _CONNECTION_ERRORS) or is_by_a_proxy(error)):
                    raise
                # Only a refused key always lets the connection be read: an outage would do so at every poll.
                is_key = isinstance(error, PlanasonixAuthenticationError)
                is_old = loop_time() - self._confirmed_at >= KEY_REREAD_INTERVAL_SECONDS
                try:
                    renewed = await self._connected(
                        newer_than=sent_at if is_key and is_old else sent_at - REREAD_INTERVAL_SECONDS
                    )
                except PlanasonixError:
                    # Only a refused key needs a new key. An outage must not turn into a missing Airflow connection.
                    if is_key:
                        raise
                    raise error from None
                if renewed is client:
                    raise
                return await renewed.send(request, policy)

    def _on_retry(self, request: Request[Any]) -> None:
        if self._clients:
            self._clients[-1].config.observer.on_retry(request)

    @property
    def retry_after_remaining(self) -> float:
        """The seconds until the ``Retry-After`` of this key is over."""
        return self._clients[-1].rate_limiter.retry_after_remaining() if self._clients else 0.0

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rest of this key's rate limit, if it is known."""
        return self._clients[-1].rate_limiter.current() if self._clients else None

    @property
    def conn_id(self) -> str | None:
        """The id of the Airflow connection; ``None`` before the first request."""
        return self._clients[-1].config.conn_id if self._clients else None

    @property
    def skew(self) -> timedelta | None:
        """How far the API's clock is ahead according to its last response; ``None`` before the first one."""
        return self._clients[-1].rate_limiter.skew if self._clients else None

    async def _connected(self, newer_than: float = -math.inf) -> AsyncClient:
        """Return the client; read the Airflow connection if it was last read at ``newer_than`` or before.

        Requests that are refused together so read it once.
        """
        async with self._connecting:
            if self._read_at <= newer_than or not self._clients:
                await self._read_connection()
            return self._clients[-1]

    async def _read_connection(self) -> None:
        fresh = await self._connect()
        self._read_at = loop_time()
        if self._clients and self._clients[-1].config == fresh.config:
            self._confirmed_at = self._read_at
            await fresh.close()
            return
        # The old client stays open until the end, because other requests may be using it.
        self._clients.append(fresh)


def run_requests(
    config: Callable[[], ClientConfig],
    action: Callable[[AsyncSend], Awaitable[R]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    priority: RequestPriority = RequestPriority.NORMAL,
) -> R:
    """Run an action that sends many requests, block until it returns, and return its result."""

    async def connect() -> AsyncClient:
        return AsyncClient(config(), sleep=sleep)

    async def run() -> R:
        async with SharedClient(connect, sleep) as client:
            return await action(partial(client.send, priority=priority))

    return run_in_loop_thread(run)


async def for_each(items: Iterable[T], function: Callable[[T], Awaitable[R]]) -> list[R]:
    """Call ``function`` for each item, five at a time. Return the results in order; the first error ends all calls."""
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for position, item in waiting:
            results[position] = await function(item)

    workers = [asyncio.ensure_future(work()) for _ in range(MAX_IN_FLIGHT)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[position] for position in sorted(results)]
