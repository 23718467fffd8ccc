"""Lets callers of the client count its requests. The client itself imports no Airflow, and so no metrics."""

from __future__ import annotations

from typing import Any, Protocol

from planasonix_provider.api.rate_limiter import RateLimiter
from planasonix_provider.api.request import Request


class RequestObserver(Protocol):
    """Receives each request that a client has sent. It must not raise an error, and not block."""

    def on_sent(self, request: Request[Any], status: int | None, seconds: float, limiter: RateLimiter) -> None:
        """Record a request that is over, once for each try.

        :param status: the status of the response; ``None`` if there was none.
        :param seconds: the time from the first byte to the last.
        :param limiter: knows what is left of the rate limit.
        """

    def on_retry(self, request: Request[Any]) -> None:
        """Record that a request is about to be repeated after an error."""


class NoObserver:
    """Records nothing."""

    def on_sent(self, request: Request[Any], status: int | None, seconds: float, limiter: RateLimiter) -> None:
        """Do nothing."""

    def on_retry(self, request: Request[Any]) -> None:
        """Do nothing."""
