"""Finds receivers by name for anybody who asks, so that strangers who make up names hold up no delivery.

There are two lanes. Names that Airflow's database or the environment has as receivers are read in the first. Every
other name can only be in a secrets backend; it is read in the second, which is limited, and which the first never
waits for.
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

#: For how many seconds it counts what was read: so long may a new connection or secret be unknown.
CACHE_TTL = 5.0
#: How many seconds a known receiver waits to be read again, before what was read up to `MAX_STALE_SECONDS` ago counts.
REFRESH_SECONDS, MAX_STALE_SECONDS = 1.0, 60.0
#: How many seconds a delivery waits for a lookup. The lookup goes on, so the next delivery finds its result.
MAX_WAIT_SECONDS = 10.0
#: How many threads read receivers that are in the database or the environment, and how many ask secrets backends.
THREADS, SECRETS_BACKEND_THREADS = 4, 2
#: How many names secrets backends may be asked for at once, and how many more in each second.
BUCKET_SIZE, REFILL_PER_SECOND = 20, 5.0
#: How many deliveries may wait for a secrets backend at once.
MAX_WAITING = 100
#: How many names that lead nowhere are remembered.
MAX_UNKNOWN = 1_000

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Source(Protocol):
    """Reads the configuration of receivers. Each method blocks."""

    def list_names(self) -> ReceiverNames:
        """Return what can be known without reading a single secret."""

    def read(self, name: str) -> ReceiverConfig | None:
        """Read a receiver from wherever Airflow has it."""

    def read_from_secrets_backends(self, name: str) -> ReceiverConfig | None:
        """Read a receiver that neither Airflow's database nor the environment has."""


@dataclass(frozen=True)
class CacheEntry:
    """What was found under a name.

    :param at: when it was read, by the directory's clock.
    :param name: the name, in the spelling that was looked up.
    :param receiver: the receiver, by the name that was asked for; ``None`` where there is none, or none that works.
    :param problem: why there is none, other than that there is no connection for it.
    """

    read_at: float
    name: str
    receiver: ReceiverConfig | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _NameIndex:
    """The receivers that are configured, by their names in lower case."""

    read_at: float
    spellings: dict[str, str] = field(default_factory=dict)
    has_secrets_backend: bool = False
    problem: str | None = None


class ReceiverCache:
    """All receivers. To be used in one event loop.

    The same letters in upper and lower case are one receiver: a connection of the environment is found by every
    spelling, and is to take no more room, and no more looks, for all that somebody makes up.

    :param source: reads the Airflow connections.
    :param clock: tells the time, in seconds.
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

    async def find(self, name: str, *, max_age: float = CACHE_TTL) -> CacheEntry:
        """Find a receiver.

        :param name: the name, as it stood in a URL.
        :param max_age: how many seconds ago it may have been read.
        :return: the reading. It holds no receiver either if the lookup takes too long, or if there are too many lookups
            of names that neither Airflow's database nor the environment has.
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

    async def _find(self, name: str, max_age: float) -> CacheEntry:
        if known := self._known.get(name.lower()):
            return _with_requested_name(name, known if self._is_fresh(known, max_age) else await self._refresh(known))
        if (unknown := self._unknown.get(name)) and self._is_fresh(unknown, max_age):
            return unknown
        roster = await self._current_index()
        if spelling := roster.spellings.get(name.lower()):
            return _with_requested_name(name, await self._read(spelling))
        if roster.has_secrets_backend:
            return _with_requested_name(name, await self._read_from_secrets_backends(name))
        return self._not_found(name, roster.problem)

    def _not_found(self, name: str, problem: str | None = None) -> CacheEntry:
        return CacheEntry(self._clock(), name, problem=problem)

    def _is_fresh(self, reading: CacheEntry, max_age: float) -> bool:
        return self._clock() - reading.read_at <= max_age

    async def _refresh(self, known: CacheEntry) -> CacheEntry:
        """Read a known receiver again. A secrets backend that is slow does not hold up its deliveries."""
        patience = REFRESH_SECONDS if known.receiver and self._is_fresh(known, MAX_STALE_SECONDS) else None
        try:
            async with asyncio.timeout(patience):
                return await self._read(known.name)
        except TimeoutError:
            if patience is None:
                raise
            return known

    async def _read(self, name: str) -> CacheEntry:
        if (reading := self._read_tasks.get(name)) is None:
            reading = asyncio.create_task(self._look_up(name, self._source.read, self._limiter))
            self._read_tasks[name] = reading
            reading.add_done_callback(lambda _: self._read_tasks.pop(name))
        # Whoever asks may go; others may have asked for the same.
        return await asyncio.shield(reading)

    async def _read_from_secrets_backends(self, name: str) -> CacheEntry:
        """Ask the secrets backends for a name that may be made up."""
        if self._waiting >= MAX_WAITING:
            return self._not_found(name)
        if (reading := self._backend_tasks.get(name)) is None:
            if len(self._backend_tasks) >= BUCKET_SIZE or not self._take_token():
                return self._not_found(name)
            look_up = self._look_up(name, self._source.read_from_secrets_backends, self._secrets_backend_limiter)
            reading = self._backend_tasks[name] = asyncio.create_task(look_up)
            reading.add_done_callback(lambda _: self._backend_tasks.pop(name))
        self._waiting += 1
        try:
            return await asyncio.shield(reading)
        finally:
            self._waiting -= 1

    async def _look_up(
        self, name: str, read: Callable[[str], ReceiverConfig | None], limiter: CapacityLimiter
    ) -> CacheEntry:
        try:
            receiver = await to_thread.run_sync(read, name, limiter=limiter)
            is_there, found = receiver is not None, CacheEntry(self._clock(), name, receiver)
        except PlanasonixError as error:
            is_there, found = True, CacheEntry(self._clock(), name, problem=error.message)
        except Exception as fault:
            # A known receiver stays known.
            is_there, found = (
                self._is_known(name),
                CacheEntry(self._clock(), name, problem=_lookup_failed_message(fault)),
            )
        is_guess = limiter is self._secrets_backend_limiter
        # A connection may have been made while a slow secrets backend was asked.
        if is_there or not (is_guess and self._is_known(name)):
            self._store(found, is_there)
        return found

    def _store(self, found: CacheEntry, is_there: bool) -> None:
        if self._is_known(found.name):
            del self._known[found.name.lower()]
        self._unknown.pop(found.name, None)
        if is_there:
            self._known[found.name.lower()] = found
            return
        self._unknown[found.name] = found
        if len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _is_known(self, spelling: str) -> bool:
        known = self._known.get(spelling.lower())
        return known is not None and known.name == spelling

    async def _current_index(self) -> _NameIndex:
        if self._index and self._clock() - self._index.read_at <= CACHE_TTL:
            return self._index
        if self._index_task is None:
            self._index_task = asyncio.create_task(self._read_index())
        return await asyncio.shield(self._index_task)

    async def _read_index(self) -> _NameIndex:
        at = self._clock()
        try:
            names = await to_thread.run_sync(self._source.list_names, limiter=self._index_limiter)
            spellings = {conn_id.lower(): conn_id for conn_id in sorted(names.conn_ids, reverse=True)}
            self._index = _NameIndex(at, spellings, names.has_secrets_backend)
        except Exception as fault:
            self._index = replace(self._index or _NameIndex(at), read_at=at, problem=_lookup_failed_message(fault))
        finally:
            self._index_task = None
        return self._index

    def _take_token(self) -> bool:
        """Spare secrets backends those who make up names: a bucket of tries that fills slowly."""
        now = self._clock()
        self._tokens, self._refilled_at = (
            min(float(BUCKET_SIZE), self._tokens + REFILL_PER_SECOND * (now - self._refilled_at)),
            now,
        )
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _lookup_failed_message(fault: Exception) -> str:
    """Describe a failed lookup. Its words may hold a secret, and anybody may have made the name up."""
    return (
        f"Airflow cannot look up the Airflow connections of receivers ({type(fault).__name__}). If it stays, look at "
        "the health of Airflow's database and secrets backend."
    )


def _with_requested_name(name: str, reading: CacheEntry) -> CacheEntry:
    return replace(reading, receiver=replace(reading.receiver, name=name)) if reading.receiver else reading
