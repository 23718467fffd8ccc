"""The clock of travelled time."""

from __future__ import annotations

import asyncio

from planasonix_provider import clock
from planasonix_provider.testing.travelled_clock import travel_clock
from tests.support.time_travel import BEGAN


def test_both_clocks_agree_after_many_fractions_of_a_microsecond() -> None:
    with travel_clock(BEGAN) as travel:
        for _ in range(1_000):
            clock.sleep(1 / 3)
        assert travel.passed == (clock.utcnow() - BEGAN).total_seconds()


def test_a_sleep_of_less_than_a_microsecond_advances_the_clock() -> None:
    with travel_clock(BEGAN) as travel:
        clock.sleep(1e-9)
        assert travel.passed == 1e-6


def test_time_stands_still_while_a_loop_ends_its_threads() -> None:
    async def use_a_thread() -> None:
        await asyncio.to_thread(lambda: None)

    with travel_clock(BEGAN) as travel:
        clock.run(use_a_thread())
        assert travel.passed == 0
