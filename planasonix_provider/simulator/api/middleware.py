"""The ASGI middleware of all requests."""

from __future__ import annotations

from datetime import UTC
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote

from fastapi import Path
from pydantic import AfterValidator

from planasonix_provider.simulator.api.responses import api_error_response
from planasonix_provider.simulator.hosts import check_host_header
from planasonix_provider.simulator.model.api_errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from planasonix_provider.simulator.workspace import Workspace


#: The longest request body, in bytes. A backfill that names 10,000 tables needs half of it.
MAX_BODY_BYTES = 1_048_576


# pydantic before 2.8 rejects validators with more parameters than the value, such as unquote.
def _decoded(segment: str) -> str:
    return unquote(segment)


#: An id in a path. Encoded paths are matched, so an id is decoded only afterwards.
PathId = Annotated[str, Path(), AfterValidator(_decoded)]


class HeaderMiddleware:
    """Rejects foreign hosts and large bodies, keeps ids encoded, and adds ``Date`` and ``X-Request-ID``."""

    def __init__(self, app: ASGIApp, workspace: Workspace, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._workspace = workspace
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No route is a WebSocket, so none has to check the origin.
            await send({"type": "websocket.close", "code": 1008})
            return
        # Starlette matches the decoded path, where an id with "%2F" in it is two segments.
        raw_path = scope.get("raw_path") or quote(scope["path"]).encode()
        scope["path"] = raw_path.decode("latin-1")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(self._workspace.clock().astimezone(UTC), usegmt=True)
                message["headers"] = [
                    *message["headers"],
                    (b"date", date.encode()),
                    (b"x-request-id", self._workspace.ids("req").encode()),
                ]
            await send(message)

        try:
            check_host_header(scope["headers"], self._allowed_hosts)
            _check_content_length(scope["headers"])
        except ApiError as error:
            # The body stays unread, so this connection cannot be used for another request.
            response = api_error_response(error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send_with_headers)
            return
        await self._app(scope, _limited(receive), send_with_headers)


def _check_content_length(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Reject a body by its declared length, before it is received."""
    if any(name == b"content-length" and int(value) > MAX_BODY_BYTES for name, value in headers):
        raise _too_large()


def _limited(receive: Receive) -> Receive:
    """Limit a chunked body, which has no declared length."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return receive_limited


def _too_large() -> ApiError:
    return ApiError("request_too_large", f"the body is longer than {MAX_BODY_BYTES:,} bytes; send a shorter one")
