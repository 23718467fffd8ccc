"""Stores a watcher's cursor: in the state of its assets, or in an Airflow variable before Airflow 3.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from asgiref.sync import sync_to_async

from planasonix_provider.hooks.shield import shielded
from planasonix_provider.state_store import VariableStateStore, scoped_key

#: The key of a cursor, and the beginning of its variable's name.
CURSOR = "planasonix_events"
_DESCRIPTION = "How far a watcher of the Planasonix provider has reported finished work. Delete it to start again."


class CursorStore(Protocol):
    """Stores the cursor of one watcher. Its scope is a list of the watcher's arguments that the cursor depends on."""

    async def read(self) -> list[Any]:
        """Return the stored cursors: one per place that has one."""

    async def write(self, cursor: dict[str, Any]) -> None:
        """Store the cursor in each place before this returns."""


class AssetCursorStore:
    """Stores the whole cursor in the state of each asset that a watcher feeds; Airflow 3.3 and later."""

    def __init__(self, store: Any, scope: Sequence[Any]) -> None:
        # The store's own methods serve a single asset only, and a watcher of several assets has no other access.
        by_name = {**getattr(store, "_by_name", {}), **getattr(store, "_by_uri", {})}
        #: The names or URIs of the assets, if Airflow provides them.
        self.names = list(by_name)
        self._assets = list(by_name.values()) or [store]
        self._key = scoped_key(CURSOR, scope)

    async def read(self) -> list[Any]:
        """Return the stored cursor of each asset that has one."""
        cursors = [await asset.aget(self._key, None) for asset in self._assets]
        return [cursor for cursor in cursors if cursor is not None]

    async def write(self, cursor: dict[str, Any]) -> None:
        """Store the cursor in the state of each asset."""
        for asset in self._assets:
            await asset.aset(self._key, cursor)


class VariableCursorStore:
    """Stores the cursor in an Airflow variable."""

    def __init__(self, scope: Sequence[Any]) -> None:
        self._store = VariableStateStore(scope, _DESCRIPTION)

    async def read(self) -> list[Any]:
        """Return the stored cursor, if there is one; the text of a damaged one."""
        cursor = await shielded(sync_to_async(self._store.get)(CURSOR))
        return [] if cursor is None else [cursor]

    async def write(self, cursor: dict[str, Any]) -> None:
        """Store the cursor; raise ``AirflowException`` if it was not stored."""
        # A triggerer stores the events that were yielded before it handles a second request; this read is the first.
        await self.read()
        await shielded(sync_to_async(self._store.set)(CURSOR, cursor))
