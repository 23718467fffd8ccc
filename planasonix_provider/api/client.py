"""Sends requests over httpx, blocking or not; the only module that knows httpx.

The two clients differ in how they send, and in nothing else. What a request holds and what an answer means is decided
in functions without I/O.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self, TypeVar

import httpx
from pydantic import SecretStr
from tenacity import AsyncRetrying, Retrying

from planasonix_provider import __version__, clock
from planasonix_provider.api.answers import Answer, Incoming, read
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixRateLimitError,
    PlanasonixResponseError,
    PlanasonixTransportError,
)
from planasonix_provider.api.operation import Operations
from planasonix_provider.api.pace import Pace, pace_of
from planasonix_provider.api.retry import Policy
from planasonix_provider.api.routes import Request

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.planasonix.com"
#: Seconds.
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_READ_TIMEOUT = 30.0
# As httpx has them, but for how long a socket may rest: looks are seconds apart. One that the server has closed is not
# used again.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=50.0)

#: A text this short is no key that could be told from ordinary words.
_SHORTEST_KEY_TO_HIDE = 6


@dataclass(frozen=True)
class Account:
    """Where the API is, and who asks.

    :param api_key: the API key; it shows in no repr.
    :param base_url: scheme, host and, behind a gateway, the path before ``/api/v1``.
    :param organization_id: sent as ``X-Organization-ID``, for a key that serves several organisations.
    :param connect_timeout: for how many seconds to try to connect.
    :param read_timeout: for how many seconds to wait for the next bytes of an answer.
    :param try_timeout: for how many seconds one try may last in all, however steadily its bytes drip; ``None`` is the
        time to connect and four times the time to read.
    :param verify: whether to check the server's certificate, or the path of the CA bundle to check it by.
    :param user_agent: who the server is told is asking.
    :raises ValueError: if the key could not be sent as a header; the message does not hold it.
    """

    api_key: SecretStr
    base_url: str = DEFAULT_BASE_URL
    organization_id: str | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    try_timeout: float | None = None
    verify: bool | str = True
    user_agent: str = f"airflow-provider-planasonix/{__version__} Python/{sys.version.split()[0]}"

    def __post_init__(self) -> None:
        key = self.api_key.get_secret_value()
        # The HTTP library would refuse such a header as well, and would print it.
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("The API key is empty, or holds a space, a line break or a character that is not ASCII.")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = {
            "Authorization": f"Bearer {self.api_key.get_secret_value()}",
            "User-Agent": self.user_agent,
        }
        if self.organization_id:
            headers["X-Organization-ID"] = self.organization_id
        return headers

    @property
    def host(self) -> str:
        """The API's host as data sets are named after it: in lower case, its port only where that is not the usual."""
        return httpx.URL(self.base_url).netloc.decode("ascii")

    @property
    def seconds_a_try(self) -> float:
        """For how many seconds one try may last in all."""
        return self.connect_timeout + 4 * self.read_timeout if self.try_timeout is None else self.try_timeout

    def in_a_hurry(self) -> Account:
        """Give the same account, for a process that has only seconds left.

        :return: the account, with timeouts of 1 s to connect, 1.5 s to read and 2.5 s in all.
        """
        return replace(self, connect_timeout=1.0, read_timeout=1.5, try_timeout=2.5)

    def without_key(self, text: str) -> str:
        """Take the key out of a text that came from elsewhere, for a server may send back what it was sent.

        :param text: what is to be shown.
        :return: the text, with asterisks where the key was.
        """
        key = self.api_key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _SHORTEST_KEY_TO_HIDE else text


class Client(Operations):
    """Calls the API and blocks until the answer is there. Not for several threads at once.

    :param account: where the API is, and who asks.
    :param policy: which failures to try again, and for how long.
    :param sleep: waits for a number of seconds between two tries.
    """

    def __init__(
        self,
        account: Account,
        policy: Policy | None = None,
        *,
        sleep: Callable[[float], None] = clock.sleep,
    ) -> None:
        self.account = account
        self.policy = policy or Policy()
        self.pace = pace_of(account.base_url, account.api_key)
        self._sleep = sleep
        self._deadline = _Deadline(account.seconds_a_try)
        self._http = httpx.Client(**_options(account))

    def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Send a request, again where that is safe and can help.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: for this request another policy than the client's.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        policy = policy or self.policy
        retrying = Retrying(**policy.tenacity(request.repeat), sleep=self._sleep)
        answer: T = retrying(self._try, request, policy)
        return answer

    def wait_for_turn(self, request: Request[Any]) -> None:
        """Let others go first, where the rate limit runs short and the request can wait.

        :param request: what is to be sent.
        """
        if request.can_wait:
            for rest in self.pace.rests():
                self._sleep(rest)

    def _try(self, request: Request[T], policy: Policy) -> T:
        if policy.takes_turns:
            self.wait_for_turn(request)
        if not policy.is_urgent:
            _keep_silence(self.pace, request)
        return self._send_once(request)

    def _send_once(self, request: Request[T]) -> T:
        with _faults_named(self.account, request):
            self._deadline.begin()
            with self._http.stream(**_arguments(request), extensions={"trace": self._deadline.watch}) as response:
                incoming = _incoming(self.pace, request, response)
                for piece in response.iter_raw():
                    incoming.take(piece)
            return read(request, _without_key(self.account, incoming.answer()))

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
    :param policy: which failures to try again, and for how long.
    :param sleep: waits for a number of seconds between two tries.
    """

    def __init__(
        self,
        account: Account,
        policy: Policy | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.account = account
        self.policy = policy or Policy()
        self.pace = pace_of(account.base_url, account.api_key)
        self._sleep = sleep
        self._line = asyncio.Lock()
        self._http = httpx.AsyncClient(**_options(account), limits=_LIMITS)

    async def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Send a request, again where that is safe and can help.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: for this request another policy than the client's.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        policy = policy or self.policy
        retrying = AsyncRetrying(**policy.tenacity(request.repeat), sleep=self._sleep)
        return await retrying(self._try, request, policy)

    async def wait_for_turn(self, request: Request[Any]) -> None:
        """Let others go first, where the rate limit runs short and the request can wait.

        :param request: what is to be sent.
        """
        if request.can_wait:
            async with self._line:
                for rest in self.pace.rests():
                    await self._sleep(rest)

    async def _try(self, request: Request[T], policy: Policy) -> T:
        if policy.takes_turns:
            await self.wait_for_turn(request)
        if not policy.is_urgent:
            _keep_silence(self.pace, request)
        return await self._send_once(request)

    async def _send_once(self, request: Request[T]) -> T:
        with _faults_named(self.account, request):
            async with (
                asyncio.timeout(self.account.seconds_a_try),
                self._http.stream(**_arguments(request)) as response,
            ):
                incoming = _incoming(self.pace, request, response)
                async for piece in response.aiter_raw():
                    incoming.take(piece)
            return read(request, _without_key(self.account, incoming.answer()))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Deadline:
    """Ends a blocking try in time: httpx bounds each single read, and a server that drips would be read for ever.

    It watches the sockets and not the pieces of the body, since headers, or what frames a chunk, can drip as well.

    :param seconds: for how many seconds a try may last.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0

    def begin(self) -> None:
        """Count anew, for the next try."""
        self._end = time.monotonic() + self._seconds

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Bound all that is to be read from and written to a connection, from the moment that it is made.

        :param event: what the HTTP library has just done.
        :param info: what came of it.
        """
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info["return_value"]
            stream.read, stream.write = self._bounded(stream.read), self._bounded(stream.write)

    def _bounded(self, transfer: Callable[[Any, float], Any]) -> Callable[[Any, float], Any]:
        def bounded(what: Any, timeout: float) -> Any:
            left = self._end - time.monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("")
            return transfer(what, min(timeout, left))

        return bounded


def _options(account: Account) -> dict[str, Any]:
    return {
        "base_url": _base_url(account.base_url),
        # The one way of packing that can be unpacked in steps of a known size.
        "headers": {**account.headers, "Accept-Encoding": "gzip"},
        # The API has no cookies. One of a proxy's would go along with every further request, and break it if not ASCII.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        "timeout": httpx.Timeout(account.read_timeout, connect=account.connect_timeout),
        "verify": _ssl_context(account.verify),
        "follow_redirects": False,
    }


def _base_url(address: str) -> httpx.URL:
    try:
        return httpx.URL(address)
    except httpx.InvalidURL as fault:
        raise PlanasonixConfigurationError(
            f"{address!r} is no usable address ({fault}). Check the host of the Airflow connection."
        ) from None


@cache
def _ssl_context(verify: bool | str) -> ssl.SSLContext:
    """One context a process: making one reads the whole CA bundle, which costs more than a request does."""
    if not isinstance(verify, str):
        return httpx.create_ssl_context(verify)
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as fault:
        raise PlanasonixConfigurationError(
            f"The CA bundle {verify!r} cannot be read ({fault.strerror or fault}). What the extra of the Airflow "
            'connection has as "verify" is true, false, or the path of a PEM file on this machine.'
        ) from None


def _arguments(request: Request[Any]) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url_path,
        "params": {name: value for name, value in request.query.items() if value is not None},
        "json": request.body,
        "headers": {
            "Accept": request.reply.accepts,
            **({"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}),
        },
    }


def _keep_silence(pace: Pace, request: Request[Any]) -> None:
    if rest := pace.silence():
        raise PlanasonixRateLimitError(
            f"{request}: not sent, for Planasonix has asked this API key to be silent for another {math.ceil(rest)} s "
            "(429).",
            retry_after=rest,
        )


def _incoming(pace: Pace, request: Request[Any], response: httpx.Response) -> Incoming:
    """Leave the library behind, and learn what the headers say of the rate limit."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    pace.note(response.status_code, headers)
    return Incoming(request, response.status_code, headers)


def _without_key(account: Account, answer: Answer) -> Answer:
    """Leave the key behind, for a server may send it back and an error may be made of that."""
    headers = {name: account.without_key(value) for name, value in answer.headers.items()}
    content = answer.content
    if not 200 <= answer.status < 300:
        content = account.without_key(content.decode(errors="replace")).encode()
    return Answer(answer.status, headers, content)


@contextmanager
def _faults_named(account: Account, request: Request[Any]) -> Iterator[None]:
    """Turn what httpx raises into our errors, and keep the key out of every message."""
    try:
        yield
    except PlanasonixError as error:
        # What was taken out of the answer's bytes may have come escaped as well, as JSON allows.
        error.reword(account.without_key(error.message))
        if isinstance(error, PlanasonixResponseError):
            error.code = error.code and account.without_key(error.code)
            error.fields = tuple(map(account.without_key, error.fields))
            error.existing_job_id = error.existing_job_id and account.without_key(error.existing_job_id)
        raise
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as fault:
        what, advice = _describe(fault)
        # Without the chain: twenty frames of sockets say less than the sentence, and hold the request's headers.
        raise PlanasonixTransportError(
            account.without_key(f"{request}: {what} at {account.base_url}. {advice}"), sent=_may_have_been_sent(fault)
        ) from None


_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def _may_have_been_sent(fault: Exception) -> bool:
    return not isinstance(fault, (*_NEVER_SENT, httpx.InvalidURL))


def _describe(fault: Exception) -> tuple[str, str]:
    """Say what happened on the way to the API, and what to do about it."""
    # First, for what TLS was about to do when the time was over is among the causes.
    if isinstance(fault, httpx.ConnectTimeout):
        return (
            "no connection in time",
            'Check the host and firewalls; "timeout" in the connection\'s extra allows more.',
        )
    if isinstance(fault, (httpx.TimeoutException, TimeoutError)):
        return "no answer in time", 'Try again later; "timeout" in the extra allows more.'
    causes = list(_causes(fault))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "no such host", "Check the host of the Airflow connection, and this machine's DNS."
    if tls is not None and tls.reason == "WRONG_VERSION_NUMBER":
        return "no TLS but perhaps plain http spoken", "Check the host, its scheme and its port."
    if tls is not None:
        return (
            f"no trusted TLS connection ({getattr(tls, 'verify_message', '') or tls.reason or tls})",
            'Check the host and its scheme; "verify" in the extra may name your own CA bundle.',
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused", "Check the host and port of the Airflow connection, and that the service is up."
    if isinstance(fault, httpx.ProxyError):
        return f"the proxy refused ({fault})", "Check HTTPS_PROXY and NO_PROXY in this machine's environment."
    if isinstance(fault, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
        return f"no usable address ({fault})", "Check the host of the Airflow connection."
    return (
        f"the connection broke ({fault or type(fault).__name__})",
        "Try again; if it stays, check what lies between.",
    )


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """Walk down to what the operating system said, which httpx wraps twice."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__
