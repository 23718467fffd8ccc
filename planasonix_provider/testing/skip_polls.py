"""Skips the polls that cannot return anything new: a job of several hours would be polled a thousand times.

Polls stay multiples of ``poll_interval`` apart. The task sees the same snapshots at the same times as without the
skipped polls.
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
from planasonix_provider.simulator.workspace import Workspace
from planasonix_provider.waiting import blocking_wait, poller
from planasonix_provider.waiting.outages import pause_after
from planasonix_provider.waiting.poller import PollSubscription

T = TypeVar("T")

#: At most this much time is skipped at once if nothing in the simulator changes by itself.
MAX_SKIPPED_SECONDS = 86_400.0


def skip_polls(workspace: Workspace, patch: pytest.MonkeyPatch) -> None:
    """Patch all kinds of waits so that they skip the polls before the simulator's next change."""
    next_poke: Callable[..., float] = PlanasonixSensor._get_next_poke_interval

    def pause_until_news(answer: object, interval: float) -> float:
        polls = 1 if isinstance(answer, PlanasonixError) else polls_until_change(workspace, interval)
        return max(pause_after(answer, interval), interval * polls)

    class WaitForNews(PollSubscription[T]):
        def answer(self, answer: T | PlanasonixError) -> None:
            super().answer(answer)
            if not isinstance(answer, PlanasonixError):
                pause = self.interval * polls_until_change(workspace, self.interval)
                self.due = max(self.due, asyncio.get_running_loop().time() + pause)

    def poke_at_news(sensor: PlanasonixSensor, started_at: Any, run_duration: Any, poke_count: Any) -> float:
        interval = next_poke(sensor, started_at, run_duration, poke_count)
        # Airflow ends the wait after the first poke beyond the timeout.
        left = math.floor(max(0.0, sensor.timeout - float(run_duration())) / interval) + 1
        return interval * min(polls_until_change(workspace, interval), left)

    patch.setattr(blocking_wait, "pause_after", pause_until_news)
    patch.setattr(poller, "PollSubscription", WaitForNews)
    patch.setattr(PlanasonixSensor, "_get_next_poke_interval", poke_at_news)


def polls_until_change(workspace: Workspace, interval: float) -> int:
    """Return the number, from 1, of the first poll that can return something new."""
    change = workspace.next_change_at()
    seconds = MAX_SKIPPED_SECONDS if change is None else (change - datetime.now(UTC)).total_seconds()
    return max(1, math.ceil(seconds / interval))
