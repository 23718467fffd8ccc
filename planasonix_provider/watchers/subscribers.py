"""Who wants to be told of what ends, by Airflow connection: what their watchers and the one who looks share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from planasonix_provider.clock import utcnow
from planasonix_provider.validators import utc
from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.watchers.cursor import Cursor
from planasonix_provider.watchers.event_filter import EventFilter

#: Which shape of cursor this is, so that one of another version is not misread.
VERSION = 1
#: How far to go back where nothing says how far.
UNKNOWN = timedelta(hours=1)
#: How far the bound may have moved on until it is worth being kept again, though nothing was told.
KEEP_EVERY = timedelta(minutes=30)


@dataclass(eq=False)
class Subscriber:
    """One who is told.

    :param wanted: what it wants to be told of.
    :param interval: the seconds between two looks.
    :param warn: writes a line that deserves attention to its log.
    :param ledgers: what it knows, by ``job`` and ``backfill``; nothing where it is new.
    """

    wanted: EventFilter
    interval: float
    warn: Callable[[str], object] = lambda _: None
    ledgers: dict[str, Cursor] = field(default_factory=dict)
    #: Whether it was told of something since its cursor was kept.
    is_ahead: bool = False
    #: Whether the API has shown the metadata of any work.
    has_seen_metadata: bool = False
    #: From when on work may have been created because of what it was told.
    responses_since: datetime | None = None
    _has_kept_metadata: bool = False
    _kept_since: datetime | None = None
    _kept_kinds: frozenset[str] = frozenset()
    _warned: set[str] = field(default_factory=set)

    @property
    def needs_save(self) -> bool:
        """Whether whoever goes on from what is kept would tell something twice, or would have much to look through."""
        if not self.ledgers or any(ledger.needs_active for ledger in self.ledgers.values()):
            return False
        if self._kept_since is None or self._kept_kinds != self.ledgers.keys():
            return True
        if self.has_seen_metadata and not self._has_kept_metadata:
            return True
        return self.is_ahead or self.since - self._kept_since >= KEEP_EVERY

    @property
    def since(self) -> datetime:
        """From when on the lists are looked through for it."""
        return min(ledger.watermark for ledger in self.ledgers.values())

    def cursor(self) -> dict[str, Any]:
        """Write down what it knows.

        :return: in JSON types.
        """
        kept: dict[str, Any] = {kind: ledger.to_json() for kind, ledger in self.ledgers.items()}
        since = self.responses_since
        return {
            "version": VERSION,
            "has_seen_metadata": self.has_seen_metadata,
            "responses_since": since and since.isoformat(),
            **kept,
        }

    def mark_saved(self) -> None:
        """Take note that what it knows is where another process finds it."""
        self.is_ahead, self._kept_since, self._kept_kinds = False, self.since, frozenset(self.ledgers)
        self._has_kept_metadata = self.has_seen_metadata

    def warn_once(self, text: str) -> None:
        """Write a line that deserves attention, unless it was written before.

        :param text: the line.
        """
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def restore(self, cursors: Sequence[Any]) -> list[str]:
        """Take over what another process knew, from the cursor that is furthest.

        Where none can be read, it goes back as far as one says that it must, or an hour.

        :param cursors: what is kept, as :meth:`cursor` has given it; with none, nothing is taken over.
        :return: why what was kept cannot be read, where it cannot be.
        """
        read, troubles, begins = [], [], []
        for cursor in cursors:
            try:
                read.append(self._read(cursor))
            except ValueError as damage:
                troubles.append(_in_a_line(damage))
                begins.append({kind: _begin_of(cursor, kind) for kind in self.wanted.kinds})
        if read:
            self.ledgers = max(read, key=lambda ledgers: [ledger.watermark for ledger in ledgers.values()])
            self._kept_since, self._kept_kinds = self.since, frozenset(self.ledgers)
            self.has_seen_metadata = self._has_kept_metadata = any(
                isinstance(cursor, dict) and cursor.get("has_seen_metadata") is True for cursor in cursors
            )
            self.responses_since = min(filter(None, map(_responses_since, cursors)), default=None)
            return []
        if begins:
            self.ledgers = {
                kind: Cursor(min(begin[kind] for begin in begins), needs_active=True) for kind in self.wanted.kinds
            }
        return troubles[:1]

    def _read(self, cursor: Any) -> dict[str, Cursor]:
        if not isinstance(cursor, dict):
            raise ValueError("it is no object")
        if cursor.get("version") != VERSION:
            raise ValueError(f"its version is {cursor.get('version')!r}, and not {VERSION}")
        # Where one of two kinds is missing, its lists had not been asked for yet.
        kinds = [kind for kind in self.wanted.kinds if kind in cursor] or self.wanted.kinds
        return {kind: Cursor.from_json(cursor.get(kind)) for kind in kinds}


def _responses_since(cursor: Any) -> datetime | None:
    try:
        return utc("responses_since", cursor["responses_since"])
    except (TypeError, KeyError, ValueError, OverflowError):
        # A cursor of an earlier version has no such time.
        return None


def _begin_of(cursor: Any, kind: str) -> datetime:
    """Say from when on a damaged cursor had not told everything, if that can still be read in it."""
    latest = utcnow() - UNKNOWN
    try:
        return min(utc("since", cursor[kind]["watermark"]), latest)
    except (TypeError, KeyError, ValueError, OverflowError):
        return latest


def _in_a_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'cursor'}: {problem['msg']}"
    return str(error)


class SubscriberRegistry:
    """All who listen in one event loop, over one Airflow connection."""

    def __init__(self) -> None:
        self.listeners: dict[Subscriber, None] = {}
        self._newcomer = asyncio.Event()

    @contextmanager
    def subscribed(self, listener: Subscriber) -> Iterator[None]:
        """Be on the roster for as long as the block lasts.

        :param listener: who.
        """
        self.listeners[listener] = None
        self._newcomer.set()
        try:
            yield
        finally:
            del self.listeners[listener]

    async def wait_for_subscriber(self) -> None:
        """Wait until anybody listens."""
        while not self.listeners:
            self._newcomer.clear()
            await self._newcomer.wait()
        self._newcomer.clear()

    async def wait_for_new_subscriber(self, seconds: float) -> None:
        """Wait until somebody listens who did not when :meth:`somebody` returned.

        :param seconds: for how long at the most.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._newcomer.wait()


#: The registries, by Airflow connection.
REGISTRIES: PerLoop[SubscriberRegistry] = PerLoop()
