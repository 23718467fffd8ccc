from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.workspace import Workspace

START = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)


class Clock:
    """A clock that moves only by :meth:`move`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def session_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def session_simulator(session_clock: Clock) -> Iterator[Simulator]:
    with Simulator(clock=session_clock) as simulator:
        yield simulator


@pytest.fixture
def clock(session_clock: Clock) -> Clock:
    """The clock of the workspace and the simulator, set to 2025-03-27T14:22:10Z."""
    session_clock.now = START
    return session_clock


@pytest.fixture
def workspace(clock: Clock) -> Workspace:
    """A workspace whose jobs are queued for 2 s, run for 20 s, and take 1 s to cancel."""
    return Workspace(clock=clock)


@pytest.fixture
def simulator(session_simulator: Simulator, clock: Clock) -> Simulator:
    """A running simulator in its initial state; jobs are queued for 0.2 s and run for 2 s."""
    session_simulator.reset()
    return session_simulator


@pytest.fixture(scope="session")
def session_client(session_simulator: Simulator) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {session_simulator.api_key}"}
    with httpx.Client(base_url=f"{session_simulator.url}/api/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def client(session_client: httpx.Client, simulator: Simulator) -> httpx.Client:
    """A client with the simulator's key. All tests share it, because creating one takes 40 ms."""
    return session_client
