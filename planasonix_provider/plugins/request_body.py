"""Reads the body of a request that nobody has vouched for: not too much of it, and not for too long."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

#: How many bytes a delivery may have. Those that were seen have some hundred; whoever sends half of one holds the room.
MAX_BODY_BYTES = 64 * 1024
#: For how many seconds a body may come.
READ_TIMEOUT = 10.0
#: How many bodies are read at once, which bounds the memory that they take.
MAX_BODIES = 200


class RefusedBodyError(Exception):
    """A body that is not read to its end.

    :param status: what to answer.
    :param why: what is wrong with it.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class BodyReader:
    """Reads the bodies of requests, only so many at once. To be used in one event loop.

    If there are too many, the oldest one is refused, so senders that are slow on purpose keep no quick sender out.

    :param largest: how many bytes a body may have.
    :param patience: for how many seconds a body may come.
    :param most: how many bodies are read at once.
    """

    def __init__(
        self, *, max_bytes: int = MAX_BODY_BYTES, timeout: float = READ_TIMEOUT, max_bodies: int = MAX_BODIES
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_bodies = max_bodies
        self._timeouts: dict[asyncio.Timeout, None] = {}

    async def read(self, request: Request) -> bytes:
        """Read the raw body.

        :param request: the request.
        :return: the body, as it came over the wire.
        :raises RefusedBodyError: if it is too large by what it says or by what it is, too slow, or breaks off.
        """
        length = request.headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise RefusedBodyError(400, "its Content-Length is not a number")
        if int(length) > self._max_bytes:
            raise self._too_large_error()
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await self._read(request, limit)
        except TimeoutError:
            raise RefusedBodyError(
                408,
                f"its body was not there after {self._timeout:.0f} s, "
                f"or {self._max_bodies} newer ones were on their way",
            ) from None
        except ClientDisconnect:
            raise RefusedBodyError(400, "its body broke off") from None

    async def _read(self, request: Request, limit: asyncio.Timeout) -> bytes:
        self._timeouts[limit] = None
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
            self._timeouts.pop(limit, None)

    def _time_out_oldest(self) -> None:
        oldest = next(iter(self._timeouts))
        del self._timeouts[oldest]
        # Its time may be up this very moment.
        with suppress(RuntimeError):
            oldest.reschedule(asyncio.get_running_loop().time())

    def _too_large_error(self) -> RefusedBodyError:
        return RefusedBodyError(413, f"its body has more than {self._max_bytes:,} bytes")
