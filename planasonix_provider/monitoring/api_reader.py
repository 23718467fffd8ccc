"""Reads the API for people who wait: short timeouts, no retries, and few attempts while it does not answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, TypeVar

from planasonix_provider.api.client import AsyncClient
from planasonix_provider.api.errors import (
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixNotFoundError,
    PlanasonixRateLimitError,
    PlanasonixTransportError,
    PlanasonixValidationError,
)
from planasonix_provider.api.headers import RateLimit
from planasonix_provider.api.models import Job
from planasonix_provider.api.rate_limiter import UNTHROTTLED_FRACTION
from planasonix_provider.api.request import Request
from planasonix_provider.api.retry import NO_RETRY
from planasonix_provider.clock import monotonic
from planasonix_provider.hooks.connection_settings import ConnectionSettings
from planasonix_provider.waiting.shared_client import RequestPriority, SharedClient

T = TypeVar("T")

#: The seconds to connect, to wait for the next bytes, and in total.
CONNECT_TIMEOUT, READ_TIMEOUT, TOTAL_TIMEOUT = 2.0, 4.0, 5.0
#: How long a request may take, including its wait for the rate limit.
MAX_SECONDS = 15.0
#: After an error, no request is sent for this many seconds.
PAUSE_SECONDS = 8.0
#: An old client is closed after this many seconds, when its last request is over.
CLOSE_AFTER_SECONDS = 30.0
# Errors that say nothing about the next request.
_REQUEST_ERRORS = (PlanasonixNotFoundError, PlanasonixConflictError, PlanasonixValidationError)


class ApiReader:
    """Sends requests for an Airflow connection. For one event loop.

    Before its first answer and after an error, one request goes ahead. The others wait for it, and share its error: an
    API that does not answer gets one request in :data:`PAUSE_SECONDS`.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        #: Ended jobs that were read one by one. They do not change, and the same id is another job with other settings.
        self.ended_jobs: dict[str, Job] = {}
        self._client = SharedClient(self._connect)
        self._probe = asyncio.Lock()
        self._is_answering = False
        self._error: PlanasonixError | None = None
        self._failed_at = float("-inf")

    def update(self, settings: ConnectionSettings) -> None:
        """Use other settings from now on, if they have changed."""
        if settings.client_config != self.settings.client_config:
            self.close_later()
            self._client = SharedClient(self._connect)
            self._is_answering, self._error = False, None
            self.ended_jobs = {}
        self.settings = settings

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rest of the key's rate limit, if it is known."""
        return self._client.rate_limit

    async def send(self, request: Request[T]) -> T:
        """Return the parsed response.

        :raises PlanasonixError: if the request failed, or if another one has failed just before.
        """
        if self._is_answering:
            return await self._send(request)
        async with self._probe:
            if self._error and monotonic() - self._failed_at < PAUSE_SECONDS:
                raise self._error.with_traceback(None)
            if not self._is_answering:
                return await self._send(request)
        return await self._send(request)

    async def send_first(self, request: Request[T]) -> T:
        """Return the parsed response of a request that a person has asked for, such as a cancel."""
        response = await self._client.send(request, priority=RequestPriority.FIRST, retry=False)
        self._is_answering, self._error = True, None
        return response

    def close_later(self) -> None:
        """Close the connections when the last requests are over."""
        asyncio.get_running_loop().call_later(CLOSE_AFTER_SECONDS, _close, self._client)

    async def close(self) -> None:
        """Close the connections; the next request opens another."""
        await self._client.close()

    async def _send(self, request: Request[T]) -> T:
        try:
            async with asyncio.timeout(MAX_SECONDS):
                response = await self._client.send(request, retry=False)
        except _REQUEST_ERRORS:
            self._is_answering, self._error = True, None
            raise
        except PlanasonixError as error:
            self._fail(error)
            raise
        except TimeoutError:
            fault = self._timeout_error(request)
            self._fail(fault)
            raise fault from None
        self._is_answering, self._error = True, None
        return response

    def _timeout_error(self, request: Request[Any]) -> PlanasonixError:
        limit = self._client.rate_limit
        if limit and limit.remaining < UNTHROTTLED_FRACTION * limit.limit:
            return PlanasonixRateLimitError(
                f"{request}: not sent, because little is left of the rate limit of this API key, and tasks need it.",
                retry_after=limit.seconds,
            )
        return PlanasonixTransportError(f"{request}: no answer within {MAX_SECONDS:.0f} s.", sent=False)

    def _fail(self, error: PlanasonixError) -> None:
        self._is_answering, self._error, self._failed_at = False, error, monotonic()

    async def _connect(self) -> AsyncClient:
        config = self.settings.client_config
        short = replace(
            config,
            connect_timeout=min(config.connect_timeout, CONNECT_TIMEOUT),
            read_timeout=min(config.read_timeout, READ_TIMEOUT),
            try_timeout=TOTAL_TIMEOUT,
        )
        return AsyncClient(short, NO_RETRY)


def _close(client: SharedClient) -> None:
    task: asyncio.Task[Any] = asyncio.ensure_future(client.close())
    _CLOSING.add(task)
    task.add_done_callback(_CLOSING.discard)


# References, because the event loop holds its tasks weakly.
_CLOSING: set[asyncio.Task[Any]] = set()
