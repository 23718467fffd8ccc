"""An API that is gone for a time: travelled time, so that an hour of it passes at once.

What breaks is httpx's way to the server; all above it, and the server when it is back, is what it always is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from planasonix_provider.api import client
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.waiting import shared_client
from tests.support.time_travel import TravelledClock

#: What an outage looks like to who asks: nobody listens, a proxy answers for the API, or nobody answers.
KINDS = ("refused", "503", "silence")
MINUTE = 60.0
#: What a proxy in the API's place answers while it restarts: statuses that the API has, too, with a page in HTML.
PROXY_STATUSES = (302, 403, 404)
#: For how long a request is waited for that nobody answers.
_SILENCE = 30.0


@contextmanager
def outage(
    travel: TravelledClock,
    kind: str | int,
    *,
    seconds: float,
    after: float | Callable[[], bool] = 0.0,
    route: str = "/api/",
) -> Iterator[None]:
    """Let the API be gone, from a moment on and for a time; both are the traveller's.

    :param travel: tells how much time has passed.
    :param kind: one of :data:`KINDS`, or a status with which a proxy answers in the API's place.
    :param seconds: how long it lasts.
    :param after: after how many seconds it begins, or what says that it does.
    :param route: what of the API is gone, as a part of the path.
    """
    began: list[float] = []

    def is_down(request: httpx.Request) -> bool:
        if not began and (after() if callable(after) else travel.passed >= after):
            began.append(travel.passed)
        return bool(began) and travel.passed < began[0] + seconds and route in request.url.path

    def fails(request: httpx.Request) -> httpx.Response:
        if kind == "refused":
            raise httpx.ConnectError("Connection refused", request=request)
        if kind == "silence":
            travel.sleep(_SILENCE)
            raise httpx.ReadTimeout("", request=request)
        if kind == "503":
            return httpx.Response(503, request=request, stream=httpx.ByteStream(b""))
        page = httpx.ByteStream(b"<html><body>default backend</body></html>")
        headers = {"content-type": "text/html", **({"location": "/maintenance"} if kind == 302 else {})}
        return httpx.Response(int(kind), request=request, headers=headers, stream=page)

    blocking, awaited = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return fails(request) if is_down(request) else blocking(self, request)

    async def handle_aside(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return fails(request) if is_down(request) else await awaited(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", handle)
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_aside)
        # The pauses between the tries of a request pass on the same clock, and are as long as they may be.
        policy: Any = partial(RetryPolicy, clock=travel.monotonic, uniform=lambda low, high: high)
        for module in (client, shared_client):
            patch.setattr(module, "RetryPolicy", policy)
        yield
