"""Reads the body of a request that nobody has vouched for: not too much of it, and not for too long."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

#: How many bytes a delivery may have. Those that were seen have some hundred; whoever sends half of one holds the room.
LARGEST_BODY = 64 * 1024
#: For how many seconds a body may come.
PATIENCE = 10.0


class RefusedBodyError(Exception):
    """A body that is not read to its end.

    :param status: what to answer.
    :param why: what is wrong with it.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def read_body(request: Request, *, largest: int = LARGEST_BODY, patience: float = PATIENCE) -> bytes:
    """Read the raw body.

    :param request: the request.
    :param largest: how many bytes it may have.
    :param patience: for how many seconds it may come.
    :return: the body, as it came over the wire.
    :raises RefusedBodyError: if it is too large by what it says or by what it is, too slow, or breaks off.
    """
    length = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length):
        raise RefusedBodyError(400, "its Content-Length is not a number")
    too_large = RefusedBodyError(413, f"its body has more than {largest:,} bytes")
    if int(length) > largest:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                if len(body) + len(part) > largest:
                    raise too_large
                body += part
    except TimeoutError:
        raise RefusedBodyError(408, f"its body was not there after {patience:.0f} s") from None
    except ClientDisconnect:
        raise RefusedBodyError(400, "its body broke off") from None
    return bytes(body)
