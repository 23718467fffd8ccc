"""The watchers of one Airflow connection: their filters and cursors, and a registry that the stream reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from planasonix_provider.clock import utcnow
from planasonix_provider.validators import utc
from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.watchers.cursor import Cursor
from planasonix_provider.watchers.event_filter import EventFilter

#: The format of a saved cursor.
VERSION = 1
#: How far to go back if a damaged cursor does not contain its watermark.
DEFAULT_REWIND = timedelta(hours=1)
#: How far the watermark may move until it is saved again, although nothing was reported.
MAX_SAVED_LAG = timedelta(minutes=30)


class _SavedState(NamedTuple):
    watermark: datetime
    kinds: frozenset[str]
    has_seen_metadata: bool


@dataclass(eq=False)
class Subscriber:
    """One watcher. Its cursors are by ``job`` and ``backfill``; a new watcher has none."""

    event_filter: EventFilter
    #: Seconds between two scans.
    interval: float
    warn: Callable[[str], object] = lambda _: None
    cursors: dict[str, Cursor] = field(default_factory=dict)
    #: Whether events were reported since the cursor was saved.
    has_unsaved_events: bool = False
    #: Whether the API has shown the metadata of any work.
    has_seen_metadata: bool = False
    #: From when on DAGs may have created work in response to an event.
    responses_since: datetime | None = None
    _saved: _SavedState | None = None
    _warned: set[str] = field(default_factory=set)

    @property
    def needs_save(self) -> bool:
        """Return whether the saved cursor is stale: a restart from it would repeat events or rescan a long period."""
        if not self.cursors or any(cursor.needs_active for cursor in self.cursors.values()):
            return False
        saved, now = self._saved, self._state()
        return (
            saved is None
            or saved.kinds != now.kinds
            or now.has_seen_metadata > saved.has_seen_metadata
            or self.has_unsaved_events
            or now.watermark - saved.watermark >= MAX_SAVED_LAG
        )

    @property
    def watermark(self) -> datetime:
        """Return the earliest creation time that its scans must cover."""
        return min(cursor.watermark for cursor in self.cursors.values())

    def to_json(self) -> dict[str, Any]:
        """Return its cursors in JSON types."""
        return {
            "version": VERSION,
            "has_seen_metadata": self.has_seen_metadata,
            "responses_since": self.responses_since and self.responses_since.isoformat(),
            **{kind: cursor.to_json() for kind, cursor in self.cursors.items()},
        }

    def mark_saved(self) -> None:
        """Record that another process can read the current cursors."""
        self.has_unsaved_events = False
        self._saved = self._state()

    def _state(self) -> _SavedState:
        return _SavedState(self.watermark, frozenset(self.cursors), self.has_seen_metadata)

    def warn_once(self, text: str) -> None:
        """Log a warning, unless it was logged before."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def restore(self, saved: Sequence[Any]) -> str | None:
        """Continue from the most advanced of the saved cursors; change nothing if there is none.

        If none can be read, go back to the earliest watermark that was found in them, at least an hour.

        :return: why none can be read, or ``None``.
        """
        readable, errors, starts = [], [], []
        latest = utcnow() - DEFAULT_REWIND
        for data in saved:
            try:
                readable.append(self._read(data))
            except ValueError as error:
                errors.append(_one_line(error))
                starts.append({kind: _time_in(data, kind, "watermark") or latest for kind in self.event_filter.kinds})
        if readable:
            self.cursors = max(readable, key=lambda cursors: [cursor.watermark for cursor in cursors.values()])
            self.has_seen_metadata = any(
                isinstance(data, dict) and data.get("has_seen_metadata") is True for data in saved
            )
            # A cursor that was stored before the first response has no such time.
            times = [_time_in(data, "responses_since") for data in saved]
            self.responses_since = min(filter(None, times), default=None)
            self._saved = self._state()
            return None
        if errors:
            self.cursors = {
                kind: Cursor(min(latest, *(start[kind] for start in starts)), needs_active=True)
                for kind in self.event_filter.kinds
            }
        return next(iter(errors), None)

    def _read(self, data: Any) -> dict[str, Cursor]:
        if not isinstance(data, dict):
            raise ValueError("it is no object")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!r}, and not {VERSION}")
        # One of two kinds is missing if its lists had not been scanned yet.
        kinds = [kind for kind in self.event_filter.kinds if kind in data] or self.event_filter.kinds
        return {kind: Cursor.from_json(data.get(kind)) for kind in kinds}


def _time_in(data: Any, *path: str) -> datetime | None:
    """Return a time of a saved cursor that may be damaged; ``None`` if it has none."""
    try:
        for name in path:
            data = data[name]
        return utc(path[-1], data)
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _one_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'cursor'}: {problem['msg']}"
    return str(error)


class SubscriberRegistry:
    """The subscribers of one Airflow connection in one event loop."""

    def __init__(self) -> None:
        #: A dict, because it keeps the order.
        self.subscribers: dict[Subscriber, None] = {}
        self._has_new = asyncio.Event()

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        """Register a subscriber within a ``with`` block."""
        self.subscribers[subscriber] = None
        self._has_new.set()
        try:
            yield
        finally:
            del self.subscribers[subscriber]

    async def wait_for_subscriber(self) -> None:
        """Wait until there is a subscriber."""
        while not self.subscribers:
            self._has_new.clear()
            await self._has_new.wait()
        self._has_new.clear()

    async def wait_for_new_subscriber(self, seconds: float) -> None:
        """Wait, at most some seconds, for a subscriber that came after :meth:`wait_for_subscriber` returned."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_new.wait()


#: The registries, by Airflow connection.
REGISTRIES: PerLoop[SubscriberRegistry] = PerLoop()
