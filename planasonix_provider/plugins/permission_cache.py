"""Caches the auth manager's verdicts: with teams, or with Keycloak, each is a query or a request."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock

from planasonix_provider.clock import monotonic

#: How many seconds a verdict is used again. The page polls every few seconds, and a withdrawn permission must end soon.
MAX_VERDICT_AGE_SECONDS = 10.0
#: How many verdicts are cached.
MAX_VERDICTS = 10_000


class VerdictCache:
    """The verdicts of all users, for many threads. An error is no verdict."""

    def __init__(self) -> None:
        self._lock = Lock()
        # In the order of their age.
        self._verdicts: dict[Hashable, tuple[float, bool]] = {}

    def get(self, key: Hashable, ask: Callable[[], bool]) -> bool:
        """Return the cached verdict, or ask for it."""
        with self._lock:
            asked_at, verdict = self._verdicts.get(key, (float("-inf"), False))
        now = monotonic()
        if now - asked_at <= MAX_VERDICT_AGE_SECONDS:
            return verdict
        verdict = ask()
        with self._lock:
            self._verdicts.pop(key, None)
            self._verdicts[key] = now, verdict
            if len(self._verdicts) > MAX_VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
        return verdict
