"""Which start came with which ``Idempotency-Key``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from planasonix_provider.simulator.model.api_errors import ApiError


class IdempotencyKeys:
    """The starts that had a key. Two are the same if connection and body are: no two routes take the same body."""

    def __init__(self) -> None:
        self._starts: dict[str, tuple[str, dict[str, Any], str]] = {}
        self._keys: dict[str, str] = {}

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
        if first != [connection_id, body.model_dump(exclude_unset=True)]:
            raise ApiError(
                "idempotency_key_reused", "this Idempotency-Key came with another route, connection or body before"
            )
        return made_id

    def add(self, key: str | None, connection_id: str, body: BaseModel, made_id: str) -> None:
        """Remember a start by its key.

        :param key: the key; ``None`` is not remembered.
        :param connection_id: the connection of which something was started.
        :param body: what it was started with.
        :param made_id: the id of what was made.
        """
        if key is not None:
            self._starts[key] = (connection_id, body.model_dump(exclude_unset=True), made_id)
            self._keys[made_id] = key

    def remove(self, made_id: str) -> None:
        """Forget a start: its key is new again.

        :param made_id: the id of what was made.
        """
        key = self._keys.pop(made_id, None)
        if key is not None:
            del self._starts[key]
