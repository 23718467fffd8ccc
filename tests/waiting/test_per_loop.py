from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from planasonix_provider.waiting.per_loop import PerLoop


class Shared:
    pass


def test_an_object_is_shared_by_the_same_key_in_the_same_event_loop() -> None:
    registry: PerLoop[Shared] = PerLoop()

    async def main() -> tuple[Shared, Shared, Shared]:
        return registry.get("a", Shared), registry.get("a", Shared), registry.get("b", Shared)

    first, again, other_key = asyncio.run(main())
    other_loop, *_ = asyncio.run(main())
    assert first is again
    assert len({id(first), id(other_key), id(other_loop)}) == 3


@pytest.mark.slow("collects garbage")
def test_an_unused_object_is_deleted_with_its_event_loop() -> None:
    registry: PerLoop[Shared] = PerLoop()

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        registry.get("a", Shared)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    gc.collect()
    assert loop() is None
