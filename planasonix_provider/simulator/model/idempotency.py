"""The requests that came with an ``Idempotency-Key``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from planasonix_provider.simulator.model.api_errors import ApiError


class IdempotencyKeys:
    """Requests by their key. Two are equal if connection and body are: no two routes accept the same body."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[str, dict[str, Any], str]] = {}
        self._keys: dict[str, str] = {}

    def find(self, key: str | None, connection_id: str, body: BaseModel) -> str | None:
        """Return the id that the same request created before, or ``None`` if the key is new."""
        if key is None or key not in self._requests:
            return None
        *request, created_id = self._requests[key]
        if request != [connection_id, body.model_dump(exclude_unset=True)]:
            raise ApiError(
                "idempotency_key_reused", "this Idempotency-Key was used for another route, connection or body"
            )
        return created_id

    def add(self, key: str | None, connection_id: str, body: BaseModel, created_id: str) -> None:
        """Store what a request created; a request without a key is not stored."""
        if key is not None:
            self._requests[key] = (connection_id, body.model_dump(exclude_unset=True), created_id)
            self._keys[created_id] = key

    def remove(self, created_id: str) -> None:
        """Remove the request that created something, so that its key is new again."""
        if (key := self._keys.pop(created_id, None)) is not None:
            del self._requests[key]
