"""A cache that all browsers share, so that many open pages cost as much as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from planasonix_provider.clock import monotonic, utcnow

T = TypeVar("T")

#: How many values are cached. The one that was requested longest ago is dropped first.
MAX_ENTRIES = 200
#: How many seconds an old value is kept without a new one.
MAX_STALE_SECONDS = 300.0


@dataclass(frozen=True)
class PageCacheEntry(Generic[T]):
    """A cached value.

    :param value: the last value that was loaded; ``None`` if there is none yet.
    :param read_at: when it was loaded.
    :param error: why the last attempt to load a value failed; ``None`` if it did not.
    """

    value: T | None = None
    read_at: datetime | None = None
    error: Exception | None = None
    #: By the monotonic clock.
    tried_at: float = float("-inf")
    loaded_at: float = float("-inf")

    @property
    def required_value(self) -> T:
        """The value.

        :raises Exception: the error of the last attempt, or ``TimeoutError`` if it has not ended yet.
        """
        if self.value is None:
            raise self.error or TimeoutError
        return self.value


class PageCache:
    """Caches values by key. Callers that need the same value at the same time share one load. For one event loop.

    A failed attempt counts like a value: it is not repeated before the time is over.

    :param max_wait: how many seconds a caller waits for a new value. Then it gets the old one, and the load continues.
        ``None`` waits for the load.
    """

    def __init__(
        self,
        *,
        max_wait: float | None,
        max_entries: int = MAX_ENTRIES,
        max_stale: float = MAX_STALE_SECONDS,
    ) -> None:
        self._max_wait = max_wait
        self._max_entries = max_entries
        self._max_stale = max_stale
        # In the order of their last use.
        self._entries: dict[str, PageCacheEntry[Any]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        # The keys that have expired since their loads began.
        self._expired: set[str] = set()

    async def get(
        self, key: str, load: Callable[[], Awaitable[T]], *, max_age: float, wait: bool = True
    ) -> PageCacheEntry[T]:
        """Return the entry of a key, which was loaded at most ``max_age`` seconds ago.

        It is older if the load fails or takes longer than a caller waits. ``wait=False`` does not wait at all.
        """
        entry = self._use(key)
        if monotonic() - entry.tried_at <= max_age:
            return entry
        if (task := self._loads.get(key)) is None:
            if len(self._loads) >= self._max_entries:
                return replace(entry, error=entry.error or TimeoutError("Too many queries at once."))
            task = self._loads[key] = asyncio.create_task(self._load(key, load))
        # Not cancelled after the timeout or with the request: other requests wait for it, too.
        await asyncio.wait([task], timeout=self._max_wait if wait else 0)
        return self._use(key)

    def values(self) -> dict[str, Any]:
        """Return all values by their keys, without loading any."""
        return {key: entry.value for key, entry in self._entries.items() if entry.value is not None}

    def expire(self, prefix: str) -> None:
        """Mark all entries as outdated whose key begins with a prefix."""
        for key, entry in self._entries.items():
            if key.startswith(prefix):
                self._entries[key] = replace(entry, tried_at=float("-inf"))
        self._expired.update(key for key in self._loads if key.startswith(prefix))

    def _use(self, key: str) -> PageCacheEntry[Any]:
        """Return the entry, and make it the newest one."""
        entry = self._entries.pop(key, PageCacheEntry())
        if monotonic() - entry.loaded_at > self._max_stale:
            entry = replace(entry, value=None, read_at=None)
        self._store(key, entry)
        return entry

    def _drop_stale(self) -> None:
        oldest = monotonic() - self._max_stale
        for key in [key for key, entry in self._entries.items() if max(entry.tried_at, entry.loaded_at) < oldest]:
            if key not in self._loads:
                del self._entries[key]

    def _store(self, key: str, entry: PageCacheEntry[Any]) -> None:
        self._drop_stale()
        self._entries[key] = entry
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]

    async def _load(self, key: str, load: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await load()
            while key in self._expired:
                # It may be what was true before the change.
                self._expired.remove(key)
                value = await load()
            entry = PageCacheEntry(value, utcnow(), None, monotonic(), monotonic())
        except Exception as error:
            entry = replace(self._entries.get(key, PageCacheEntry()), error=error, tried_at=monotonic())
        finally:
            del self._loads[key]
            self._expired.discard(key)
        self._store(key, entry)
