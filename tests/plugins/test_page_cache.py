from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from planasonix_provider.plugins import page_cache
from planasonix_provider.plugins.page_cache import PageCache


class Source:
    """Counts its loads; each waits until it is released."""

    def __init__(self) -> None:
        self.loads = 0
        self.released = asyncio.Event()
        self.released.set()
        self.error: Exception | None = None

    async def load(self) -> int:
        self.loads += 1
        number = self.loads
        await self.released.wait()
        if self.error:
            raise self.error
        return number


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1_000.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(page_cache, "monotonic", lambda: now[0])
    return pass_time


async def test_a_value_is_used_for_some_time(source: Source, pass_time: Callable[[float], None]) -> None:
    cache = PageCache(max_wait=1)
    for seconds, value in ((0, 1), (4, 1), (4, 2)):
        pass_time(seconds)
        assert (await cache.get("key", source.load, max_age=5)).value == value
    assert (await cache.get("other", source.load, max_age=5)).value == 3


async def test_callers_at_the_same_time_share_one_load(source: Source) -> None:
    cache = PageCache(max_wait=1)
    entries = await asyncio.gather(*(cache.get("key", source.load, max_age=5) for _ in range(20)))
    assert {entry.value for entry in entries} == {source.loads} == {1}


async def test_a_slow_load_continues_while_callers_get_the_old_value(
    source: Source, pass_time: Callable[[float], None]
) -> None:
    cache = PageCache(max_wait=0.01)
    source.released.clear()
    entry = await cache.get("key", source.load, max_age=5)
    assert (entry.value, entry.error) == (None, None)
    source.released.set()
    assert (await cache.get("key", source.load, max_age=5)).value == 1
    pass_time(6)
    source.released.clear()
    for _ in range(3):
        assert (await cache.get("key", source.load, max_age=5)).value == 1
    source.released.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await cache.get("key", source.load, max_age=5)).value == 2
    assert source.loads == 2


async def test_a_cancelled_caller_does_not_cancel_the_load(source: Source) -> None:
    cache = PageCache(max_wait=None)
    source.released.clear()
    first = asyncio.create_task(cache.get("key", source.load, max_age=5))
    second = asyncio.create_task(cache.get("key", source.load, max_age=5))
    await asyncio.sleep(0)
    first.cancel()
    source.released.set()
    assert (await second).value == 1


async def test_a_failure_is_not_repeated_at_once_and_leaves_the_old_value(
    source: Source, pass_time: Callable[[float], None]
) -> None:
    cache = PageCache(max_wait=1)
    await cache.get("key", source.load, max_age=5)
    source.error = RuntimeError("broken")
    pass_time(6)
    for seconds, loads in ((0, 2), (4, 2), (4, 3)):
        pass_time(seconds)
        entry = await cache.get("key", source.load, max_age=5)
        assert (entry.value, entry.error, source.loads) == (1, source.error, loads)
        assert entry.required_value == 1
    pass_time(page_cache.MAX_STALE_SECONDS)
    entry = await cache.get("key", source.load, max_age=5)
    with pytest.raises(RuntimeError, match="broken"):
        assert entry.required_value
    source.error = None
    pass_time(6)
    entry = await cache.get("key", source.load, max_age=5)
    assert (entry.value, entry.error) == (5, None)


async def test_expired_values_are_loaded_again(source: Source) -> None:
    cache = PageCache(max_wait=1)
    for key in ("a 1", "a 2", "b 1"):
        await cache.get(key, source.load, max_age=5)
    cache.expire("a ")
    assert [(await cache.get(key, source.load, max_age=5)).value for key in ("a 1", "a 2", "b 1")] == [4, 5, 3]


async def test_a_load_that_began_before_a_change_is_repeated(source: Source) -> None:
    cache = PageCache(max_wait=0.01)
    source.released.clear()
    await cache.get("a 1", source.load, max_age=5)
    cache.expire("a ")
    source.released.set()
    assert [(await cache.get("a 1", source.load, max_age=5)).value for _ in range(2)] == [2, 2]


async def test_its_size_is_limited(source: Source, pass_time: Callable[[float], None]) -> None:
    cache = PageCache(max_wait=1, max_entries=3, max_stale=60)
    for key in "abcad":
        await cache.get(key, source.load, max_age=5)
    assert sorted(cache.values()) == ["a", "c", "d"]
    pass_time(61)
    await cache.get("e", source.load, max_age=5)
    assert sorted(cache.values()) == ["e"]


async def test_too_many_loads_at_once_are_refused(source: Source) -> None:
    cache = PageCache(max_wait=0.01, max_entries=3)
    source.released.clear()
    entries = [await cache.get(key, source.load, max_age=5) for key in "abcd"]
    assert [type(entry.error) for entry in entries] == [type(None)] * 3 + [TimeoutError]
    source.released.set()
