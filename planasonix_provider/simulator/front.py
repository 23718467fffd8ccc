"""What every answer has and every request needs, before FastAPI looks at a request."""

from __future__ import annotations

from datetime import UTC
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote

from fastapi import Path
from pydantic import AfterValidator

from planasonix_provider.simulator.envelope import refusal
from planasonix_provider.simulator.hosts import refuse_other_hosts
from planasonix_provider.simulator.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from planasonix_provider.simulator.world import World


# Pydantic before 2.8 takes no validator with more parameters than the value, as unquote has.
def _decoded(segment: str) -> str:
    return unquote(segment)


#: An id in a path. Paths are matched as they came, so an id is decoded only once it stands alone.
PathId = Annotated[str, Path(), AfterValidator(_decoded)]


class Front:
    """Refuses requests to other hosts, keeps each id one segment of its path, and adds ``Date`` and ``X-Request-ID``.

    :param app: what answers.
    :param world: whose clock and ids are used.
    :param allowed_hosts: the names that the simulator answers to, besides ``localhost`` and IP addresses.
    """

    def __init__(self, app: ASGIApp, world: World, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._world = world
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no routes for WebSockets, and so none that would have to check where a request comes from.
            await send({"type": "websocket.close", "code": 1008})
            return
        # Starlette matches the decoded path, where an id with "%2F" in it is two segments.
        raw_path = scope.get("raw_path") or quote(scope["path"]).encode()
        scope["path"] = raw_path.decode("latin-1")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(self._world.clock().astimezone(UTC), usegmt=True)
                message["headers"] = [
                    *message["headers"],
                    (b"date", date.encode()),
                    (b"x-request-id", self._world.ids("req").encode()),
                ]
            await send(message)

        try:
            refuse_other_hosts(scope["headers"], self._allowed_hosts)
        except Refused as refused:
            await refusal(refused)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)
