"""How an answer gets lost on the wire: what a fault does, down to the TCP connection."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from planasonix_provider.simulator.api.faults import Fault
from planasonix_provider.simulator.api.responses import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: Where a request's scope holds its connection.
TRANSPORT = "planasonix.transport"

_PROXY_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>{title}</title></head>"
    "<body><center><h1>{title}</h1></center><hr><center>nginx</center></body></html>\n"
)


class ConnectionProtocol(H11Protocol):
    """Uvicorn's HTTP, which also tells a request on which connection it came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app: Any = partial(self._call, self.app)
        # Uvicorn decides by the handlers of whoever runs the simulator, whose log a line a request would flood.
        self.access_log = False

    async def _call(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[TRANSPORT] = self.transport
        # Only a server that stops cancels its requests, and by then it has dropped their connections. Uvicorn would log
        # each as an error of the application.
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)


class ConnectionReset(Response):
    """No answer: the connection is reset, as by a process that died."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reset the connection."""
        transport = _transport(scope)
        # A connection that must not linger is closed with a RST instead of a FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _disconnected(receive)


class TruncatedResponse(Response):
    """Half an answer: all headers, half of the body, and then the connection ends.

    :param answer: the answer that is cut.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(status_code=answer.status_code)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a half, and close the connection."""
        body = bytes(self.answer.body)
        headers = self.answer.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        _transport(scope).close()
        await _disconnected(receive)


async def inject(fault: Fault, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Let a request fail.

    :param fault: how it fails.
    :param answer: lets the request have its effect, and gives the answer that it would get.
    :return: what its caller gets instead.
    """
    if fault.kind == "hang" and fault.when == "before":
        await asyncio.sleep(fault.seconds)
        return await answer()
    if fault.kind == "odd":
        return _with_fields(await answer(), fault.fields)
    lost = await answer() if fault.when == "after" else None
    if fault.kind == "hang" and lost is not None:
        await asyncio.sleep(fault.seconds)
        return lost
    return _instead(fault, lost)


def _with_fields(answer: Response, fields: dict[str, Any]) -> Response:
    """Change an answer that has data."""
    if answer.media_type != "application/json" or answer.status_code >= 300:
        return answer
    body = json.loads(bytes(answer.body))
    data = body["data"]
    body["data"] = [fields, *data] if isinstance(data, list) else {**data, **fields}
    # In ASCII, so that it can also be what UTF-8 cannot hold.
    return Response(json.dumps(body).encode(), answer.status_code, media_type="application/json")


def _instead(fault: Fault, lost: Response | None) -> Response:
    """Make what is sent instead of an answer."""
    if fault.kind == "reset":
        return ConnectionReset()
    if fault.kind == "cut":
        return TruncatedResponse(lost or Response(b'{"data": {"id": null}}', media_type="application/json"))
    status = fault.response_status
    if fault.kind == "status":
        return error_response(status, _code(status), "a fault that was ordered", fault.headers)
    page = _PROXY_PAGE.format(title=f"{status} {_phrase(status)}") if fault.kind == "html" else None
    return Response(page, status, dict(fault.headers), media_type="text/html" if page else None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown Error"


def _code(status: int) -> str:
    return _phrase(status).lower().replace(" ", "_").replace("-", "_").replace("'", "")


def _transport(scope: Scope) -> asyncio.Transport:
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if not isinstance(transport, asyncio.Transport):
        raise RuntimeError("There is no connection to break: serve the app with the class Simulator.")
    return transport


async def _disconnected(receive: Receive) -> None:
    # Uvicorn takes a request that ends without an answer for an error, unless its connection is gone.
    while (await receive())["type"] != "http.disconnect":
        pass
