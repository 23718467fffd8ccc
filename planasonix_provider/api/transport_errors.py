"""Turns the errors of httpx into errors that say what happened and what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixError, PlanasonixResponseError, PlanasonixTransportError
from planasonix_provider.api.request import Request


@contextmanager
def translate_errors(config: ClientConfig, request: Request[Any]) -> Iterator[None]:
    """Raise httpx's errors as :class:`PlanasonixTransportError`, and remove the key from the message of every error."""
    try:
        yield
    except PlanasonixError as error:
        # The key was removed from the bytes of the body, but JSON may have contained it with escapes.
        error.set_message(config.redact(error.message))
        if isinstance(error, PlanasonixResponseError):
            error.code = error.code and config.redact(error.code)
            error.fields = tuple(map(config.redact, error.fields))
            error.existing_job_id = error.existing_job_id and config.redact(error.existing_job_id)
        raise
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as fault:
        what, advice = _describe(fault, config.connection)
        # Without the chain, which is twenty frames of sockets, and holds the request's headers.
        raise PlanasonixTransportError(
            config.redact(f"{request}: {what} at {config.base_url}. {advice}"),
            sent=not isinstance(fault, _NEVER_SENT),
            is_unreachable=isinstance(fault, _UNREACHABLE),
        ) from None


_UNREACHABLE = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_NEVER_SENT = (*_UNREACHABLE, httpx.LocalProtocolError, httpx.PoolTimeout)


def _describe(fault: Exception, connection: str) -> tuple[str, str]:
    """Return what happened, and what to do about it."""
    # Checked first, because an interrupted TLS handshake is among the causes of a timeout.
    if isinstance(fault, httpx.ConnectTimeout):
        return (
            "no connection in time",
            f'Check the host of {connection}, and firewalls; "timeout" in its extra allows more.',
        )
    if isinstance(fault, (httpx.TimeoutException, TimeoutError)):
        return "no answer in time", f'Try again later; "timeout" in the extra of {connection} allows more.'
    causes = list(_causes(fault))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "no such host", f"Check the host of {connection}, and this machine's DNS."
    # Only errors that OpenSSL itself finds have a reason.
    reason = getattr(tls, "reason", None)
    if reason == "WRONG_VERSION_NUMBER":
        return "no TLS, but perhaps plain http", f"Check the host of {connection}, its scheme and its port."
    if tls is not None:
        return (
            f"no trusted TLS connection ({getattr(tls, 'verify_message', '') or reason or tls})",
            f'Check the host of {connection}, and its scheme; "verify" in its extra may name your own CA bundle.',
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused", f"Check the host and port of {connection}, and that the service is up."
    if isinstance(fault, httpx.ProxyError):
        return f"the proxy refused ({fault})", "Check HTTPS_PROXY and NO_PROXY in this machine's environment."
    if isinstance(fault, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
        return f"no usable address ({fault})", f"Check the host of {connection}."
    return (
        f"the connection broke ({fault or type(fault).__name__})",
        "Try again; if it stays, check proxies and firewalls between this machine and the API.",
    )


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; httpx wraps the error of the operating system twice."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__
