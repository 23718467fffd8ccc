"""Caches permissions: with teams, or with Keycloak, the auth manager needs a query or a request for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock

from planasonix_provider.clock import monotonic

#: How many seconds a permission is used again. The page polls every few seconds, and a withdrawn one must end soon.
MAX_PERMISSION_AGE_SECONDS = 10.0
#: How many permissions are cached.
MAX_PERMISSIONS = 10_000


class PermissionCache:
    """The permissions of all users, for many threads. Denials are cached, errors are not."""

    def __init__(self) -> None:
        self._lock = Lock()
        # In the order of their age.
        self._permissions: dict[Hashable, tuple[float, bool]] = {}

    def get(self, key: Hashable, ask: Callable[[], bool]) -> bool:
        """Return the cached permission, or ask for it."""
        with self._lock:
            asked_at, is_allowed = self._permissions.get(key, (float("-inf"), False))
        now = monotonic()
        if now - asked_at <= MAX_PERMISSION_AGE_SECONDS:
            return is_allowed
        is_allowed = ask()
        with self._lock:
            self._permissions.pop(key, None)
            self._permissions[key] = now, is_allowed
            if len(self._permissions) > MAX_PERMISSIONS:
                del self._permissions[next(iter(self._permissions))]
        return is_allowed
