from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from contextlib import aclosing

from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.watchers.broadcast import HANDOVER_SECONDS, Broadcast
from planasonix_provider.watchers.completion_stream import CompletionBatch

CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller")


def broadcast_of(*batches: CompletionBatch, closed_by: list[str] | None = None) -> Broadcast:
    async def open_stream() -> AsyncGenerator[CompletionBatch]:
        try:
            for batch in batches:
                yield batch
                await batch.acknowledged.wait()
            await asyncio.Event().wait()
        finally:
            if closed_by is not None:
                closed_by.append(CALLER.get("nobody"))

    return Broadcast(open_stream)


def test_sends_a_batch_when_all_consumers_have_finished_the_previous_one() -> None:
    first, second = CompletionBatch(), CompletionBatch()

    async def main() -> None:
        broadcast = broadcast_of(first, second)
        async with aclosing(broadcast.subscribe()) as fast, aclosing(broadcast.subscribe()) as slow:
            of_fast = asyncio.ensure_future(anext(fast))
            assert await anext(slow) is first is await of_fast
            of_fast = asyncio.ensure_future(anext(fast))
            await asyncio.sleep(100)
            assert not of_fast.done()
            assert not first.acknowledged.is_set()
            assert await anext(slow) is second is await of_fast

    TravelledClock().run(main())


def test_does_not_wait_for_a_consumer_that_has_left() -> None:
    first, second = CompletionBatch(), CompletionBatch()

    async def main() -> None:
        broadcast = broadcast_of(first, second)
        async with aclosing(broadcast.subscribe()) as staying:
            leaving = broadcast.subscribe()
            of_leaving = asyncio.ensure_future(anext(leaving))
            assert await anext(staying) is first is await of_leaving
            await leaving.aclose()
            assert await anext(staying) is second

    TravelledClock().run(main())


def test_delays_a_checkpoint_so_that_the_triggerer_can_store_events() -> None:
    batch, checkpoint = CompletionBatch(), CompletionBatch(is_checkpoint=True, is_scan_end=True)

    async def main() -> None:
        time = asyncio.get_running_loop().time
        broadcast = broadcast_of(batch, checkpoint, CompletionBatch(is_checkpoint=True))
        async with aclosing(broadcast.subscribe()) as batches:
            assert await anext(batches) is batch
            assert await anext(batches) is checkpoint
            assert time() == HANDOVER_SECONDS
            await anext(batches)
            assert time() == HANDOVER_SECONDS

    TravelledClock().run(main())


def test_closes_the_stream_without_consumers_and_opens_it_again_in_an_empty_context() -> None:
    closed_by: list[str] = []

    async def main() -> None:
        CALLER.set("the first trigger")
        broadcast = broadcast_of(CompletionBatch(), closed_by=closed_by)
        for number in (1, 2):
            async with aclosing(broadcast.subscribe()) as batches:
                await anext(batches)
            await asyncio.sleep(1)
            assert closed_by == ["nobody"] * number

    TravelledClock().run(main())
