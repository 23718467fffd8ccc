"""The total timeout of a blocking request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx


class TotalTimeout:
    """Limits the total time of a request. httpx limits only each read, so a server could drip bytes forever.

    It wraps the sockets and does not look at the body, because headers and chunk frames can drip as well.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0

    def start(self, max_seconds: float = math.inf) -> None:
        """Start the timeout for the next request."""
        self._end = time.monotonic() + min(self._seconds, max_seconds)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Limit reads and writes of each new connection. This is httpx's trace hook."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info["return_value"]
            stream.read, stream.write = self._bounded(stream.read), self._bounded(stream.write)

    def _bounded(self, transfer: Callable[[Any, float], Any]) -> Callable[[Any, float], Any]:
        def bounded(data: Any, timeout: float) -> Any:
            left = self._end - time.monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("")
            return transfer(data, min(timeout, left))

        return bounded
