"""Waits that look only when there is news: a job of hours would be looked at a thousand times, and show the same.

A look is due when the ``poll_interval`` is over, as ever; those that cannot bring news are left out. What the task
sees, and when, is what it would have seen with them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.sensors.base import PlanasonixSensor
from planasonix_provider.simulator.model.workspace import Workspace
from planasonix_provider.waiting import blocking_wait, poller
from planasonix_provider.waiting.poller import PollSubscription
from planasonix_provider.waiting.wait_state import pause_after

T = TypeVar("T")

#: For how many seconds no look is left out where nothing is going on, and so nothing changes by itself.
AT_MOST = 86_400.0


def leap(world: Workspace, patch: pytest.MonkeyPatch) -> None:
    """Let waits leave out the looks that cannot bring news.

    :param world: what they look at.
    :param patch: undoes it.
    """
    next_poke: Callable[..., float] = PlanasonixSensor._get_next_poke_interval

    def pause_until_news(answer: object, interval: float) -> float:
        looks = 1 if isinstance(answer, PlanasonixError) else looks_until_news(world, interval)
        return max(pause_after(answer, interval), interval * looks)

    class WaitForNews(PollSubscription[T]):
        def answer(self, answer: T | PlanasonixError) -> None:
            super().answer(answer)
            if not isinstance(answer, PlanasonixError):
                pause = self.interval * looks_until_news(world, self.interval)
                self.due = max(self.due, asyncio.get_running_loop().time() + pause)

    def poke_at_news(sensor: PlanasonixSensor, started_at: Any, run_duration: Any, poke_count: Any) -> float:
        interval = next_poke(sensor, started_at, run_duration, poke_count)
        # Airflow ends the wait after the first poke that is later than this.
        left = math.floor(max(0.0, sensor.timeout - float(run_duration())) / interval) + 1
        return interval * min(looks_until_news(world, interval), left)

    patch.setattr(blocking_wait, "pause_after", pause_until_news)
    patch.setattr(poller, "PollSubscription", WaitForNews)
    patch.setattr(PlanasonixSensor, "_get_next_poke_interval", poke_at_news)


def looks_until_news(world: Workspace, interval: float) -> int:
    """Say which of the next looks is the first that can bring news.

    :param world: what is looked at.
    :param interval: the seconds between two looks.
    :return: its number, from 1.
    """
    change = world.changes_at()
    seconds = AT_MOST if change is None else (change - datetime.now(UTC)).total_seconds()
    return max(1, math.ceil(seconds / interval))
