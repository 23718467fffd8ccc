"""API keys and their scopes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import RLock

from planasonix_provider.api.routes import SCOPE_BY_ROUTE
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.journal import Journal

SCOPES = frozenset(scope for scope in SCOPE_BY_ROUTE.values() if scope)


@dataclass(frozen=True)
class ApiKey:
    """An API key and its scopes. Its name, such as ``key 1``, counts the keys in the order of their creation."""

    value: str
    scopes: frozenset[str]
    name: str
    revoked: bool = False

    def require(self, scope: str | None) -> None:
        """Raise ``forbidden`` if the key lacks a scope."""
        if scope is not None and scope not in self.scopes:
            raise ApiError("forbidden", f"this key lacks the scope {scope!r}")


class ApiKeys:
    """The API keys of a workspace."""

    def __init__(self, journal: Journal, lock: RLock) -> None:
        self._journal = journal
        self._lock = lock
        self._keys: dict[str, ApiKey] = {}

    def add(self, value: str | None = None, scopes: Iterable[str] = SCOPES) -> ApiKey:
        """Create a key, or replace the one with this value; by default with a random value and all scopes."""
        if value is not None and (not value.isascii() or value.split() != [value]):
            raise ValueError("value: allowed is one word of ASCII characters.")
        scopes = frozenset(scopes)
        if unknown := sorted(scopes - SCOPES):
            raise ValueError(f"scopes: got {unknown}, allowed are {sorted(SCOPES)}.")
        value = value or f"plnx_sim_{secrets.token_hex(12)}"
        with self._lock:
            known = self._keys.get(value)
            key = ApiKey(value, scopes, known.name if known else f"key {len(self._keys) + 1}")
            self._keys[value] = key
            self._journal.write("keys.add", value=key.value, scopes=sorted(key.scopes))
        return key

    def revoke(self, value: str) -> None:
        """Revoke a key, or raise ``not_found``."""
        with self._lock:
            if value not in self._keys:
                raise ApiError("not_found", "no such key")
            self._keys[value] = replace(self._keys[value], revoked=True)
            self._journal.write("keys.revoke", value=value)

    def valid(self) -> list[ApiKey]:
        """Return the keys that are not revoked, oldest first."""
        with self._lock:
            return [key for key in self._keys.values() if not key.revoked]

    def name_of(self, authorization: str | None) -> str | None:
        """Return the name of the key in an ``Authorization`` header, also of a revoked one; ``None`` if unknown."""
        key = self._keys.get((authorization or "").partition(" ")[2].strip())
        return key.name if key else None

    def authenticate(self, authorization: str | None) -> ApiKey:
        """Return the key in an ``Authorization`` header, or raise ``unauthorized``."""
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
