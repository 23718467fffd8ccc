"""Who may do what: the API keys, and the scope that each route asks of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import RLock

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.journal import Journal

#: All scopes there are.
SCOPES = frozenset(scope for scope in SCOPE_BY_ROUTE.values() if scope)


@dataclass(frozen=True)
class ApiKey:
    """An API key.

    :param value: what a caller sends behind ``Bearer``.
    :param scopes: what the key may do.
    :param revoked: whether it was taken back.
    """

    value: str
    scopes: frozenset[str]
    revoked: bool = False

    def require(self, scope: str | None) -> None:
        """Let only a key pass that has a scope.

        :param scope: the scope, or ``None`` where every key may pass.
        :raises Refused: as ``forbidden``, if the key lacks the scope.
        """
        if scope is not None and scope not in self.scopes:
            raise ApiError("forbidden", f"this key lacks the scope {scope!r}")


class ApiKeys:
    """The API keys that the simulator knows.

    :param journal: is told of every change.
    :param lock: what guards it.
    """

    def __init__(self, journal: Journal, lock: RLock) -> None:
        self._journal = journal
        self._lock = lock
        self._keys: dict[str, ApiKey] = {}

    def add(self, value: str | None = None, scopes: Iterable[str] = SCOPES) -> ApiKey:
        """Create a key, or replace the one of the same value.

        :param value: the key; ``None`` makes one up.
        :param scopes: what it may do, of :data:`SCOPES`; all by default.
        :return: the key.
        :raises ValueError: if the value is not one word, or a scope is unknown.
        """
        if value is not None and (not value.isascii() or value.split() != [value]):
            raise ValueError("value: allowed is one word of ASCII characters.")
        scopes = frozenset(scopes)
        if unknown := sorted(scopes - SCOPES):
            raise ValueError(f"scopes: got {unknown}, allowed are {sorted(SCOPES)}.")
        key = ApiKey(value or f"plnx_sim_{secrets.token_hex(12)}", scopes)
        with self._lock:
            self._keys[key.value] = key
            self._journal.write("keys.add", value=key.value, scopes=sorted(key.scopes))
        return key

    def revoke(self, value: str) -> None:
        """Take a key back.

        :param value: the key.
        :raises Refused: as ``not_found``, if there is no such key.
        """
        with self._lock:
            if value not in self._keys:
                raise ApiError("not_found", "no such key")
            self._keys[value] = replace(self._keys[value], revoked=True)
            self._journal.write("keys.revoke", value=value)

    def authenticate(self, authorization: str | None) -> ApiKey:
        """Find the key of a request.

        :param authorization: the request's ``Authorization`` header, or ``None`` where it has none.
        :return: the key.
        :raises Refused: as ``unauthorized``, if there is no key, or none that is valid.
        """
        if authorization is None:
            raise ApiError("unauthorized", "the Authorization header is missing")
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise ApiError("unauthorized", "the Authorization header must be 'Bearer KEY'")
        key = self._keys.get(value.strip())
        if key is None:
            raise ApiError("unauthorized", "the API key is unknown")
        if key.revoked:
            raise ApiError("unauthorized", "the API key was revoked")
        return key
