"""Objects that everything in one event loop shares, such as the poller of an Airflow connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object per event loop and key.

    The event loop is part of the key, because ``dag.test()`` runs each trigger in a loop of its own. References are
    weak: an object, and with it its loop, is deleted with its last user.
    """

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], T] = WeakValueDictionary()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the shared object; ``make`` creates it if there is none."""
        loop = asyncio.get_running_loop()
        shared = self._shared.get((loop, key))
        if shared is None:
            shared = self._shared[loop, key] = make()
        return shared
