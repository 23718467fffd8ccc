"""Finds receivers by name, for anybody who asks, without asking Airflow's database and secrets backends each time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from anyio import CapacityLimiter, to_thread

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.hooks.receiver import Receiver

#: For how many seconds it counts what was read: so long may a new connection or secret be unknown.
FRESH = 5.0
#: How many names that lead nowhere are remembered.
MOST_UNKNOWN = 1_000
#: How many unknown names may be looked up at once, and how many more in each second.
BURST, PACE = 20, 5.0
#: How many threads look up names.
THREADS = 2

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclass(frozen=True)
class Reading:
    """What was found under a name.

    :param at: when it was read, by the directory's clock.
    :param name: the name, in the spelling that was looked up.
    :param receiver: the receiver, by the name that was asked for; ``None`` where there is none, or none that works.
    :param problem: why there is none, other than that there is no connection for it.
    """

    at: float
    name: str
    receiver: Receiver | None = None
    problem: str | None = None


class Directory:
    """All receivers. To be used in one event loop.

    The same letters in upper and lower case are one receiver: a connection of the environment is found by every
    spelling, and is to take no more room, and no more looks, for all that somebody makes up.

    :param read: reads the Airflow connection of a name; blocks.
    :param clock: tells the time, in seconds.
    """

    def __init__(self, read: Callable[[str], Receiver | None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._limiter = CapacityLimiter(THREADS)
        self._known: dict[str, Reading] = {}
        self._unknown: dict[str, Reading] = {}
        self._under_way: dict[str, asyncio.Task[Reading]] = {}
        self._left, self._counted_at = float(BURST), clock()

    async def find(self, name: str, *, max_age: float = FRESH) -> Reading:
        """Find a receiver.

        :param name: the name, as it stood in a URL.
        :param max_age: how many seconds ago it may have been read.
        :return: what there is; nothing, too, if too many names were asked for that nobody knows.
        """
        if not _NAME.fullmatch(name):
            return Reading(self._clock(), name)
        known = self._known.get(name.lower())
        found = known or self._unknown.get(name)
        if found and self._clock() - found.at <= max_age:
            return _asked_for(name, found)
        spelling = known.name if known else name
        reading = self._under_way.get(spelling)
        if reading is None:
            if known is None and not self._may_look_up():
                return Reading(self._clock(), name)
            reading = self._under_way[spelling] = asyncio.create_task(self._look_up(spelling))
        # Whoever asks may go; others may have asked for the same.
        return _asked_for(name, await asyncio.shield(reading))

    async def _look_up(self, name: str) -> Reading:
        try:
            try:
                at = self._clock()
                receiver = await to_thread.run_sync(self._read, name, limiter=self._limiter)
                is_there, found = receiver is not None, Reading(at, name, receiver)
            except PlanasonixError as error:
                is_there, found = True, Reading(at, name, problem=error.message)
            except Exception as fault:
                # Without its words, in which there may be a secret, and without the name, which anybody may have made
                # up. What is known to be there still is.
                is_there = self._is_known(name)
                found = Reading(
                    at,
                    name,
                    problem=f"Airflow cannot look up the Airflow connections of receivers ({type(fault).__name__}). "
                    "If it stays, look at the health of Airflow's database and secrets backend.",
                )
            self._remember(found, is_there)
            return found
        finally:
            del self._under_way[name]

    def _remember(self, found: Reading, is_there: bool) -> None:
        if self._is_known(found.name):
            del self._known[found.name.lower()]
        self._unknown.pop(found.name, None)
        if is_there:
            self._known[found.name.lower()] = found
            return
        self._unknown[found.name] = found
        if len(self._unknown) > MOST_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _is_known(self, spelling: str) -> bool:
        known = self._known.get(spelling.lower())
        return known is not None and known.name == spelling

    def _may_look_up(self) -> bool:
        """Spare Airflow those who guess names: a bucket of tries that fills slowly."""
        now = self._clock()
        self._left, self._counted_at = min(float(BURST), self._left + PACE * (now - self._counted_at)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _asked_for(name: str, reading: Reading) -> Reading:
    return replace(reading, receiver=replace(reading.receiver, name=name)) if reading.receiver else reading
