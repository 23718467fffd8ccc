"""Shares one stream of completion batches among the watchers of an event loop, as Airflow does from 3.3 on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from planasonix_provider.clock import loop_time
from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.watchers.completion_stream import CompletionBatch

#: Seconds until yielded events count as stored: a triggerer hands them over once a second, and does not report when
#: they are in Airflow's database.
HANDOVER_SECONDS = 5.0
#: Minimum seconds between two checkpoints during a scan, because each costs ``HANDOVER_SECONDS``.
CHECKPOINT_INTERVAL_SECONDS = 30.0


class Broadcast:
    """Consumes a stream in a task of its own, from the first consumer to the last."""

    def __init__(self, open_stream: Callable[[], AsyncGenerator[CompletionBatch]]) -> None:
        self._open_stream = open_stream
        self._task: asyncio.Task[None] | None = None
        self._queues: set[asyncio.Queue[CompletionBatch]] = set()
        #: The queues whose consumers have not finished the current batch.
        self._unfinished: set[asyncio.Queue[CompletionBatch]] = set()
        self._all_finished = asyncio.Event()

    async def subscribe(self) -> AsyncGenerator[CompletionBatch]:
        """Yield batches until the consumer stops. Asking for the next batch acknowledges the previous one."""
        queue: asyncio.Queue[CompletionBatch] = asyncio.Queue()
        self._queues.add(queue)
        if self._task is None:
            # An empty context, because a task inherits the logging context of its creator: one trigger of several.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            while True:
                yield await queue.get()
                self._finish(queue)
        finally:
            self._queues.discard(queue)
            self._finish(queue)
            if not self._queues and self._task:
                self._task.cancel()
                self._task = None

    def _finish(self, queue: asyncio.Queue[CompletionBatch]) -> None:
        self._unfinished.discard(queue)
        if not self._unfinished:
            self._all_finished.set()

    async def _run(self) -> None:
        has_events, last_checkpoint = False, -CHECKPOINT_INTERVAL_SECONDS
        async with aclosing(self._open_stream()) as batches:
            async for batch in batches:
                if batch.is_checkpoint and has_events:
                    if not batch.is_scan_end and loop_time() - last_checkpoint < CHECKPOINT_INTERVAL_SECONDS:
                        batch.acknowledged.set()
                        continue
                    await asyncio.sleep(HANDOVER_SECONDS)
                    has_events, last_checkpoint = False, loop_time()
                has_events = has_events or not batch.is_checkpoint
                self._unfinished = set(self._queues)
                self._all_finished.clear()
                for queue in self._unfinished:
                    queue.put_nowait(batch)
                await self._all_finished.wait()
                batch.acknowledged.set()


#: The broadcasts, by Airflow connection.
BROADCASTS: PerLoop[Broadcast] = PerLoop()
