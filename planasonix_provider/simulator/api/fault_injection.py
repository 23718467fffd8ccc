"""Makes a request fail as a fault says, down to its TCP connection."""

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

#: The key of the connection in a request's scope.
TRANSPORT = "planasonix.transport"

_PROXY_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>{title}</title></head>"
    "<body><center><h1>{title}</h1></center><hr><center>nginx</center></body></html>\n"
)


class ConnectionProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, which also adds the connection to the scope of each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app: Any = partial(self._call, self.app)
        # Otherwise uvicorn logs a line per request to the handlers of the process that runs the simulator.
        self.access_log = False

    async def _call(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[TRANSPORT] = self.transport
        # Only a server that stops cancels its requests, after it has dropped their connections. Uvicorn would log each
        # as an error of the application.
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)


class ConnectionReset(Response):
    """Resets the connection instead of a response, like a process that died."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(scope)
        # The client may have closed the connection while the request hung.
        if not transport.is_closing():
            # With a linger time of 0, the connection is closed with RST instead of FIN.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        await _wait_for_disconnect(receive)


class TruncatedResponse(Response):
    """Sends the headers and half of the body of another response, and closes the connection."""

    def __init__(self, response: Response) -> None:
        super().__init__(status_code=response.status_code)
        self.response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.response.body)
        headers = self.response.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        _transport(scope).close()
        await _wait_for_disconnect(receive)


async def inject(fault: Fault, handle: Callable[[], Awaitable[Response]]) -> Response:
    """Return the response of a faulty request; ``handle`` gives the request its effect and its true response."""
    if fault.kind == "hang" and fault.when == "before":
        await asyncio.sleep(fault.seconds)
        return await handle()
    if fault.kind == "odd":
        return _with_fields(await handle(), fault.fields)
    response = await handle() if fault.when == "after" else None
    if fault.kind == "hang" and response is not None:
        await asyncio.sleep(fault.seconds)
        return response
    return _faulty_response(fault, response)


def _with_fields(response: Response, fields: dict[str, Any]) -> Response:
    if response.media_type != "application/json" or response.status_code >= 300:
        return response
    body = json.loads(bytes(response.body))
    data = body["data"]
    body["data"] = [fields, *data] if isinstance(data, list) else {**data, **fields}
    # ASCII, because fields may contain lone surrogates, which UTF-8 cannot encode.
    return Response(json.dumps(body).encode(), response.status_code, media_type="application/json")


def _faulty_response(fault: Fault, response: Response | None) -> Response:
    if fault.kind == "reset":
        return ConnectionReset()
    if fault.kind == "cut":
        return TruncatedResponse(response or Response(b'{"data": {"id": null}}', media_type="application/json"))
    status = fault.response_status
    phrase = _phrase(status)
    if fault.kind == "status":
        code = phrase.lower().replace(" ", "_").replace("-", "_").replace("'", "")
        return error_response(status, code, "a planned fault", fault.headers)
    page = _PROXY_PAGE.format(title=f"{status} {phrase}") if fault.kind == "html" else None
    return Response(page, status, dict(fault.headers), media_type="text/html" if page else None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown Error"


def _transport(scope: Scope) -> asyncio.Transport:
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if not isinstance(transport, asyncio.Transport):
        raise RuntimeError("There is no connection to break: serve the app with the class Simulator.")
    return transport


async def _wait_for_disconnect(receive: Receive) -> None:
    # Uvicorn logs an error if a request ends without a response before its connection is closed.
    while (await receive())["type"] != "http.disconnect":
        pass
