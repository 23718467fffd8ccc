"""Reads the body of an unauthenticated request, with limits for its size and time."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

#: The deliveries that were seen have some hundred bytes. A sender of half a body occupies this much memory.
MAX_BODY_BYTES = 64 * 1024
#: For the whole body.
READ_TIMEOUT_SECONDS = 10.0
#: How many bodies are read at once, which bounds the memory that they occupy.
MAX_BODIES = 200


class RefusedBodyError(Exception):
    """A body that is not read to its end. It has the response's status and the reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class BodyReader:
    """Reads the bodies of a limited number of requests at once. For one event loop.

    If there are too many, it refuses the oldest one, so that slow senders do not block fast ones.
    """

    def __init__(
        self, *, max_bytes: int = MAX_BODY_BYTES, timeout: float = READ_TIMEOUT_SECONDS, max_bodies: int = MAX_BODIES
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_bodies = max_bodies
        self._timeouts: dict[asyncio.Timeout, None] = {}

    async def read(self, request: Request) -> bytes:
        """Return the raw body; raise a `RefusedBodyError` if it is too large, too slow or incomplete."""
        length = request.headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise RefusedBodyError(400, "its Content-Length is not a number")
        if int(length) > self._max_bytes:
            raise self._too_large_error()
        try:
            async with asyncio.timeout(self._timeout) as scope:
                return await self._read(request, scope)
        except TimeoutError:
            raise RefusedBodyError(
                408,
                f"its body was not there after {self._timeout:.0f} s, "
                f"or {self._max_bodies} newer ones were on their way",
            ) from None
        except ClientDisconnect:
            raise RefusedBodyError(400, "its body broke off") from None

    async def _read(self, request: Request, scope: asyncio.Timeout) -> bytes:
        self._timeouts[scope] = None
        if len(self._timeouts) > self._max_bodies:
            self._time_out_oldest()
        try:
            body = bytearray()
            async for part in request.stream():
                if len(body) + len(part) > self._max_bytes:
                    raise self._too_large_error()
                body += part
            return bytes(body)
        finally:
            self._timeouts.pop(scope, None)

    def _time_out_oldest(self) -> None:
        oldest = next(iter(self._timeouts))
        del self._timeouts[oldest]
        # Raised if the timeout has just expired.
        with suppress(RuntimeError):
            oldest.reschedule(asyncio.get_running_loop().time())

    def _too_large_error(self) -> RefusedBodyError:
        return RefusedBodyError(413, f"its body has more than {self._max_bytes:,} bytes")
