"""The newest requests of the API, and the number of all requests by route."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Request

MAX_REQUESTS = 10_000
#: The logged headers. None of them contains the key.
LOGGED_HEADERS = ("user-agent", "idempotency-key", "x-organization-id", "content-type", "accept")


@dataclass
class LoggedRequest:
    """A request of the API.

    ``route`` is ``unknown`` if no route matches, ``path`` is percent-encoded, header names are in lower case, and
    ``status`` is ``None`` if there is no response (yet). ``key`` is the name of its API key.
    """

    route: str
    method: str
    path: str
    query: str
    at: datetime
    key: str | None
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None


class RequestLog:
    """The requests of the API. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._requests: deque[LoggedRequest] = deque(maxlen=MAX_REQUESTS)
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, route: str, request: Request, at: datetime, key: str | None) -> LoggedRequest:
        """Log a request, and return its entry, to which the caller adds the status."""
        headers = {name: request.headers[name] for name in LOGGED_HEADERS if name in request.headers}
        query = request.scope["query_string"].decode("latin-1")
        logged = LoggedRequest(route, request.method, request.scope["path"], query, at, key, headers)
        with self._lock:
            self._requests.append(logged)
            self._counts[route] += 1
        return logged

    def requests(self) -> list[LoggedRequest]:
        """Return the newest requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def newest(self, limit: int) -> list[LoggedRequest]:
        """Return up to ``limit`` of the newest requests, newest first."""
        with self._lock:
            return list(islice(reversed(self._requests), limit))

    def counts(self) -> dict[str, int]:
        """Return the number of all requests by route."""
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()
            self._counts.clear()
