from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from planasonix_provider import clock
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.interruptible_sleep import MAX_SLICE_SECONDS, InterruptibleSleep


class Night:
    """A clock that moves only during sleeps, and a task that is killed at a given time."""

    def __init__(self, killed_at: float = float("inf")) -> None:
        self.now = 0.0
        self.killed_at = killed_at
        self.naps: list[float] = []
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def raise_if_killed(self) -> None:
        if self.now >= self.killed_at:
            raise InterruptedError


def sleep(monkeypatch: pytest.MonkeyPatch, night: Night, seconds: float) -> None:
    """Sleep without an event loop."""
    monkeypatch.setattr(clock, "time", SimpleNamespace(sleep=night.sleep, monotonic=lambda: night.now))
    InterruptibleSleep(night.raise_if_killed, night.beat).sleep(seconds)


def sleep_in_loop(monkeypatch: pytest.MonkeyPatch, night: Night, seconds: float) -> None:
    """Sleep in an event loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def now() -> float:
            if loop.time() > night.now:
                night.sleep(loop.time() - night.now)
            return loop.time()

        monkeypatch.setattr(clock, "time", SimpleNamespace(sleep=time.sleep, monotonic=now))
        await InterruptibleSleep(night.raise_if_killed, night.beat).async_sleep(seconds)

    TravelledClock().run(main())


Sleep = Callable[[pytest.MonkeyPatch, Night, float], None]
both_ways = pytest.mark.parametrize("way", [sleep, sleep_in_loop])


@both_ways
def test_takes_the_given_time_in_slices(way: Sleep, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night()
    way(monkeypatch, night, 3.2)
    assert night.now == pytest.approx(3.2)
    assert max(night.naps) == pytest.approx(MAX_SLICE_SECONDS)


@both_ways
def test_beats_in_each_slice(way: Sleep, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night()
    way(monkeypatch, night, 10)
    assert night.beats >= 10 / MAX_SLICE_SECONDS


@both_ways
@pytest.mark.parametrize(("killed_at", "seconds"), [(0, 3_600), (10.2, 3_600), (0.2, 0.3)], ids=str)
def test_ends_soon_after_a_kill(way: Sleep, monkeypatch: pytest.MonkeyPatch, killed_at: float, seconds: float) -> None:
    night = Night(killed_at)
    with pytest.raises(InterruptedError):
        way(monkeypatch, night, seconds)
    assert killed_at <= night.now <= killed_at + MAX_SLICE_SECONDS * (killed_at > 0)


@both_ways
@pytest.mark.parametrize("seconds", [0, -5])
def test_of_zero_seconds_notices_a_kill(way: Sleep, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    way(monkeypatch, Night(), seconds)
    with pytest.raises(InterruptedError):
        way(monkeypatch, Night(killed_at=0), seconds)


def test_in_an_event_loop_lets_other_coroutines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=loop.time))
        ends: list[float] = []

        async def nap(seconds: float) -> None:
            await InterruptibleSleep(Night().raise_if_killed).async_sleep(seconds)
            ends.append(loop.time())

        await asyncio.gather(nap(3), nap(1), nap(2))
        return ends

    assert TravelledClock().run(main()) == pytest.approx([1, 2, 3])
