"""Looks up receivers by name, so that requests with invented names do not delay deliveries.

There are two queues. Names of receivers in Airflow's database or in the environment are read in the first one. Any
other name can only be in a secrets backend. It is read in the second queue, which is rate-limited and never blocks the
first one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from anyio import CapacityLimiter, to_thread

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, ReceiverNames

#: For how long a new connection or secret may be unknown.
CACHE_TTL_SECONDS = 5.0
#: How many seconds the refresh of a known receiver may take. After that, an entry of at most `MAX_STALE_SECONDS` is
#: used.
REFRESH_SECONDS, MAX_STALE_SECONDS = 1.0, 60.0
#: How many seconds a delivery waits for a lookup. The lookup continues, so the next delivery finds its result.
MAX_WAIT_SECONDS = 10.0
#: Threads for receivers in the database or the environment, and threads for secrets backends.
THREADS, SECRETS_BACKEND_THREADS = 4, 2
#: A token bucket for lookups in secrets backends: its size, and how many tokens are added per second.
BUCKET_SIZE, REFILL_PER_SECOND = 20, 5.0
#: How many deliveries may wait for a secrets backend at once.
MAX_WAITING = 100
#: How many names that are no receivers are cached.
MAX_UNKNOWN = 1_000

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Source(Protocol):
    """Reads the configuration of receivers. Its methods block."""

    def list_names(self) -> ReceiverNames:
        """List the receivers that can be listed without reading a secret."""

    def read(self, name: str) -> ReceiverConfig | None:
        """Read a receiver from any source."""

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        """Read a receiver that neither Airflow's database nor the environment has."""


@dataclass(frozen=True)
class CacheEntry:
    """The result of a lookup.

    :param read_at: when it was read, by the cache's clock.
    :param name: the name, in the spelling that was looked up.
    :param receiver: the receiver, with the name that was requested; ``None`` if there is none, or if it does not work.
    :param problem: why there is no receiver; ``None`` if there is just no such connection.
    """

    read_at: float
    name: str
    receiver: ReceiverConfig | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _NameIndex:
    """The listed receivers, by their names in lower case."""

    read_at: float
    spellings: dict[str, str] = field(default_factory=dict)
    has_secrets_backend: bool = False
    problem: str | None = None


class ReceiverCache:
    """Caches all receivers. For one event loop.

    Names that differ only in case are one receiver: Airflow finds a connection of the environment in any spelling, and
    other spellings must not cause more lookups or use more memory.
    """

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._limiter = CapacityLimiter(THREADS)
        self._index_limiter = CapacityLimiter(1)
        self._secrets_backend_limiter = CapacityLimiter(SECRETS_BACKEND_THREADS)
        self._index: _NameIndex | None = None
        self._index_task: asyncio.Task[_NameIndex] | None = None
        self._known: dict[str, CacheEntry] = {}
        self._unknown: dict[str, CacheEntry] = {}
        self._read_tasks: dict[str, asyncio.Task[CacheEntry]] = {}
        self._backend_tasks: dict[str, asyncio.Task[CacheEntry]] = {}
        self._waiting = 0
        self._tokens, self._refilled_at = float(BUCKET_SIZE), clock()

    async def find(self, name: str, *, max_age: float = CACHE_TTL_SECONDS) -> CacheEntry:
        """Return the entry for a name from a URL, which may have been read up to ``max_age`` seconds ago.

        The entry has no receiver if the lookup takes too long, or if there are too many lookups of names that neither
        Airflow's database nor the environment has.
        """
        if not _NAME.fullmatch(name):
            return self._not_found(name)
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return await self._find(name, max_age)
        except TimeoutError:
            return self._not_found(
                name,
                f"The lookup of a webhook receiver takes more than {MAX_WAIT_SECONDS:.0f} s, so its delivery was not "
                "accepted. If it stays, look at the health of Airflow's database and secrets backend.",
            )

    def known_name(self, name: str) -> str | None:
        """Return the name of a receiver that a lookup has found, in its own spelling; ``None`` for any other name."""
        known = self._known.get(name.lower())
        return known.name if known else None

    async def _find(self, name: str, max_age: float) -> CacheEntry:
        if known := self._known.get(name.lower()):
            return _with_requested_name(name, known if self._is_fresh(known, max_age) else await self._refresh(known))
        if (unknown := self._unknown.get(name)) and self._is_fresh(unknown, max_age):
            return unknown
        index = await self._current_index()
        if spelling := index.spellings.get(name.lower()):
            return _with_requested_name(name, await self._read(spelling))
        if index.has_secrets_backend:
            return _with_requested_name(name, await self._read_from_secrets_backends(name))
        return self._not_found(name, index.problem)

    def _not_found(self, name: str, problem: str | None = None) -> CacheEntry:
        return CacheEntry(self._clock(), name, problem=problem)

    def _is_fresh(self, entry: CacheEntry, max_age: float) -> bool:
        return self._clock() - entry.read_at <= max_age

    async def _refresh(self, known: CacheEntry) -> CacheEntry:
        """Read a known receiver again, without blocking its deliveries on a slow secrets backend."""
        timeout = REFRESH_SECONDS if known.receiver and self._is_fresh(known, MAX_STALE_SECONDS) else None
        try:
            async with asyncio.timeout(timeout):
                return await self._read(known.name)
        except TimeoutError:
            if timeout is None:
                raise
            return known

    async def _read(self, name: str) -> CacheEntry:
        if (task := self._read_tasks.get(name)) is None:
            task = self._read_tasks[name] = asyncio.create_task(self._look_up(name, self._source.read, self._limiter))
            task.add_done_callback(lambda _: self._read_tasks.pop(name))
        # The task is shared, so a cancelled request must not cancel it.
        return await asyncio.shield(task)

    async def _read_from_secrets_backends(self, name: str) -> CacheEntry:
        """Search the secrets backends for a name that may be invented."""
        if self._waiting >= MAX_WAITING:
            return self._not_found(name)
        if (task := self._backend_tasks.get(name)) is None:
            if len(self._backend_tasks) >= BUCKET_SIZE or not self._take_token():
                return self._not_found(name)
            look_up = self._look_up(name, self._source.read_from_secrets_backends, self._secrets_backend_limiter)
            task = self._backend_tasks[name] = asyncio.create_task(look_up)
            task.add_done_callback(lambda _: self._backend_tasks.pop(name))
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting -= 1

    async def _look_up(
        self, name: str, read: Callable[[str], ReceiverConfig | None], limiter: CapacityLimiter
    ) -> CacheEntry:
        try:
            receiver = await to_thread.run_sync(read, name, limiter=limiter)
            exists, entry = receiver is not None, CacheEntry(self._clock(), name, receiver)
        except PlanasonixError as error:
            exists, entry = True, CacheEntry(self._clock(), name, problem=error.message)
        except Exception as fault:
            # A known receiver stays known.
            exists, entry = self._is_known(name), CacheEntry(self._clock(), name, problem=_lookup_failed_message(fault))
        is_backend_only = limiter is self._secrets_backend_limiter
        # The connection may have been created while a slow secrets backend was searched.
        if exists or not (is_backend_only and self._is_known(name)):
            self._store(entry, exists)
        return entry

    def _store(self, entry: CacheEntry, exists: bool) -> None:
        if self._is_known(entry.name):
            del self._known[entry.name.lower()]
        self._unknown.pop(entry.name, None)
        if exists:
            self._known[entry.name.lower()] = entry
            return
        self._unknown[entry.name] = entry
        if len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _is_known(self, spelling: str) -> bool:
        known = self._known.get(spelling.lower())
        return known is not None and known.name == spelling

    async def _current_index(self) -> _NameIndex:
        if self._index and self._clock() - self._index.read_at <= CACHE_TTL_SECONDS:
            return self._index
        if self._index_task is None:
            self._index_task = asyncio.create_task(self._read_index())
        return await asyncio.shield(self._index_task)

    async def _read_index(self) -> _NameIndex:
        read_at = self._clock()
        try:
            names = await to_thread.run_sync(self._source.list_names, limiter=self._index_limiter)
            spellings = {conn_id.lower(): conn_id for conn_id in sorted(names.conn_ids, reverse=True)}
            self._index = _NameIndex(read_at, spellings, names.has_secrets_backend)
        except Exception as fault:
            problem = _lookup_failed_message(fault)
            self._index = replace(self._index or _NameIndex(read_at), read_at=read_at, problem=problem)
        finally:
            self._index_task = None
        return self._index

    def _take_token(self) -> bool:
        now = self._clock()
        refill = REFILL_PER_SECOND * (now - self._refilled_at)
        self._tokens, self._refilled_at = min(float(BUCKET_SIZE), self._tokens + refill), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _lookup_failed_message(fault: Exception) -> str:
    """Describe a failed lookup. The exception's text may contain a secret, and the name may be invented."""
    return (
        f"Airflow cannot look up the Airflow connections of receivers ({type(fault).__name__}). If it stays, look at "
        "the health of Airflow's database and secrets backend."
    )


def _with_requested_name(name: str, entry: CacheEntry) -> CacheEntry:
    return replace(entry, receiver=replace(entry.receiver, name=name)) if entry.receiver else entry
