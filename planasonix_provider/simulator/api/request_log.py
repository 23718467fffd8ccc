"""Which requests came: the newest in full, and all of them counted."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Request

#: How many requests are kept; older ones are only counted.
MAX_REQUESTS = 10_000
#: The headers that are kept. The key is in none of them.
LOGGED_HEADERS = ("user-agent", "idempotency-key", "x-organization-id", "content-type", "accept")


@dataclass
class LoggedRequest:
    """A request of the API.

    :param route: the name of its route, or ``unknown``.
    :param method: its HTTP method.
    :param path: its path as it came, percent-encoded.
    :param query: its query string as it came.
    :param at: when it came.
    :param headers: those of its headers that matter, by their names in lower case.
    :param status: the HTTP status of its answer; ``None`` if there is none yet, or never will be.
    """

    route: str
    method: str
    path: str
    query: str
    at: datetime
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None


class RequestLog:
    """The requests of the API. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._requests: deque[LoggedRequest] = deque(maxlen=MAX_REQUESTS)
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, route: str, request: Request, at: datetime) -> LoggedRequest:
        """Record a request as it comes.

        :param route: the name of its route.
        :param request: the request.
        :param at: the time.
        :return: the record, which still lacks the answer's status.
        """
        headers = {name: request.headers[name] for name in LOGGED_HEADERS if name in request.headers}
        query = request.scope["query_string"].decode("latin-1")
        recorded = LoggedRequest(route, request.method, request.scope["path"], query, at, headers)
        with self._lock:
            self._requests.append(recorded)
            self._counts[route] += 1
        return recorded

    def requests(self) -> list[LoggedRequest]:
        """Give the newest requests.

        :return: up to :data:`KEPT` requests, in the order in which they came.
        """
        with self._lock:
            return list(self._requests)

    def counts(self) -> dict[str, int]:
        """Count the requests.

        :return: how many came for each route.
        """
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._requests.clear()
            self._counts.clear()
