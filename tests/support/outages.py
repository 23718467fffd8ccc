"""Simulates outages of the API. Time is simulated as well, so an hour passes at once.

Only httpx's transport is replaced.
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

#: The connection is refused, a proxy responds, or nothing responds.
KINDS = ("refused", "503", "silence")
MINUTE = 60.0
#: The statuses of a proxy's HTML page while the API restarts; the API has them, too.
PROXY_STATUSES = (302, 403, 404)
#: The seconds until a request without a response times out.
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
    """Simulate an outage, by the simulated clock.

    :param kind: one of :data:`KINDS`, or the status of a proxy that responds in the API's place.
    :param after: after how many seconds, or on which condition, the outage begins.
    :param route: the part of the path that it affects.
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

    async def handle_async(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return fails(request) if is_down(request) else await awaited(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", handle)
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async)
        # The pauses between retries use the same clock, and are as long as possible.
        policy: Any = partial(RetryPolicy, clock=travel.monotonic, uniform=lambda low, high: high)
        for module in (client, shared_client):
            patch.setattr(module, "RetryPolicy", policy)
        yield
