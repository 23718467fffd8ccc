"""Hands the news of one stream to all who listen in an event loop: what Airflow itself has from 3.3 on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from planasonix_provider.waiting.per_loop import PerLoop
from planasonix_provider.watchers.completion_stream import CompletionBatch

#: For how many seconds whoever was told of something may take to pass it on: a triggerer hands its events over once a
#: second, and does not say when they are in Airflow's database.
HANDED_OVER_AFTER = 5.0
#: So cursors are kept so many seconds apart amid a look that has much to tell.
CHECKPOINT_EVERY = 30.0


class Broadcast:
    """Looks for all who listen, and ends when nobody does.

    :param news: begins to look; its generator is closed when nobody listens any more.
    """

    def __init__(self, news: Callable[[], AsyncGenerator[CompletionBatch]]) -> None:
        self._news = news
        self._task: asyncio.Task[None] | None = None
        self._queues: set[asyncio.Queue[CompletionBatch]] = set()
        self._taken = asyncio.Event()
        self._takers: set[asyncio.Queue[CompletionBatch]] = set()

    async def listen(self) -> AsyncGenerator[CompletionBatch]:
        """Listen for as long as somebody asks for more; who asks for the next news has passed on the ones before.

        :return: the news.
        """
        queue: asyncio.Queue[CompletionBatch] = asyncio.Queue()
        self._queues.add(queue)
        if self._task is None:
            # A context of its own, for a task inherits the log of whoever made it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
        try:
            while True:
                yield await queue.get()
                self._takes(queue)
        finally:
            self._queues.discard(queue)
            self._takes(queue)
            if not self._queues and self._task:
                self._task.cancel()
                self._task = None

    def _takes(self, queue: asyncio.Queue[CompletionBatch]) -> None:
        self._takers.discard(queue)
        if not self._takers:
            self._taken.set()

    async def _run(self) -> None:
        has_told, last = False, -CHECKPOINT_EVERY
        async with aclosing(self._news()) as all_news:
            async for news in all_news:
                if news.is_checkpoint and has_told:
                    if not news.is_the_end and _seconds() - last < CHECKPOINT_EVERY:
                        news.acknowledged.set()
                        continue
                    await asyncio.sleep(HANDED_OVER_AFTER)
                    has_told, last = False, _seconds()
                has_told = has_told or not news.is_checkpoint
                self._takers = set(self._queues)
                self._taken.clear()
                for queue in self._takers:
                    queue.put_nowait(news)
                await self._taken.wait()
                news.acknowledged.set()


def _seconds() -> float:
    return asyncio.get_running_loop().time()


#: The broadcasts, by Airflow connection.
BROADCASTS: PerLoop[Broadcast] = PerLoop()
