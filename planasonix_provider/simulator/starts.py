"""Which start came with which ``Idempotency-Key``."""

from __future__ import annotations

from pydantic import BaseModel

from planasonix_provider.simulator.refusals import Refused


class Starts:
    """The starts that had a key. Two are the same if connection and body are, and a body is of one route only."""

    def __init__(self) -> None:
        self._starts: dict[str, tuple[str, BaseModel, str]] = {}

    def find(self, key: str | None, connection_id: str, body: BaseModel) -> str | None:
        """Find what an earlier delivery of the same start made.

        :param key: the key; ``None`` is of no start.
        :param connection_id: the connection of which something is to start.
        :param body: what it is to start with.
        :return: the id of what was made, or ``None`` if the key is new.
        :raises Refused: as ``idempotency_key_reused``, if the key came with another start.
        """
        if key is None or key not in self._starts:
            return None
        *first, made_id = self._starts[key]
        if first != [connection_id, body]:
            raise Refused(
                "idempotency_key_reused", "this Idempotency-Key came with another route, connection or body before"
            )
        return made_id

    def remember(self, key: str | None, connection_id: str, body: BaseModel, made_id: str) -> None:
        """Remember a start by its key.

        :param key: the key; ``None`` is not remembered.
        :param connection_id: the connection of which something was started.
        :param body: what it was started with.
        :param made_id: the id of what was made.
        """
        if key is not None:
            self._starts[key] = (connection_id, body, made_id)
