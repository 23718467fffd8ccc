"""Counts refused deliveries. Anybody on the internet can cause them, so each costs an addition in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from anyio import CapacityLimiter, to_thread

from planasonix_provider.monitoring.receivers import save_refusals

log = logging.getLogger(__name__)

#: The seconds between two entries in Airflow's audit log, each with the refusals since the one before.
INTERVAL_SECONDS = 60.0


class RefusalCounter:
    """Counts the refused deliveries of each receiver. For one event loop.

    A name must be that of a receiver that exists: invented names would fill the memory and the audit log.
    """

    def __init__(
        self, save: Callable[[Mapping[str, int]], None] = save_refusals, *, interval: float = INTERVAL_SECONDS
    ) -> None:
        self._save = save
        self._interval = interval
        self._limiter = CapacityLimiter(1)
        self._unsaved: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def count(self, receiver: str) -> None:
        """Count a refused delivery of a receiver."""
        self._unsaved[receiver.lower()] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._save_later())

    @property
    def unsaved(self) -> dict[str, int]:
        """The refusals that are not in the audit log yet, by the receiver's name in lower case."""
        return dict(self._unsaved)

    async def _save_later(self) -> None:
        while self._unsaved:
            await asyncio.sleep(self._interval)
            counts, self._unsaved = self._unsaved, Counter()
            try:
                await to_thread.run_sync(self._save, counts, limiter=self._limiter)
            except Exception as fault:
                self._unsaved.update(counts)
                log.warning(
                    "Refused deliveries could not be counted in Airflow's audit log (%s).", type(fault).__name__
                )
        self._task = None
