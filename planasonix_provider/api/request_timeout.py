"""A bound for a blocking try in all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx


class TotalTimeout:
    """Ends a blocking try in time: httpx bounds each single read, and a server that drips would be read for ever.

    It watches the sockets and not the pieces of the body, since headers, or what frames a chunk, can drip as well.

    :param seconds: for how many seconds a try may last.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0

    def start(self, max_seconds: float = math.inf) -> None:
        """Count anew, for the next try.

        :param at_most: for how many seconds that one may last, where it is less than usual.
        """
        self._end = time.monotonic() + min(self._seconds, max_seconds)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
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
