"""Sends requests over httpx, blocking or asynchronously. Modules without I/O decide everything else."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache, partial
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

# The defaults of httpx, but idle connections are kept longer, because polls are seconds apart. A connection that the
# server has closed is not used again.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=50.0)


class Client(Operations):
    """Calls the API and blocks until the response has arrived. Not for several threads at once.

    :param config: address, API key and timeouts.
    :param policy: what to retry, and for how long; default: eight tries within two minutes.
    :param sleep: waits a number of seconds between two tries.
    :raises PlanasonixConfigurationError: if the address or the CA bundle is unusable.
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
        """Send a request, with retries if they are safe and can help.

        :param request: a request of :mod:`planasonix_provider.api.routes`.
        :param policy: the retry policy of this request; default: the client's.
        :return: the content of the response.
        :raises PlanasonixError: if the request failed.
        """
        policy = policy or self.policy
        retrying = Retrying(
            **policy.tenacity_options(request.idempotency, partial(self.config.observer.on_retry, request)),
            sleep=self._sleep,
        )
        content: T = retrying(self._try, request, policy)
        return content

    def wait_for_rate_limit(self, request: Request[Any], max_seconds: float = math.inf) -> None:
        """Sleep if the rate limit runs short and the request can wait.

        :param request: the request to be sent.
        :param max_seconds: the longest time to sleep.
        """
        if request.can_wait:
            for delay in self.rate_limiter.acquire(max_seconds):
                self._sleep(delay)

    def _try(self, request: Request[T], policy: RetryPolicy) -> T:
        if policy.respects_rate_limit:
            self.wait_for_rate_limit(request, policy.read_seconds_left)
        if not policy.ignores_retry_after:
            _raise_during_retry_after(self.rate_limiter, request)
        self._timeout.start(policy.read_seconds_left if request.can_wait else math.inf)
        return self._send_once(request)

    def _send_once(self, request: Request[T]) -> T:
        with translate_errors(self.config, request), _Observation(self, request) as observation:
            with self._http.stream(**_arguments(request), extensions={"trace": self._timeout.trace}) as response:
                observation.status = response.status_code
                bounded = _bounded_response(self, request, response)
                for chunk in response.iter_raw():
                    bounded.feed(chunk)
            return parse_response(request, _redacted(self.config, bounded.finish()))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Operations):
    """Calls the API without blocking the event loop.

    :param config: address, API key and timeouts.
    :param policy: what to retry, and for how long; default: eight tries within two minutes.
    :param sleep: waits a number of seconds between two tries.
    :param rate_limiter: the rate limiter; default: the one that all clients of this API key share.
    :raises PlanasonixConfigurationError: if the address or the CA bundle is unusable.
    """

    def __init__(
        self,
        config: ClientConfig,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self.config = config
        self.policy = policy or RetryPolicy()
        self.rate_limiter = rate_limiter or rate_limiter_for(config.base_url, config.api_key)
        self._sleep = sleep
        self._rate_limit_lock = asyncio.Lock()
        self._http = httpx.AsyncClient(**_options(config), limits=_LIMITS)

    async def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request, with retries if they are safe and can help.

        :param request: a request of :mod:`planasonix_provider.api.routes`.
        :param policy: the retry policy of this request; default: the client's.
        :return: the content of the response.
        :raises PlanasonixError: if the request failed.
        """
        policy = policy or self.policy
        retrying = AsyncRetrying(
            **policy.tenacity_options(request.idempotency, partial(self.config.observer.on_retry, request)),
            sleep=self._sleep,
        )
        return await retrying(self._try, request, policy)

    async def wait_for_rate_limit(self, request: Request[Any], max_seconds: float = math.inf) -> None:
        """Sleep if the rate limit runs short and the request can wait.

        :param request: the request to be sent.
        :param max_seconds: the longest time to sleep, after the requests before this one.
        """
        if request.can_wait:
            async with self._rate_limit_lock:
                for delay in self.rate_limiter.acquire(max_seconds):
                    await self._sleep(delay)

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
        with translate_errors(self.config, request), _Observation(self, request) as observation:
            async with (
                asyncio.timeout(self.config.total_timeout),
                self._http.stream(**_arguments(request)) as response,
            ):
                observation.status = response.status_code
                bounded = _bounded_response(self, request, response)
                async for chunk in response.aiter_raw():
                    bounded.feed(chunk)
            return parse_response(request, _redacted(self.config, bounded.finish()))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Observation:
    """Reports one try of a request to the observer, however it ends."""

    def __init__(self, client: Client | AsyncClient, request: Request[Any]) -> None:
        self._client = client
        self._request = request
        self.status: int | None = None

    def __enter__(self) -> Self:
        self._began = clock.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = clock.monotonic() - self._began
        self._client.config.observer.on_sent(self._request, self.status, seconds, self._client.rate_limiter)


def _options(config: ClientConfig) -> dict[str, Any]:
    url = _base_url(config)
    return {
        "base_url": url,
        # A proxy cannot reach this machine's loopback interface, and would get the API key in plain text.
        "trust_env": not is_loopback(url.host),
        # The only encoding that can be decompressed in steps of a known size.
        "headers": {**config.headers, "Accept-Encoding": "gzip"},
        # The API has no cookies. A proxy's cookie would be sent with every request, and break it if it is not ASCII.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        "timeout": httpx.Timeout(config.read_timeout, connect=config.connect_timeout),
        "verify": _ssl_context(config),
        "follow_redirects": False,
    }


def _base_url(config: ClientConfig) -> httpx.URL:
    try:
        return httpx.URL(config.base_url)
    except httpx.InvalidURL as fault:
        raise PlanasonixConfigurationError(
            f"{config.base_url!r} is no usable address ({fault}). Check the host of {config.connection}."
        ) from None


def _ssl_context(config: ClientConfig) -> ssl.SSLContext:
    try:
        return _cached_ssl_context(config.verify)
    except OSError as fault:
        if not isinstance(config.verify, str):
            raise
        raise PlanasonixConfigurationError(
            f'The CA bundle {config.verify!r} cannot be read ({fault.strerror or fault}). Allowed as "verify" in the '
            f"extra of {config.connection} is true, false, or the path of a PEM file on this machine."
        ) from None


@cache
def _cached_ssl_context(verify: bool | str) -> ssl.SSLContext:
    """Return one context per process: creating one reads the whole CA bundle, which takes longer than a request."""
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


def _raise_during_retry_after(limiter: RateLimiter, request: Request[Any]) -> None:
    if seconds := limiter.retry_after_remaining():
        raise PlanasonixRateLimitError(
            f"{request}: not sent, since Planasonix has asked this API key to be silent for another "
            f"{math.ceil(seconds)} s (429).",
            retry_after=seconds,
        )


def _bounded_response(client: Client | AsyncClient, request: Request[Any], response: httpx.Response) -> BoundedResponse:
    """Start a response, and update the rate limiter from its headers."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    client.rate_limiter.update(response.status_code, headers)
    return BoundedResponse(request, response.status_code, headers, client.config.connection)


def _redacted(config: ClientConfig, response: RawResponse) -> RawResponse:
    """Remove the key from a response: a server may send it back, and responses are logged, printed and returned."""
    headers = {name: config.redact(value) for name, value in response.headers.items()}
    content = config.redact_body(response.content)
    if not 200 <= response.status < 300:
        content = content.decode(errors="replace").encode()
    return replace(response, headers=headers, content=content)
