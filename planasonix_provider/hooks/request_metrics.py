"""Counts the requests of an Airflow connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planasonix_provider import metrics
from planasonix_provider.api.rate_limiter import RateLimiter
from planasonix_provider.api.request import Request


@dataclass(frozen=True)
class RequestMetrics:
    """The observer of all clients of an Airflow connection."""

    conn_id: str

    def on_sent(self, request: Request[Any], status: int | None, seconds: float, limiter: RateLimiter) -> None:
        """Count a request that is over."""
        tags = {"conn_id": self.conn_id, "route": request.route}
        metrics.REQUEST.add(1, tags | {"status": "none" if status is None else str(status)})
        metrics.REQUEST_DURATION.record(seconds, tags)
        if status == 429:
            metrics.REQUEST_RATE_LIMITED.add(1, tags)
        if limit := limiter.current():
            metrics.RATE_LIMIT_REMAINING.set(limit.remaining, {"conn_id": self.conn_id})

    def on_retry(self, request: Request[Any]) -> None:
        """Count a request that is repeated."""
        metrics.REQUEST_RETRIED.add(1, {"conn_id": self.conn_id, "route": request.route})
