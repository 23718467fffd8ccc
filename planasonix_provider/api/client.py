"""Sends requests over httpx, blocking or not.

The two clients differ in how they send, and in nothing else. What a request holds and what an answer means is decided
in functions without I/O.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying

from planasonix_provider import clock
from planasonix_provider.api.client_config import ClientConfig as ClientConfig
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixRateLimitError
from planasonix_provider.api.operations import Operations
from planasonix_provider.api.rate_limiter import RateLimiter, rate_limiter_for
from planasonix_provider.api.request import Request
from planasonix_provider.api.request_timeout import TotalTimeout
from planasonix_provider.api.responses import BoundedResponse, RawResponse, parse_response
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.api.transport_errors import translate_errors
from planasonix_provider.validators import is_loopback

T = TypeVar("T")

# As httpx has them, but for how long a socket may rest: looks are seconds apart. One that the server has closed is not
# used again.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=50.0)


class Client(Operations):
    """Calls the API and blocks until the answer is there. Not for several threads at once.

    :param account: where the API is, and who asks.
    :param policy: which failures to try again, and for how long; the default is eight tries within two minutes.
    :param sleep: waits for a number of seconds between two tries.
    :raises PlanasonixConfigurationError: if the address or the CA bundle cannot be used.
    """

    def __init__(
        self,
        config: ClientConfig,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], None] = clock.sleep,
    ) -> None:
        self.config = config
        self.policy = policy or RetryPolicy()
        self.rate_limiter = rate_limiter_for(config.base_url, config.api_key)
        self._sleep = sleep
        self._timeout = TotalTimeout(config.total_timeout)
        self._http = httpx.Client(**_options(config))

    def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request, again where that is safe and can help.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: for this request another policy; default: the client's.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        policy = policy or self.policy
        retrying = Retrying(**policy.tenacity_options(request.idempotency), sleep=self._sleep)
        answer: T = retrying(self._try, request, policy)
        return answer

    def wait_for_rate_limit(self, request: Request[Any], max_seconds: float = math.inf) -> None:
        """Let others go first, where the rate limit runs short and the request can wait.

        :param request: what is to be sent.
        :param at_most: for how many seconds.
        """
        if request.can_wait:
            for rest in self.rate_limiter.acquire(max_seconds):
                self._sleep(rest)

    def _try(self, request: Request[T], policy: RetryPolicy) -> T:
        if policy.respects_rate_limit:
            self.wait_for_rate_limit(request, policy.read_seconds_left)
        if not policy.ignores_retry_after:
            _raise_during_retry_after(self.rate_limiter, request)
        self._timeout.start(policy.read_seconds_left if request.can_wait else math.inf)
        return self._send_once(request)

    def _send_once(self, request: Request[T]) -> T:
        with translate_errors(self.config, request):
            with self._http.stream(**_arguments(request), extensions={"trace": self._timeout.trace}) as response:
                incoming = _incoming(self, request, response)
                for piece in response.iter_raw():
                    incoming.feed(piece)
            return parse_response(request, _without_key(self.config, incoming.finish()))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Operations):
    """Calls the API without blocking the event loop.

    :param account: where the API is, and who asks.
    :param policy: which failures to try again, and for how long; the default is eight tries within two minutes.
    :param sleep: waits for a number of seconds between two tries.
    :raises PlanasonixConfigurationError: if the address or the CA bundle cannot be used.
    """

    def __init__(
        self,
        config: ClientConfig,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config
        self.policy = policy or RetryPolicy()
        self.rate_limiter = rate_limiter_for(config.base_url, config.api_key)
        self._sleep = sleep
        self._rate_limit_lock = asyncio.Lock()
        self._http = httpx.AsyncClient(**_options(config), limits=_LIMITS)

    async def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request, again where that is safe and can help.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: for this request another policy; default: the client's.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        policy = policy or self.policy
        retrying = AsyncRetrying(**policy.tenacity_options(request.idempotency), sleep=self._sleep)
        return await retrying(self._try, request, policy)

    async def wait_for_rate_limit(self, request: Request[Any], max_seconds: float = math.inf) -> None:
        """Let others go first, where the rate limit runs short and the request can wait.

        :param request: what is to be sent.
        :param at_most: for how many seconds, once whoever stands in line before has gone.
        """
        if request.can_wait:
            async with self._rate_limit_lock:
                for rest in self.rate_limiter.acquire(max_seconds):
                    await self._sleep(rest)

    async def _try(self, request: Request[T], policy: RetryPolicy) -> T:
        if policy.respects_rate_limit:
            await self.wait_for_rate_limit(request, policy.read_seconds_left)
        if not policy.ignores_retry_after:
            _raise_during_retry_after(self.rate_limiter, request)
        longest = policy.read_seconds_left if request.can_wait else math.inf
        with translate_errors(self.config, request):
            async with asyncio.timeout(None if longest == math.inf else longest):
                return await self._send_once(request)

    async def _send_once(self, request: Request[T]) -> T:
        with translate_errors(self.config, request):
            async with (
                asyncio.timeout(self.config.total_timeout),
                self._http.stream(**_arguments(request)) as response,
            ):
                incoming = _incoming(self, request, response)
                async for piece in response.aiter_raw():
                    incoming.feed(piece)
            return parse_response(request, _without_key(self.config, incoming.finish()))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _options(account: ClientConfig) -> dict[str, Any]:
    url = _base_url(account)
    return {
        "base_url": url,
        # A proxy cannot reach this machine's loopback interface, and would get the API key in the clear.
        "trust_env": not is_loopback(url.host),
        # The one way of packing that can be unpacked in steps of a known size.
        "headers": {**account.headers, "Accept-Encoding": "gzip"},
        # The API has no cookies. One of a proxy's would go along with every further request, and break it if not ASCII.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        "timeout": httpx.Timeout(account.read_timeout, connect=account.connect_timeout),
        "verify": _ssl_context(account),
        "follow_redirects": False,
    }


def _base_url(account: ClientConfig) -> httpx.URL:
    try:
        return httpx.URL(account.base_url)
    except httpx.InvalidURL as fault:
        raise PlanasonixConfigurationError(
            f"{account.base_url!r} is no usable address ({fault}). Check the host of {account.connection}."
        ) from None


def _ssl_context(account: ClientConfig) -> ssl.SSLContext:
    try:
        return _context_by(account.verify)
    except OSError as fault:
        if not isinstance(account.verify, str):
            raise
        raise PlanasonixConfigurationError(
            f'The CA bundle {account.verify!r} cannot be read ({fault.strerror or fault}). Allowed as "verify" in the '
            f"extra of {account.connection} is true, false, or the path of a PEM file on this machine."
        ) from None


@cache
def _context_by(verify: bool | str) -> ssl.SSLContext:
    """One context a process: making one reads the whole CA bundle, which costs more than a request does."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else httpx.create_ssl_context(verify)


def _arguments(request: Request[Any]) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url_path,
        "params": {name: value for name, value in request.query.items() if value is not None},
        "json": request.body,
        "headers": {
            "Accept": request.envelope.accepts,
            **({"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}),
        },
    }


def _raise_during_retry_after(pace: RateLimiter, request: Request[Any]) -> None:
    if rest := pace.retry_after_remaining():
        raise PlanasonixRateLimitError(
            f"{request}: not sent, since Planasonix has asked this API key to be silent for another "
            f"{math.ceil(rest)} s (429).",
            retry_after=rest,
        )


def _incoming(client: Client | AsyncClient, request: Request[Any], response: httpx.Response) -> BoundedResponse:
    """Leave the library behind, and learn what the headers say of the rate limit."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    client.rate_limiter.update(response.status_code, headers)
    return BoundedResponse(request, response.status_code, headers, client.config.connection)


def _without_key(account: ClientConfig, answer: RawResponse) -> RawResponse:
    """Leave the key behind. A server may send it back, and its answer may be logged, printed, or returned by a task."""
    headers = {name: account.redact(value) for name, value in answer.headers.items()}
    content = account.redact_body(answer.content)
    if not 200 <= answer.status < 300:
        content = content.decode(errors="replace").encode()
    return replace(answer, headers=headers, content=content)
